//! What `schedule.adapt` brings: polls and delay of simulated PINs, learning from nothing, beside backoff's and beside those
//! of the best schedule that there is. The core is real; time is simulated. Nothing here depends on the machine.

mod compare;
mod lives;
mod optimum;
mod picture;
mod run;

use std::num::NonZeroU32;
use std::time::Duration;

use pinwatch::schedule::learn::Aim;

use self::compare::{Compared, compare};
use self::lives::Population;
use self::optimum::mean;
use self::run::{Settings, polls_by_backoff, run};
use super::report::{Asked, Report};

/// The group's name. It measures no daemon.
pub const NAME: &str = "schedule";

/// PINs of each population.
const PINS: usize = 20_000;

/// Under a limited rate: more PINs, since slow ones have to add up, and polls a second that backoff would make unlimited.
const LIMITED_PINS: usize = 40_000;
const DEMAND: f64 = 20.0;

pub fn measure(report: &mut Report, runs: usize) {
    for (words, minutes) in [("1h", 60), ("10m", 10)] {
        let settings =
            |seed| Settings { max_interval: Duration::from_secs(60 * minutes), ..Settings::new(seed) };
        println!("\nPolls a PIN and weighted delay in seconds, max_interval = \"{words}\", first run:\n");
        println!(
            "| PINs | backoff | \"sooner\" | its optimum | \"fewer\" | its optimum |\n|---|---|---|---|---|---|"
        );
        let all = Population::ALL.map(|population| {
            let all: Vec<_> =
                (0..runs).map(|run| compare(population, PINS, &settings(run as u64)).0).collect();
            let [sooner, fewer] = &all[0];
            let cells = [sooner.backoff, sooner.learned, sooner.optimum, fewer.learned, fewer.optimum];
            let cells = cells.map(|cost| format!("{:.2}, {:.2} s", cost.polls, cost.delay));
            println!("| {} | {} |", population.name(), cells.join(" | "));
            (population, all)
        });
        println!();
        for (population, all) in &all {
            figures(report, &format!("{}, {words}", population.name()), *population, all);
        }
    }
    let settings = Settings::new(0);
    let pins = Population::Unending.draw(PINS, settings.seed);
    let (ours, expected) = (run(&pins, &settings).polls, polls_by_backoff(&pins, &settings));
    let differ = ours.iter().zip(&expected).filter(|(ours, expected)| ours != expected).count();
    let differ = differ + ours.len().abs_diff(expected.len());
    report.figure("\"off\": polls that are not backoff's", vec![differ as f64], "", Asked::AtMost(0.0));
    limited();
    picture::draw(&Population::Calls.draw(PINS, 0), &Settings::new(0));
}

/// The figures of one population, beside what was asked for.
fn figures(report: &mut Report, name: &str, population: Population, all: &[[Compared; 2]]) {
    let (least_sooner, least_fewer) = match population {
        Population::Calls => (0.40, 0.45),
        _ => (0.65, 0.75),
    };
    // Asked for of SMS and of calls.
    let is_asked = matches!(population, Population::Sms | Population::Mixed | Population::Calls);
    let if_asked = |limit| if is_asked { Asked::AtMost(limit) } else { Asked::Nothing };
    for (n, aim) in ["sooner", "fewer"].into_iter().enumerate() {
        let of = |figure: fn(&Compared) -> f64| all.iter().map(|run| figure(&run[n])).collect::<Vec<_>>();
        report.figure(
            &format!("{name}, \"{aim}\": cost to the optimum's"),
            of(Compared::to_optimum),
            "",
            Asked::AtMost(1.1),
        );
        let (polls, delay) = if n == 0 { (1.0, least_sooner) } else { (least_fewer, 1.0) };
        report.figure("  polls to backoff's", of(Compared::polls), "", if_asked(polls));
        report.figure("    from the first PIN on", of(|run| run.polls_of_all), "", Asked::Nothing);
        report.figure("    of the first 2,000 PINs", of(|run| run.polls_of_first), "", Asked::Nothing);
        report.figure("  weighted delay to backoff's", of(Compared::delay), "", if_asked(delay));
        report.figure(
            "  cost of the worst 2,000 PINs to backoff's",
            of(|run| run.worst),
            "",
            Asked::AtMost(1.1),
        );
    }
}

/// What becomes of the delay where `api.rate` allows fewer polls than there would be.
fn limited() {
    println!(
        "\nWeighted delay and mean delay in seconds while api.rate allows a part of what backoff would poll:\n"
    );
    println!(
        "| PINs | api.rate to demand | off | \"sooner\" | \"fewer\" | \"sooner\", polls fitted to the rate |"
    );
    println!("|---|---|---|---|---|---|");
    for population in [Population::Sms, Population::Calls] {
        let pins = population.draw(LIMITED_PINS, 0);
        let submits = DEMAND / mean(&run(&pins, &Settings::new(0)).fates).polls;
        for share in [0.7, 0.5, 0.35] {
            let rate = NonZeroU32::new((DEMAND * share).round() as u32);
            let off = Settings { rate, submits, ..Settings::new(0) };
            let sooner = off.adapt(Aim::Sooner);
            let fitted = Settings { budget: Some(share), ..sooner };
            let cells = [off, sooner, off.adapt(Aim::Fewer), fitted].map(|settings| {
                // Those that are submitted while the rate is short, and after learning began.
                let fates = &run(&pins, &settings).fates[LIMITED_PINS / 4..LIMITED_PINS * 9 / 10];
                let delay = fates.iter().map(|fate| fate.delay).sum::<f64>() / fates.len() as f64;
                format!("{:.1}, {delay:.0}", mean(fates).delay)
            });
            println!("| {} | {share} | {} |", population.name(), cells.join(" | "));
        }
    }
    println!();
}
