//! The contract's rules for intervals, computed from the settings: bounds for every poll, and
//! how many polls many PINs need. Shares no code with the daemon's own arithmetic.

use std::time::Duration;

use pinwatch::config::{Adapt, Schedule};

/// Allows for rounding errors.
const TOLERANCE: f64 = 1e-6;

pub struct Intervals {
    initial: f64,
    multiplier: f64,
    max: f64,
    jitter: f64,
    /// Intervals may be learned: then they are anything between the first and the longest.
    adapts: bool,
}

impl Intervals {
    pub fn new(settings: &Schedule) -> Self {
        Self {
            initial: settings.initial_interval.as_secs_f64(),
            multiplier: settings.multiplier,
            max: settings.max_interval.as_secs_f64(),
            jitter: settings.randomization_factor,
            adapts: settings.adapt != Adapt::Off,
        }
    }

    /// No poll comes sooner than this after an answer at this age.
    pub fn shortest(&self, age: Duration) -> Duration {
        seconds(self.least(age.as_secs_f64()) * (1.0 - self.jitter) * (1.0 - TOLERANCE))
    }

    /// Every poll is due within this of an answer at this age.
    pub fn longest(&self, age: Duration) -> Duration {
        seconds(self.most(age.as_secs_f64()) * (1.0 + self.jitter) * (1.0 + TOLERANCE))
    }

    /// No first poll comes sooner than this after the submission.
    pub fn first(&self) -> Duration {
        seconds(self.initial * (1.0 - self.jitter) * (1.0 - TOLERANCE))
    }

    /// Of PINs that were in flight before the start, the chance that one of this age is polled within `time`.
    pub fn chance(&self, age: Duration, time: Duration) -> f64 {
        (time.as_secs_f64() / self.least(age.as_secs_f64())).min(1.0)
    }

    /// The most polls of a PIN while it grows older, from the one age to the other.
    pub fn polls(&self, from: Duration, to: Duration) -> f64 {
        2.0 + (self.count(to.as_secs_f64()) - self.count(from.as_secs_f64())) / (1.0 - self.jitter)
    }

    /// Interval number k is `initial + start * (multiplier - 1)`, where `start` is the age at which it begins.
    fn least(&self, age: f64) -> f64 {
        if self.adapts {
            return self.initial;
        }
        ((self.initial + age * (self.multiplier - 1.0)) / self.multiplier).clamp(self.initial, self.max)
    }

    fn most(&self, age: f64) -> f64 {
        if self.adapts {
            return self.max;
        }
        ((self.initial + age * (self.multiplier - 1.0)) * self.multiplier).min(self.max)
    }

    /// The integral of `1 / least`.
    fn count(&self, age: f64) -> f64 {
        let Self { initial, multiplier, max, .. } = *self;
        let growth = multiplier - 1.0;
        if growth <= 0.0 || self.adapts {
            return age / initial;
        }
        let grown = ((max * multiplier - initial) / growth).max(initial);
        let flat = age.min(initial) / initial;
        let logarithm = |age: f64| (initial + age * growth).ln() * multiplier / growth;
        let growing = logarithm(age.clamp(initial, grown)) - logarithm(initial);
        flat + growing + (age - grown).max(0.0) / max
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_micros((seconds * 1e6) as u64)
}
