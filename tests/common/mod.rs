//! What the tests that drive the real binary share: a daemon in a folder of its own, a stand-in for the API,
//! and a client.
//!
//! Nothing here waits longer than [`PATIENCE`], and no test looks at how long anything took.
#![allow(dead_code, unused_imports, reason = "each test binary uses its part of this")]

mod api;
mod client;
mod daemon;
mod database;
#[path = "../not_run/mod.rs"]
pub mod not_run;
pub mod postgres;
pub mod wrong_clock;

use std::time::{Duration, Instant};

pub use api::{Mock, Simulated, delivered, delivery};
pub use client::{Client, brake, code, pins};
pub use daemon::{Child, Daemon, Ended, Place, isolate, program, run_to_end};
pub use database::{change, change_as_if_killed, column, count, flip_a_byte};

/// Long enough on the slowest machine; what takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Looks again and again until there is something to see.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < give_up, "not seen within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// As [`until`], for something that becomes true.
#[track_caller]
pub fn until_true(what: &str, mut look: impl FnMut() -> bool) {
    until(what, || look().then_some(()));
}
