//! Whether learned schedules do better than backoff would, for the same PINs.
//!
//! Promises that a schedule which does worse, by more than chance explains, does not stay in force. An answer tells when a
//! PIN became final to within an interval; so it is known how often backoff would have polled it until then, and how late
//! it would have noticed. The excess over that, price * polls + weighted delay, is kept for the last endings.
//!
//! One change hides from this: if PINs become final before a schedule first looks, every answer only says "by now", and
//! the old hazard still explains when. Then there are more endings than that hazard expects, poll by poll (observed minus
//! expected, as in the log-rank test), and backoff takes over too, because it looks early.

use std::collections::VecDeque;
use std::time::Duration;

use super::bins::Hazard;
use super::hazard::value;
use super::plan::poll_ages;
use super::{Answer, Cost};
use crate::backoff::Backoff;

/// The last endings, by which learned schedules are judged.
const JUDGED: usize = 500;

/// They are judged whenever so many are new; their cost, not before there are five times as many.
const STEP: u32 = 20;

/// Worse means: the mean excess is above zero by so many of its standard errors,
const WORSE: f64 = 2.5;

/// and by this part of what backoff costs.
const NEGLIGIBLE: f64 = 0.02;

/// Early means: more endings than expected by so many standard errors. Not by fewer, for the hazard is an estimate.
const EARLY: f64 = 5.0;

/// A great change shows in this many endings, a smaller one only in all that are judged.
const SOON_JUDGED: usize = 100;

/// After a relapse, so many endings are seen under backoff before the next try; after each further one, twice as many.
const PROBATION: u32 = 500;
const LONGEST_PROBATION: u32 = 8_000;

/// After so many endings without a relapse, earlier ones are forgiven.
const FORGIVEN: u32 = 10_000;

/// Polls by backoff that are known one by one: 48 hours of them, 2 seconds apart.
const MAX_NOMINAL: usize = 86_400;

/// What PINs cost, and what they would have cost under backoff.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Comparison {
    pub real: Cost,
    pub backoff: Cost,
    /// How many of them the hazard expected to be final.
    pub expected: f64,
}

impl Comparison {
    fn add(&mut self, other: &Self) {
        self.real.add(1.0, other.real);
        self.backoff.add(1.0, other.backoff);
        self.expected += other.expected;
    }
}

/// The ages at which backoff polls, in seconds.
#[derive(Debug, Clone)]
pub struct Nominal(Box<[f64]>);

impl Nominal {
    /// Those up to a deadline; not more than make a difference.
    pub fn new(backoff: &Backoff, deadline: Duration) -> Self {
        let ages = poll_ages(deadline, |age| backoff.interval_at(age));
        Self(ages.take(MAX_NOMINAL).map(|age| age.as_secs_f64()).collect())
    }

    fn before(&self, age: f64) -> usize {
        self.0.partition_point(|&poll| poll < age)
    }

    /// Compares a poll with those by backoff since the one before. Backoff's would have been as late.
    pub fn compare(&self, answer: &Answer, hazard: &Hazard) -> Comparison {
        let Answer { is_final, .. } = *answer;
        let [from, to, late] = [answer.since, answer.age, answer.late].map(|time| time.as_secs_f64());
        let already = self.before(from);
        let expected = hazard.likelihood(from, to);
        let mut real = Cost { polls: 1.0, delay: 0.0 };
        let mut backoff = Cost::default();
        if !is_final {
            backoff.polls = (self.before(to) - already) as f64;
            return Comparison { real, backoff, expected };
        }
        for (_, begins, length, likelihood) in hazard.split(from, to) {
            let age = begins + length / 2.0;
            let poll = self.before(age);
            let noticed = self.0.get(poll).copied().unwrap_or(age);
            real.delay += likelihood * value(age) * (to - age);
            let polls = (poll + 1).saturating_sub(already) as f64;
            backoff.add(likelihood, Cost { polls, delay: value(age) * (noticed + late - age) });
        }
        Comparison { real, backoff, expected }
    }
}

/// What became of the trust in learned schedules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// They do worse than backoff, which is in force from now on.
    Worse,
    /// PINs become final so much earlier than they used to that backoff is in force from now on.
    Early,
    /// Fresh evidence has come in: they are tried again.
    Retries,
}

/// The last endings, and whether learned schedules are trusted.
#[derive(Debug, Clone, Default)]
pub struct Safety {
    /// Each with the answers since the one before.
    endings: VecDeque<Comparison>,
    /// Since the last ending.
    open: Comparison,
    /// Endings under learned schedules since the last relapse.
    since_relapse: u32,
    /// Endings to come until learned schedules are tried again.
    probation: u32,
    /// Relapses that are not forgiven yet.
    relapses: u32,
    /// Why learned schedules are not trusted; not known after a restart.
    cause: Option<Change>,
}

impl Safety {
    /// Whether learned schedules may be in force.
    pub fn is_trusting(&self) -> bool {
        self.probation == 0
    }

    /// Endings to come until learned schedules are tried again, and how often they failed in a row.
    pub fn standing(&self) -> (u32, u32) {
        (self.probation, self.relapses)
    }

    /// Why learned schedules are not trusted, if they are not, and if that was found since the start.
    pub fn cause(&self) -> Option<Change> {
        self.cause
    }

    /// Goes on with what [`Safety::standing`] was before a restart.
    pub fn resume(&mut self, (probation, relapses): (u32, u32)) {
        (self.probation, self.relapses) = (probation.min(LONGEST_PROBATION), relapses);
    }

    /// The last endings under learned schedules: how many, and their sum.
    pub fn recent(&self) -> (usize, Comparison) {
        let mut sum = Comparison::default();
        self.endings.iter().for_each(|ending| sum.add(ending));
        (self.endings.len(), sum)
    }

    /// Takes in one answer under a learned schedule of this price, or under backoff if there is none.
    pub fn record(&mut self, compared: &Comparison, is_final: bool, price: Option<f64>) -> Option<Change> {
        if !self.is_trusting() {
            self.probation -= u32::from(is_final);
            let retries = self.is_trusting().then_some(Change::Retries);
            self.cause = self.cause.filter(|_| retries.is_none());
            return retries;
        }
        let price = price?;
        self.open.add(compared);
        if !is_final {
            return None;
        }
        if self.endings.len() == JUDGED {
            self.endings.pop_front();
        }
        self.endings.push_back(std::mem::take(&mut self.open));
        self.since_relapse = self.since_relapse.saturating_add(1);
        if self.since_relapse >= FORGIVEN {
            self.relapses = 0;
        }
        if !self.since_relapse.is_multiple_of(STEP) {
            return None;
        }
        let change = self.judge(price)?;
        self.probation = (PROBATION << self.relapses.min(8)).min(LONGEST_PROBATION);
        self.relapses = self.relapses.saturating_add(1);
        self.since_relapse = 0;
        self.endings.clear();
        self.cause = Some(change);
        Some(change)
    }

    /// Whether the last so many endings are far more than expected.
    fn is_early(&self, last: usize) -> bool {
        let count = self.endings.len().min(last) as f64;
        let expected: f64 = self.endings.iter().rev().take(last).map(|ending| ending.expected).sum();
        count - expected > EARLY * count.sqrt()
    }

    fn judge(&self, price: f64) -> Option<Change> {
        let count = self.endings.len() as f64;
        if self.is_early(SOON_JUDGED) || self.is_early(JUDGED) {
            return Some(Change::Early);
        }
        let excess = |ending: &Comparison| ending.real.at(price) - ending.backoff.at(price);
        let mean = |of: &dyn Fn(&Comparison) -> f64| self.endings.iter().map(of).sum::<f64>() / count;
        let worse = mean(&excess);
        let standard_error = (mean(&|ending| (excess(ending) - worse).powi(2)) / count).sqrt();
        let are_enough = count >= 5.0 * f64::from(STEP);
        let noise = f64::max(WORSE * standard_error, NEGLIGIBLE * mean(&|ending| ending.backoff.at(price)));
        (are_enough && worse > noise).then_some(Change::Worse)
    }
}

#[cfg(test)]
#[path = "safety_tests.rs"]
mod tests;
