//! Decides whether learned schedules do better than backoff would for the same PINs.
//!
//! Guarantees that a schedule that does worse, by more than chance explains, does not stay in force. The answers
//! show within which interval a PIN became final, and thus how often backoff would have polled it until then, and how
//! late backoff would have noticed. The excess over backoff's price * polls + weighted delay is kept for the last
//! endings.
//!
//! One change is invisible to this comparison: if PINs become final before a schedule's first poll, every answer only
//! says that they are final by now, and the old hazard still explains when. Then there are more endings than that
//! hazard predicts, poll by poll (observed minus expected, as in the log-rank test); backoff takes over in this case
//! too, because it polls early. Pure. Must not know how schedules are computed.

use std::collections::VecDeque;
use std::time::Duration;

use super::bins::Hazard;
use super::hazard::value;
use super::plan::poll_ages;
use super::{Answer, Cost};
use crate::backoff::Backoff;

/// The most endings by which learned schedules are judged.
const JUDGED: usize = 500;

/// Learned schedules are judged after each further group of this many endings; their cost, only from five groups on.
const STEP: u32 = 20;

/// Learned schedules do worse if the mean excess is above zero by more than this many standard errors, and if it also
/// exceeds [`NEGLIGIBLE`].
const WORSE: f64 = 2.5;

/// The share of backoff's cost that a mean excess must also exceed.
const NEGLIGIBLE: f64 = 0.02;

/// PINs end early if there are this many standard errors more endings than expected. Not fewer, because the hazard is
/// an estimate.
const EARLY: f64 = 5.0;

/// The endings in which a large change shows; a smaller change shows only in all that are judged.
const SOON_JUDGED: usize = 100;

/// The endings under backoff after a relapse before the next try; doubled by each further relapse, up to the second
/// number.
const PROBATION: u32 = 500;
const LONGEST_PROBATION: u32 = 8_000;

/// The endings without a relapse after which earlier relapses no longer count.
const FORGIVEN: u32 = 10_000;

/// The most polls by backoff that are known one by one: 48 hours of them at 2 seconds.
const MAX_NOMINAL: usize = 86_400;

/// The cost of PINs, and their cost under backoff.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Comparison {
    pub real: Cost,
    pub backoff: Cost,
    /// The number of endings that the hazard predicted.
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
    /// Computes the ages up to a deadline, at most `MAX_NOMINAL` of them.
    pub fn new(backoff: &Backoff, deadline: Duration) -> Self {
        let ages = poll_ages(deadline, |age| backoff.interval_at(age));
        Self(ages.take(MAX_NOMINAL).map(|age| age.as_secs_f64()).collect())
    }

    fn before(&self, age: f64) -> usize {
        self.0.partition_point(|&poll| poll < age)
    }

    /// Compares a poll with backoff's polls since the previous answer. Assumes that backoff's poll would have been
    /// equally late.
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

/// A change of the trust in learned schedules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// They do worse than backoff, which is in force from now on.
    Worse,
    /// PINs become final so much earlier than before that backoff is in force from now on.
    Early,
    /// Enough PINs ended under backoff: learned schedules are tried again.
    Retries,
}

/// The last endings, and whether learned schedules are trusted.
#[derive(Debug, Clone, Default)]
pub struct Safety {
    /// Each ending includes the answers since the previous ending.
    endings: VecDeque<Comparison>,
    /// The answers since the last ending.
    open: Comparison,
    /// Endings under learned schedules since the last relapse.
    since_relapse: u32,
    /// Endings that must still follow until learned schedules are tried again.
    probation: u32,
    /// Relapses that still count.
    relapses: u32,
    /// Why learned schedules are not trusted; not known after a restart.
    cause: Option<Change>,
}

impl Safety {
    /// Returns whether learned schedules may be in force.
    pub fn is_trusting(&self) -> bool {
        self.probation == 0
    }

    /// Returns how many endings must follow until learned schedules are tried again, and how many times in a row they
    /// failed.
    pub fn standing(&self) -> (u32, u32) {
        (self.probation, self.relapses)
    }

    /// Why learned schedules are not trusted, if they are not, and if that was found since the start.
    pub fn cause(&self) -> Option<Change> {
        self.cause
    }

    /// Restores what [`Safety::standing`] returned before a restart.
    pub fn resume(&mut self, (probation, relapses): (u32, u32)) {
        (self.probation, self.relapses) = (probation.min(LONGEST_PROBATION), relapses);
    }

    /// Returns the number and the sum of the last endings under learned schedules.
    pub fn recent(&self) -> (usize, Comparison) {
        let mut sum = Comparison::default();
        self.endings.iter().for_each(|ending| sum.add(ending));
        (self.endings.len(), sum)
    }

    /// Processes one answer under a learned schedule of this price, or under backoff if there is no price.
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

    /// Returns whether the newest `last` endings are far more than the hazard predicted.
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
