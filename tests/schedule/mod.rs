//! The promises of learned schedules over thousands of simulated PINs: the short form of `cargo bench -- schedule`.
//!
//! The bounds are looser than those of the benchmark, since fewer PINs teach less and are noisier. Every seed is fixed.

#[path = "../../benches/figures/schedule/compare.rs"]
#[allow(dead_code, reason = "the benchmark uses the rest of it")]
mod compare;
#[path = "../../benches/figures/schedule/lives.rs"]
#[allow(dead_code, reason = "the benchmark uses the rest of it")]
mod lives;
#[path = "../../benches/figures/schedule/optimum.rs"]
#[allow(dead_code, reason = "the benchmark uses the rest of it")]
mod optimum;
#[path = "../../benches/figures/schedule/run.rs"]
#[allow(dead_code, reason = "the benchmark uses the rest of it")]
mod run;

use self::compare::compare;
use self::lives::Population;
use self::run::{Settings, polls_by_backoff, run};

/// Enough PINs to learn from; the benchmark has 20,000.
const PINS: usize = 4_000;

const SEED: u64 = 1;

/// Checks that learned schedules are near the optimum and better than backoff: "sooner" by its delay, "fewer" by its
/// polls, in parts of backoff's.
#[track_caller]
fn learn(population: Population, most_delay: f64, most_polls: f64) {
    let ([sooner, fewer], _) = compare(population, PINS, &Settings::new(SEED));
    for (name, one) in [("sooner", &sooner), ("fewer", &fewer)] {
        println!(
            "{} {name}, seed {SEED}: polls {:.3}, delay {:.3}, cost to the optimum's {:.3}, worst {:.3}",
            population.name(),
            one.polls(),
            one.delay(),
            one.to_optimum(),
            one.worst
        );
        assert!(one.to_optimum() < 1.3, "{name}");
        assert!(one.worst < 1.1, "{name}");
    }
    assert!(sooner.delay() < most_delay && sooner.polls() < 1.25, "sooner");
    assert!(fewer.polls() < most_polls && fewer.delay() < 1.15, "fewer");
}

#[test]
fn learning_from_sms_reduces_the_delay_or_the_number_of_polls() {
    learn(Population::Sms, 0.65, 0.80);
}

#[test]
fn learning_from_calls_reduces_the_delay_or_the_number_of_polls() {
    learn(Population::Calls, 0.40, 0.55);
}

#[test]
fn pins_that_become_final_later_than_before_cost_no_more_than_with_backoff() {
    learn(Population::Slower, 0.80, 0.85);
}

#[test]
fn without_learning_every_poll_follows_backoff() {
    let settings = Settings::new(SEED);
    let pins = Population::Unending.draw(PINS, SEED);
    assert!(run(&pins, &settings).polls == polls_by_backoff(&pins, &settings));
}
