//! The rate: never more polls in a second than `api.rate` and a small burst.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, FakeRelativeClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::clock::Moment;

/// A token bucket that refills evenly. Time is told to it, so that a test or a simulation can.
pub struct Rate {
    limiter: Option<
        RateLimiter<
            NotKeyed,
            InMemoryState,
            FakeRelativeClock,
            NoOpMiddleware<<FakeRelativeClock as governor::clock::Clock>::Instant>,
        >,
    >,
    per_second: Option<NonZeroU32>,
    clock: FakeRelativeClock,
    told: Moment,
}

impl Rate {
    /// `per_second` polls a second, and a burst of a tenth of that; `None` is no limit.
    pub fn new(per_second: Option<NonZeroU32>, now: Moment) -> Self {
        let clock = FakeRelativeClock::default();
        let limiter = per_second.map(|rate| {
            let burst = NonZeroU32::new(rate.get() / 10).unwrap_or(NonZeroU32::MIN);
            RateLimiter::direct_with_clock(Quota::per_second(rate).allow_burst(burst), clock.clone())
        });
        Self { limiter, per_second, clock, told: now }
    }

    /// Polls a second that are allowed now; `None` is no limit.
    pub fn in_force(&self) -> Option<f64> {
        self.per_second.map(|rate| f64::from(rate.get()))
    }

    /// Takes the right to one poll, or tells when there is one.
    pub fn take(&mut self, now: Moment) -> Result<(), Moment> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        self.clock.advance(now.since(self.told));
        self.told = self.told.max(now);
        // A moment is a microsecond, and the wait may end within one.
        limiter.check().map_err(|not_until| {
            now.after(not_until.wait_time_from(self.clock.now()) + Duration::from_micros(1))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_has_more_polls_than_the_rate_and_a_tenth() {
        let rate = NonZeroU32::new(50).unwrap();
        let mut limiter = Rate::new(Some(rate), Moment::START);
        let mut taken = Vec::new();
        for ms in 0..5_000 {
            let now = Moment::START.after(Duration::from_millis(ms));
            while limiter.take(now).is_ok() {
                taken.push(ms);
            }
        }
        for start in 0..4_000 {
            let count = taken.iter().filter(|&&ms| (start..start + 1000).contains(&ms)).count();
            assert!((49..=56).contains(&count), "{count} polls in the second from {start} ms");
        }
    }

    #[test]
    fn the_wait_that_it_tells_is_enough() {
        let mut limiter = Rate::new(NonZeroU32::new(3), Moment::START);
        assert_eq!(limiter.take(Moment::START), Ok(()));
        let next = limiter.take(Moment::START).unwrap_err();
        assert!(next > Moment::START && next <= Moment::START.after(Duration::from_millis(334)));
        assert_eq!(limiter.take(next), Ok(()));
    }
}
