//! The crash test: the real binary under load, killed with -9 at random points, over and over; then everything
//! that was promised is counted.
//!
//!     cargo test --test integration crash:: -- --nocapture
//!     PINWATCH_CRASH_ROUNDS=2000 PINWATCH_CRASH_SEED=7 cargo test --test integration crash:: -- --nocapture
//!
//! The first is the short form: 200 kills. A seed gives the same PINs, lives and accidents again, though not the
//! same interleaving.

mod compare;
mod http2;
pub mod load;
pub mod receiver;
mod round;

use std::time::Instant;

use crate::support::Simulated;
use round::Epoch;

/// Whether outcomes go to a webhook too.
const WEBHOOK: bool = true;

/// Kills after which everything is compared in a new place: a store that keeps every outcome for the comparison
/// would make each start of a long run slower than the one before.
const KILLS_AN_EPOCH: u64 = 100;

#[test]
fn every_acked_pin_has_exactly_one_outcome_at_every_sink_after_any_kills() {
    let kills = number("PINWATCH_CRASH_ROUNDS").unwrap_or(200);
    let seed = number("PINWATCH_CRASH_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("crash test: {kills} kills, PINWATCH_CRASH_SEED={seed}");
    let api = Simulated::start();
    let begun = Instant::now();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut left = kills;
    let mut total = round::Counts::default();
    for number in 0.. {
        let now = left.min(KILLS_AN_EPOCH);
        let mut epoch = Epoch::new(&api, number, random.fork());
        while epoch.counts.kills < now {
            epoch.round();
        }
        total.add(&epoch.finish());
        left -= now;
        println!("  {left} kills left, {:?}", begun.elapsed());
        if left == 0 {
            break;
        }
    }
    println!("{total:#?}\nin {:?}, with PINWATCH_CRASH_SEED={seed}", begun.elapsed());
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, and is {text:?}")))
}
