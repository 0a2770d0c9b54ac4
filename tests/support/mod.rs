//! What all tests of the real binary share: a daemon in a folder of its own, stand-ins for the API, a client of the
//! socket, a PostgreSQL, small disks and wrong clocks.
//!
//! Nothing here waits longer than [`TIMEOUT`], no daemon outlives its test, and no test looks at how long anything took.
#![allow(dead_code, unused_imports, reason = "each test binary uses its part of this")]

mod api;
mod authority;
mod check;
mod client;
mod daemon;
mod database;
pub mod disk;
pub mod not_run;
mod place;
pub mod postgres;
pub mod wrong_clock;

use std::time::{Duration, Instant};

pub use api::{Mock, Simulated, delivered, delivery};
pub use authority::Authority;
pub use check::{all_delivered, assert_each_once, sim_pins, submit, try_submit};
pub use client::{Client, brake, code, pins};
pub use daemon::{Child, Daemon, Ended, isolate, program, run_to_end, wrapped};
pub use database::{change, change_as_if_killed, column, count, flip_a_byte};
pub use place::Place;

/// Long enough on the slowest machine; a longer wait means a hang.
pub const TIMEOUT: Duration = Duration::from_secs(120);

/// Calls `look` until it returns something.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + TIMEOUT;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < give_up, "not seen within {TIMEOUT:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// As [`until`], for a condition.
#[track_caller]
pub fn until_true(what: &str, mut look: impl FnMut() -> bool) {
    until(what, || look().then_some(()));
}

/// Reads JSON; panics with the text if it is invalid.
#[track_caller]
pub fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}
