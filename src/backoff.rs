//! The intervals between attempts: polls, probes and deliveries.
//!
//! Promises intervals that grow exponentially up to a maximum. Pure: reads no clock, and the caller passes in the
//! random generator for the jitter. The only module that knows the `backoff` crate, which nobody maintains any more;
//! the crate computes the growth of the intervals, this module does the rest.

use std::time::Duration;

use ::backoff::ExponentialBackoffBuilder;
use ::backoff::backoff::Backoff as _;

/// The most intervals that are computed before the last one repeats. A multiplier of 1.01 from 1 ms to a year takes
/// 2,420.
const MAX_RUNGS: usize = 4096;

/// Intervals that grow exponentially up to a maximum, each with the age at which it begins.
#[derive(Debug, Clone)]
pub struct Backoff {
    /// Never empty; both fields ascend.
    rungs: Box<[Rung]>,
    randomization_factor: f64,
}

#[derive(Debug, Clone, Copy)]
struct Rung {
    starts_at: Duration,
    interval: Duration,
}

impl Backoff {
    /// Intervals that begin with `initial`, each `multiplier` times the previous one, up to `max`. The jitter is at
    /// most `randomization_factor` (0 to 1) of an interval, in either direction.
    pub fn new(initial: Duration, multiplier: f64, max: Duration, randomization_factor: f64) -> Self {
        let mut growth = ExponentialBackoffBuilder::new()
            .with_initial_interval(initial.min(max))
            .with_multiplier(multiplier.max(1.0))
            .with_max_interval(max)
            .with_randomization_factor(0.0)
            .with_max_elapsed_time(None)
            .build();
        let mut rungs = vec![Rung { starts_at: Duration::ZERO, interval: initial.min(max) }];
        growth.next_backoff();
        while let (Some(last), true) = (rungs.last().copied(), rungs.len() < MAX_RUNGS) {
            let interval = growth.next_backoff().unwrap_or(max).min(max);
            if interval <= last.interval {
                break;
            }
            rungs.push(Rung { starts_at: last.starts_at.saturating_add(last.interval), interval });
        }
        Self { rungs: rungs.into(), randomization_factor: randomization_factor.clamp(0.0, 1.0) }
    }

    /// The interval, without jitter, after a poll at this age.
    ///
    /// Only the age decides, so the schedule continues after a restart without having stored any poll. Jitter makes a
    /// poll a little early or late; the interval whose begin is nearest to the age is the right one.
    pub fn interval_at(&self, age: Duration) -> Duration {
        let next = self.rungs.partition_point(|rung| rung.starts_at <= age);
        let current = self.rungs[next.saturating_sub(1)];
        match self.rungs.get(next) {
            Some(next) if next.starts_at - age < age.saturating_sub(current.starts_at) => next.interval,
            _ => current.interval,
        }
    }

    /// The interval, without jitter, before attempt number `attempt`; the first attempt is 0.
    pub fn nth(&self, attempt: u32) -> Duration {
        let last = self.rungs.len() - 1;
        self.rungs[usize::try_from(attempt).map_or(last, |attempt| attempt.min(last))].interval
    }

    /// The interval with jitter, evenly distributed within ± the randomization factor.
    pub fn jittered(&self, interval: Duration, random: &mut fastrand::Rng) -> Duration {
        interval.mul_f64(1.0 + self.randomization_factor * (2.0 * random.f64() - 1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn defaults() -> Backoff {
        Backoff::new(SECOND, 1.5, 600 * SECOND, 0.2)
    }

    #[test]
    fn intervals_grow_by_the_multiplier_up_to_the_maximum() {
        let backoff = defaults();
        let intervals: Vec<f64> = (0..5).map(|n| backoff.nth(n).as_secs_f64()).collect();
        assert_eq!(intervals, [1.0, 1.5, 2.25, 3.375, 5.0625]);
        assert_eq!(backoff.nth(100), 600 * SECOND);
        assert_eq!(backoff.nth(u32::MAX), 600 * SECOND);
    }

    #[test]
    fn the_age_decides_the_next_interval_even_when_jitter_moved_the_poll() {
        let backoff = defaults();
        for (age, interval) in [(0.0, 1.0), (0.8, 1.5), (1.2, 1.5), (2.3, 2.25), (2.7, 2.25), (1e6, 600.0)] {
            let age = Duration::from_secs_f64(age);
            assert_eq!(backoff.interval_at(age).as_secs_f64(), interval, "at age {age:?}");
        }
    }

    #[test]
    fn a_multiplier_of_one_gives_a_constant_interval() {
        let backoff = Backoff::new(SECOND, 1.0, 600 * SECOND, 0.0);
        assert_eq!(backoff.nth(1000), SECOND);
        assert_eq!(backoff.interval_at(1000 * SECOND), SECOND);
    }

    proptest! {
        #[test]
        fn an_interval_stays_within_its_bounds(
            initial in 1u64..100_000, max in 1u64..100_000_000, multiplier in 1.0..10.0f64,
            factor in 0.0..1.0f64, age in 0u64..10_000_000_000, seed: u64,
        ) {
            let max = Duration::from_millis(max);
            let backoff = Backoff::new(Duration::from_millis(initial), multiplier, max, factor);
            let interval = backoff.interval_at(Duration::from_millis(age));
            prop_assert!(interval <= max && interval >= backoff.nth(0));
            prop_assert!(backoff.interval_at(Duration::from_millis(age * 2)) >= interval);
            let jittered = backoff.jittered(interval, &mut fastrand::Rng::with_seed(seed));
            prop_assert!(jittered <= interval.mul_f64(1.0 + factor) + Duration::from_nanos(1));
            prop_assert!(jittered + Duration::from_nanos(1) >= interval.mul_f64(1.0 - factor));
        }
    }
}
