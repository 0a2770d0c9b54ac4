//! How long a stop may take: each step has a limit, and all of them have one together.
//!
//! Promises that a stop which is asked for ends before the service manager loses its patience, with the default
//! `shutdown_grace` and the unit that comes with pinwatch. What is broken off is in the store, or is repeated.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::warn;

/// How long each step may take that ends something, at most.
const STEP: Duration = Duration::from_secs(10);

/// How long all of them may take after `shutdown_grace`.
const ALL_STEPS: Duration = Duration::from_secs(40);

/// `TimeoutStopSec=` of `systemd/pinwatch.service`: who is not gone by then is killed.
const UNIT: Duration = Duration::from_secs(60);

/// How long the process may take to go once the daemon has ended, and some more.
const MARGIN: Duration = Duration::from_secs(5);

/// The limits of one stop.
#[derive(Debug, Clone, Copy)]
pub struct StopLimit {
    end: Instant,
}

impl StopLimit {
    /// A stop that begins now, with this `shutdown_grace`.
    pub fn new(grace: Duration) -> Self {
        Self { end: Instant::now() + grace + ALL_STEPS }
    }

    /// Waits for a part's end, and names it if it is late.
    pub async fn step(self, name: &str, end: impl Future<Output = ()>) {
        self.longer_step(Duration::ZERO, name, end).await;
    }

    /// The same for one that has so much more time.
    pub async fn longer_step(self, more: Duration, name: &str, end: impl Future<Output = ()>) {
        let limit = (more + STEP).min(self.end - Instant::now());
        if timeout(limit, end).await.is_err() {
            warn!(part = name, seconds = limit.as_secs(), "did not end in time and is broken off");
        }
    }
}

/// What `TimeoutStopSec=` is to be for this `shutdown_grace`, if the unit's own value is too little.
pub fn wanted_of_unit(grace: Duration) -> Option<Duration> {
    let longest = grace + ALL_STEPS + MARGIN;
    (longest > UNIT).then_some(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stop_of_which_every_step_hangs_has_an_end() {
        let grace = Duration::from_secs(10);
        let (begun, limit) = (Instant::now(), StopLimit::new(grace));
        limit.longer_step(grace, "the first", std::future::pending()).await;
        assert_eq!(begun.elapsed(), grace + STEP);
        for _ in 0..9 {
            limit.step("another", std::future::pending()).await;
        }
        assert_eq!(begun.elapsed(), grace + ALL_STEPS);
    }

    #[test]
    fn the_unit_waits_for_a_stop_with_the_default_grace_and_a_longer_one_is_named() {
        let unit = std::fs::read_to_string("systemd/pinwatch.service").unwrap();
        assert!(unit.lines().any(|line| line == format!("TimeoutStopSec={}s", UNIT.as_secs())));
        let config = std::fs::read_to_string("config/pinwatch.toml").unwrap();
        assert!(config.contains("\n#shutdown_grace = \"10s\"\n"), "another default");
        assert_eq!(wanted_of_unit(Duration::from_secs(10)), None);
        assert_eq!(wanted_of_unit(Duration::from_secs(30)), Some(Duration::from_secs(75)));
    }
}
