//! Limits the time of a stop: each step has a limit, and so have all steps together.
//!
//! Promises that a stop ends before systemd kills the process, with the default `shutdown_grace` and pinwatch's own unit.
//! Whatever is cut off is in the store, or is repeated after the next start.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::warn;

/// The limit of one step.
const STEP: Duration = Duration::from_secs(10);

/// The limit of all steps together, after `shutdown_grace`.
const ALL_STEPS: Duration = Duration::from_secs(40);

/// `TimeoutStopSec=` of `systemd/pinwatch.service`: systemd kills the process after that.
const UNIT: Duration = Duration::from_secs(60);

/// Time for the process to exit after the daemon has ended, with some reserve.
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

    /// Waits for a part to end, and logs its name if it is late.
    pub async fn step(self, name: &str, end: impl Future<Output = ()>) {
        self.longer_step(Duration::ZERO, name, end).await;
    }

    /// The same, with `more` time than other steps.
    pub async fn longer_step(self, more: Duration, name: &str, end: impl Future<Output = ()>) {
        let limit = (more + STEP).min(self.end - Instant::now());
        if timeout(limit, end).await.is_err() {
            warn!(part = name, seconds = limit.as_secs(), "did not end in time and is cut off");
        }
    }
}

/// The `TimeoutStopSec=` that this `shutdown_grace` needs, if the unit's own value is too small.
pub fn needed_unit_timeout(grace: Duration) -> Option<Duration> {
    let longest = grace + ALL_STEPS + MARGIN;
    (longest > UNIT).then_some(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_even_if_every_step_hangs() {
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
    fn the_unit_allows_for_the_default_grace_and_a_longer_one_is_reported() {
        let unit = std::fs::read_to_string("systemd/pinwatch.service").unwrap();
        assert!(unit.lines().any(|line| line == format!("TimeoutStopSec={}s", UNIT.as_secs())));
        let config = std::fs::read_to_string("config/pinwatch.toml").unwrap();
        assert!(config.contains("\n#shutdown_grace = \"10s\"\n"), "another default");
        assert_eq!(needed_unit_timeout(Duration::from_secs(10)), None);
        assert_eq!(needed_unit_timeout(Duration::from_secs(30)), Some(Duration::from_secs(75)));
    }
}
