//! The daemon's core against an API, a store, sinks and clocks that fail: days of simulated time from one seed each.
//!
//! `cargo test --test integration simulation::` runs a thousand seeds. `PINWATCH_SIM_SEEDS=100000` runs so many;
//! `PINWATCH_SIM_FROM=5000` begins at that one. A seed that breaks a promise prints the command that replays
//! just it. What is real: the schedule, its brakes and its rate, and what makes a meaning of an answer's
//! bytes. What is a model: the API, the network, the store, the sinks, all clocks.

mod api;
mod clocks;
mod conditions;
mod contract;
mod daemon;
mod fairness;
mod intervals;
mod oracle;
mod pauses;
mod pin_history;
mod plan;
mod run;
mod store;
mod totals;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use totals::Totals;

/// Seeds that break a promise are told up to so many.
const MOST_FAILURES: usize = 10;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, and not {text:?}")))
}

/// A simulation, or what went wrong in it and before it.
fn simulate(seed: u64, with_log: bool) -> Result<Totals, (String, Vec<String>)> {
    catch_unwind(AssertUnwindSafe(|| run::simulate(seed, with_log))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err((format!("a panic: {text}"), Vec::new()))
    })
}

/// The command that runs one seed, and tells what happened last.
fn replay(seed: u64) -> String {
    format!("PINWATCH_SIM_SEED={seed} cargo test --test integration one_seed -- --nocapture")
}

#[test]
fn all_invariants_hold_in_simulated_days_with_faults() {
    let from = number("PINWATCH_SIM_FROM").unwrap_or(0);
    let end = from + number("PINWATCH_SIM_SEEDS").unwrap_or(1000);
    let (next, totals, failures) = (AtomicU64::new(from), Mutex::default(), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut sum = Totals::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || failures.lock().unwrap().len() >= MOST_FAILURES {
                        break;
                    }
                    match simulate(seed, false) {
                        Ok(totals) => sum.add(&totals),
                        Err((broken, _)) => {
                            println!("seed {seed}: {broken}");
                            println!("  {}", replay(seed));
                            failures.lock().unwrap().push(seed);
                        }
                    }
                }
                Totals::add(&mut totals.lock().unwrap(), &sum);
            });
        }
    });
    println!("{}", totals.into_inner().unwrap());
    let failures = failures.into_inner().unwrap();
    let commands: Vec<_> = failures.iter().map(|seed| replay(*seed)).collect();
    assert!(failures.is_empty(), "{} seeds broke a promise:\n{}", failures.len(), commands.join("\n"));
}

/// Replays `PINWATCH_SIM_SEED`, and tells what happened last.
#[test]
fn all_invariants_hold_for_one_chosen_seed() {
    let seed = number("PINWATCH_SIM_SEED").unwrap_or(1);
    println!("{:#?}", plan::Plan::of(seed).schedule);
    match simulate(seed, true) {
        Ok(totals) => println!("{totals}"),
        Err((broken, log)) => {
            log.iter().for_each(|line| println!("{line}"));
            panic!("seed {seed}: {broken}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_simulation() {
    for seed in 0..5 {
        let (first, second) = (simulate(seed, false), simulate(seed, true));
        assert_eq!(first.map_err(|(broken, _)| broken), second.map_err(|(broken, _)| broken));
    }
}
