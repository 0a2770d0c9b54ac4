//! A window of time: what was counted in it, and what a process spent on it.

use std::thread;
use std::time::{Duration, Instant};

use super::process::Process;

/// What happened in a window.
pub struct Window {
    pub per_second: f64,
    /// Processor time of one, in microseconds.
    pub cpu_each: f64,
    /// Of one core, from 0 to 1.
    pub cpu_share: f64,
}

/// Lets time pass; `count` tells how many there were so far.
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
