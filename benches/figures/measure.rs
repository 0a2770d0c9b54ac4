//! Measures a period of time: what was counted in it, and the processor time of a process.

use std::thread;
use std::time::{Duration, Instant};

use super::process::Process;

/// What happened in the period.
pub struct Window {
    pub per_second: f64,
    /// Processor time per counted thing, in microseconds.
    pub cpu_each: f64,
    /// The share of one core, from 0 to 1.
    pub cpu_share: f64,
}

/// Measures for this long; `count` returns the number so far.
pub fn window(length: Duration, process: &Process, count: impl Fn() -> f64) -> Window {
    let (counted, spent, begun) = (count(), process.cpu(), Instant::now());
    thread::sleep(length);
    let (counted, spent, took) = (count() - counted, process.cpu() - spent, begun.elapsed());
    Window {
        per_second: counted / took.as_secs_f64(),
        cpu_each: spent.as_secs_f64() * 1e6 / counted.max(1.0),
        cpu_share: spent.as_secs_f64() / took.as_secs_f64(),
    }
}
