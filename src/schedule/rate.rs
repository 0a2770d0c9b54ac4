//! Limits how many polls may start per second.
//!
//! Guarantees that no second has more polls than `api.rate` plus a tenth. A 429 sets the limit to half of the rate
//! that was really sent. The limit then doubles every second up to half of the refused rate, grows slowly to the
//! refused rate, and faster beyond it. After a brake the limit begins low, so that a backlog does not start all at
//! once. Without `api.rate` there is no limit until a 429 shows one. Pure: the caller passes moments. Must not know
//! PINs or answers.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, FakeRelativeClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::clock::Moment;

/// The time between two growth steps.
const STEP: Duration = Duration::from_secs(1);

/// The number of steps from half of the refused rate back to the refused rate.
const STEPS_BACK: f64 = 32.0;

/// The smallest step of the slow growth, in polls per second: a 429 at two polls per second says little about the
/// limit.
const LEAST_STEP: f64 = 0.25;

/// The growth factor of each step above the refused rate.
const BEYOND: f64 = 1.5;

/// The lowest limit, in polls per second. `Retry-After` protects an API that allows fewer.
const LEAST: f64 = 1.0;

/// The rate that was really sent is that of the busiest of this many recent seconds.
const BUSIEST_OF: usize = 8;

/// The first limit of the ramp after a brake, in polls per second. It doubles with each step.
const RAMP_FROM: f64 = 16.0;

/// The ramp ends above this many polls per second.
const RAMP_TO: f64 = 20_000.0;

type Limiter = RateLimiter<
    NotKeyed,
    InMemoryState,
    FakeRelativeClock,
    NoOpMiddleware<<FakeRelativeClock as governor::clock::Clock>::Instant>,
>;

/// The limit, as a token bucket that refills evenly.
pub struct Rate {
    /// `api.rate`
    configured: Option<f64>,
    /// This node's share of `api.rate`, from 0 to 1.
    share: f64,
    /// The limit learned from 429s.
    learned: Option<Learned>,
    /// The limit of the ramp after a brake.
    ramp: Option<f64>,
    /// The limiter for the lowest of these limits, and that limit.
    limiter: Option<(Limiter, f64)>,
    clock: FakeRelativeClock,
    advanced_to: Moment,
    replaced: Moment,
    grown: Moment,
    /// When the newest of the counted seconds began.
    counted_from: Moment,
    /// Polls in each of the last seconds, the newest first.
    counted: [u32; BUSIEST_OF],
}

/// A limit learned from a 429, in polls per second.
#[derive(Debug, Clone, Copy)]
struct Learned {
    rate: f64,
    refused_at: f64,
}

impl Learned {
    /// Returns the limit after one more step without a 429.
    fn grown(self) -> Self {
        let Self { rate, refused_at } = self;
        let half = refused_at / 2.0;
        let slowly = rate + (half / STEPS_BACK).max(LEAST_STEP);
        let rate = if rate < half {
            (rate * 2.0).min(half)
        } else if rate < refused_at {
            slowly
        } else {
            slowly.max(rate * BEYOND)
        };
        Self { rate, refused_at }
    }
}

impl Rate {
    /// Allows at most `per_second` polls per second; `None` is no limit.
    pub fn new(per_second: Option<NonZeroU32>, now: Moment) -> Self {
        let mut rate = Self {
            configured: None,
            share: 1.0,
            learned: None,
            ramp: None,
            limiter: None,
            clock: FakeRelativeClock::default(),
            advanced_to: now,
            replaced: now,
            grown: now,
            counted_from: now,
            counted: [0; BUSIEST_OF],
        };
        rate.configure(per_second);
        rate
    }

    /// Changes `api.rate`, and keeps the limit learned from 429s.
    pub fn configure(&mut self, per_second: Option<NonZeroU32>) {
        self.configured = per_second.map(|rate| f64::from(rate.get()));
        self.replace();
    }

    /// Changes this node's share of `api.rate`. Ignores a share of zero, because a node without slots has nothing to
    /// poll.
    pub fn share(&mut self, share: f64) {
        if share > 0.0 && share != self.share {
            self.share = share;
            self.replace();
        }
    }

    /// Returns this node's part of `api.rate`, in polls per second.
    fn ours(&self) -> Option<f64> {
        self.configured.map(|rate| rate * self.share)
    }

    /// Returns the present limit, in polls per second; `None` is no limit.
    pub fn in_force(&self) -> Option<f64> {
        self.limiter.as_ref().map(|(_, rate)| *rate)
    }

    /// Returns the limit learned from 429s, to save it for the next start.
    pub fn learned(&self) -> Option<f64> {
        self.learned.map(|learned| learned.rate)
    }

    /// Restores a saved limit. It grows from `now` on, however long the start took.
    pub fn restore(&mut self, rate: f64, now: Moment) {
        self.grown = now;
        if rate.is_finite() && rate > 0.0 {
            let rate = rate.max(LEAST);
            self.learned = Some(Learned { rate, refused_at: 2.0 * rate });
            self.adjust();
        }
    }

    /// Takes a token for one poll.
    ///
    /// # Errors
    /// There is no token; the value is when to ask again.
    pub fn take(&mut self, now: Moment) -> Result<(), Moment> {
        self.clock.advance(now.since(self.advanced_to));
        self.advanced_to = self.advanced_to.max(now);
        self.grow(now);
        if let Some((limiter, _)) = &self.limiter
            && let Err(not_until) = limiter.check()
        {
            // A moment counts microseconds, and the wait may end within one.
            let wait = not_until.wait_time_from(self.clock.now()) + Duration::from_micros(1);
            return Err(now.after(wait.min(STEP)));
        }
        self.count(now);
        Ok(())
    }

    /// Applies a 429: sets the limit to half of the polls in the busiest recent second, or to half of the learned
    /// limit if that was lower.
    pub fn halve(&mut self, now: Moment) {
        self.count_to(now);
        let busiest = f64::from(self.counted.into_iter().max().unwrap_or_default());
        let refused_at = self.learned.map_or(busiest, |learned| busiest.min(learned.rate)).max(LEAST);
        let refused_at = self.ours().map_or(refused_at, |ours| refused_at.min(ours));
        self.learned = Some(Learned { rate: (refused_at / 2.0).max(LEAST), refused_at });
        self.grown = now;
        self.adjust();
    }

    /// Starts a ramp after a brake went off, so that the backlog starts slowly.
    pub fn ramp_up(&mut self, now: Moment) {
        self.ramp = Some(RAMP_FROM);
        self.grown = now;
        self.adjust();
    }

    fn grow(&mut self, now: Moment) {
        // The limiter can lag behind, because `adjust` keeps a slow one until it has admitted a poll.
        if self.learned.is_none() && self.ramp.is_none() && self.in_force() == self.ours() {
            return;
        }
        let steps = now.since(self.grown).as_secs() / STEP.as_secs();
        if steps == 0 {
            return;
        }
        self.grown = self.grown.after(STEP * u32::try_from(steps).unwrap_or(u32::MAX));
        let ceiling = self.ours().unwrap_or(RAMP_TO);
        for _ in 0..steps.min(1000) {
            // Without `api.rate`, a learned limit ends where a ramp would.
            self.learned = self.learned.map(Learned::grown).filter(|learned| learned.rate < ceiling);
        }
        self.ramp = self.ramp.map(|ramp| ramp * 2f64.powf(steps as f64));
        let cap = self.learned.map_or(ceiling, |learned| learned.rate.min(ceiling));
        self.ramp = self.ramp.filter(|ramp| *ramp < cap);
        self.adjust();
    }

    /// Applies the lowest limit. A new limiter begins empty, so that it allows no second burst.
    fn adjust(&mut self) {
        let least = self.least();
        // A new limiter begins empty, so a slow one must admit a poll before a faster one replaces it. Otherwise a
        // limit that grows every second, from one poll in ten seconds, would never admit a poll.
        let faster = |rate: f64| least.is_none_or(|least| least > rate);
        if let Some((_, rate)) = self.limiter
            && faster(rate)
            && self.advanced_to.since(self.replaced) < Duration::from_secs_f64(2.0 / rate)
        {
            return;
        }
        self.replace();
    }

    /// Returns the lowest limit; `None` is no limit.
    fn least(&self) -> Option<f64> {
        [self.ours(), self.learned(), self.ramp].into_iter().flatten().min_by(f64::total_cmp)
    }

    fn replace(&mut self) {
        let least = self.least();
        if least == self.in_force() {
            return;
        }
        self.replaced = self.advanced_to;
        self.limiter = least.and_then(|rate| {
            let quota = Quota::with_period(Duration::from_secs_f64(1.0 / rate))?;
            let burst = NonZeroU32::new((rate / 10.0) as u32).unwrap_or(NonZeroU32::MIN);
            let limiter = RateLimiter::direct_with_clock(quota.allow_burst(burst), self.clock.clone());
            if self.advanced_to > Moment::START {
                let _ = limiter.check_n(burst);
            }
            Some((limiter, rate))
        });
    }

    fn count(&mut self, now: Moment) {
        self.count_to(now);
        self.counted[0] = self.counted[0].saturating_add(1);
    }

    fn count_to(&mut self, now: Moment) {
        let seconds = usize::try_from(now.since(self.counted_from).as_secs()).unwrap_or(usize::MAX);
        if seconds >= BUSIEST_OF {
            self.counted = [0; BUSIEST_OF];
            self.counted_from = now;
        } else if seconds > 0 {
            self.counted.rotate_right(seconds);
            self.counted[..seconds].fill(0);
            self.counted_from = self.counted_from.after(STEP * seconds as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(ms: u64) -> Moment {
        Moment::START.after(Duration::from_millis(ms))
    }

    /// Takes every available token between two moments; returns when each was taken, in milliseconds.
    fn take_all(rate: &mut Rate, from: u64, to: u64) -> Vec<u64> {
        let mut taken = Vec::new();
        for ms in from..to {
            // Bounded, because there may be no limit.
            while taken.len() < 1_000_000 && rate.take(at(ms)).is_ok() {
                taken.push(ms);
            }
        }
        taken
    }

    fn within(taken: &[u64], from: u64, to: u64) -> usize {
        taken.iter().filter(|ms| (from..to).contains(ms)).count()
    }

    #[test]
    fn no_second_has_more_polls_than_the_rate_and_a_tenth() {
        let mut rate = Rate::new(NonZeroU32::new(50), Moment::START);
        let taken = take_all(&mut rate, 0, 5_000);
        for start in 0..4_000 {
            let count = within(&taken, start, start + 1000);
            assert!((49..=56).contains(&count), "{count} polls in the second from {start} ms");
        }
    }

    #[test]
    fn a_poll_that_must_wait_is_admitted_at_the_moment_named() {
        let mut rate = Rate::new(NonZeroU32::new(3), Moment::START);
        assert_eq!(rate.take(Moment::START), Ok(()));
        let next = rate.take(Moment::START).unwrap_err();
        assert!(next > Moment::START && next <= at(334));
        assert_eq!(rate.take(next), Ok(()));
    }

    #[test]
    fn a_429_halves_the_rate_that_was_sent_and_it_climbs_back() {
        let mut rate = Rate::new(NonZeroU32::new(100), Moment::START);
        take_all(&mut rate, 0, 3_000);
        rate.halve(at(3_000));
        let halved = rate.in_force().unwrap();
        assert!((45.0..=55.0).contains(&halved), "{halved}");
        let mut before = halved;
        for second in 4..20 {
            take_all(&mut rate, second * 1000, second * 1000 + 1000);
            let now = rate.in_force().unwrap();
            assert!((1.0..=2.0).contains(&(now - before)), "{before} to {now}");
            before = now;
        }
        take_all(&mut rate, 60_000, 61_000);
        assert_eq!((rate.in_force(), rate.learned()), (Some(100.0), None));
    }

    #[test]
    fn a_reduced_rate_recovers_even_if_few_polls_use_it() {
        for pause in [150, 480, 700, 1_100, 7_300] {
            let mut rate = Rate::new(NonZeroU32::new(3), Moment::START);
            rate.halve(at(1_000));
            (0..200_000 / pause).for_each(|poll| {
                let _ = rate.take(at(1_000 + poll * pause));
            });
            assert_eq!(rate.in_force(), Some(3.0), "with a poll every {pause} ms");
        }
    }

    #[test]
    fn a_429_in_a_quiet_moment_does_not_slow_down_the_burst_after_it() {
        let mut rate = Rate::new(None, Moment::START);
        [0, 400, 800].into_iter().for_each(|ms| rate.take(at(ms)).unwrap());
        rate.halve(at(1_000));
        assert_eq!(rate.in_force(), Some(1.5));
        let burst = take_all(&mut rate, 2_000, 40_000);
        let done = burst.get(499).expect("500 polls within 40 s");
        assert!(*done < 30_000, "500 polls took until {done} ms");
    }

    #[test]
    fn after_429s_in_a_row_the_rate_doubles_up_to_half_of_where_it_was_refused() {
        let learned = Learned { rate: 1.0, refused_at: 64.0 };
        let rates: Vec<f64> = std::iter::successors(Some(learned), |learned| Some(learned.grown()))
            .map(|learned| learned.rate)
            .take(8)
            .collect();
        assert_eq!(rates, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 33.0, 34.0]);
    }

    #[test]
    fn a_restored_limit_does_not_grow_during_a_long_start() {
        let mut rate = Rate::new(NonZeroU32::new(100), Moment::START);
        rate.restore(50.0, at(600_000));
        rate.take(at(600_000)).unwrap();
        assert_eq!(rate.in_force(), Some(50.0));
        take_all(&mut rate, 600_001, 605_000);
        assert!(rate.in_force().is_some_and(|rate| rate > 50.0));
    }

    #[test]
    fn a_429_of_a_probe_halves_the_current_rate_and_not_the_rate_before_the_brake() {
        let mut rate = Rate::new(NonZeroU32::new(100), Moment::START);
        take_all(&mut rate, 0, 3_000);
        rate.halve(at(3_000));
        rate.take(at(3_500)).unwrap();
        rate.halve(at(3_600));
        assert_eq!(rate.in_force(), Some(25.0));
    }

    #[test]
    fn without_api_rate_a_429_sets_a_limit() {
        let mut rate = Rate::new(None, Moment::START);
        assert_eq!(rate.in_force(), None);
        for ms in 0..2_000 {
            rate.take(at(ms)).unwrap();
        }
        rate.halve(at(2_000));
        let found = rate.in_force().unwrap();
        assert!((450.0..=510.0).contains(&found), "{found} from a thousand a second");
        let count = within(&take_all(&mut rate, 2_000, 3_000), 2_000, 3_000) as f64;
        assert!(count <= found * 1.15, "{count} at {found}");
    }

    #[test]
    fn some_polls_are_sent_even_after_many_halvings_of_the_rate() {
        let mut rate = Rate::new(None, Moment::START);
        (0..100).for_each(|_| rate.halve(Moment::START));
        assert!(rate.in_force().unwrap() >= LEAST);
        let polls = take_all(&mut rate, 1, 60_000).len();
        assert!(polls >= 60, "{polls} polls in a minute");
    }

    #[test]
    fn after_a_brake_the_backlog_goes_out_slowly_at_first() {
        let mut rate = Rate::new(None, Moment::START);
        rate.ramp_up(at(1000));
        let taken = take_all(&mut rate, 1_000, 5_000);
        let counts: Vec<usize> = (1..5).map(|s| within(&taken, s * 1000, s * 1000 + 1000)).collect();
        for (count, limit) in counts.iter().zip([16, 32, 64, 128]) {
            assert!((limit * 8 / 10..=limit * 12 / 10 + 1).contains(count), "{counts:?}");
        }
        take_all(&mut rate, 20_000, 20_001);
        assert_eq!(rate.in_force(), None);
    }

    #[test]
    fn a_change_of_the_rate_allows_no_second_burst() {
        let mut rate = Rate::new(NonZeroU32::new(1000), Moment::START);
        take_all(&mut rate, 0, 1_000);
        rate.configure(NonZeroU32::new(999));
        let count = take_all(&mut rate, 1_000, 1_001).len();
        assert!(count <= 3, "{count}");
        rate.clock.advance(SECOND);
    }
}
