//! Describes for people the ages at which PINs of each channel are polled, beside those of backoff, and the cost of
//! both.
//!
//! Copying a [`Snapshot`] takes microseconds, on the schedule's thread; [`Snapshot::describe`] takes milliseconds, on
//! another thread. Pure. Bounded, whatever the intervals are: at most [`MAX_AGES`] ages of a schedule are listed, and a
//! schedule of more than [`MAX_POLLS`] polls has no cost.

use std::sync::Arc;
use std::time::Duration;

use super::bins::{BINS, Counts, Hazard, bounds};
use super::hazard::{Lives, estimate};
use super::plan::{Limits, Plan, forecast, grid, poll_ages};
use super::safety::Change;
use super::{CHANNELS, Channel, Cost, LEAST_ENDINGS};
use crate::backoff::Backoff;

/// The most ages of polls that are listed.
pub const MAX_AGES: usize = 500;

/// The most polls until the deadline that are counted: more than 48 hours of them, 2 seconds apart.
pub const MAX_POLLS: usize = 100_000;

/// An age at which fewer PINs than this were seen counts as unknown.
const FEW: f64 = 20.0;

/// How far learning has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// No channel has enough endings yet.
    Learning,
    /// Enough PINs have ended: a plan is made when one of the next PINs becomes final.
    Planning,
    /// PINs are polled by the plan.
    InForce,
    /// No plan is better than backoff.
    NoneBetter,
    /// The plan did worse than backoff. Backoff is in force until this many more PINs have ended. The cause is not
    /// known after a restart.
    FellBack { cause: Option<Change>, endings_until_retry: u32 },
}

/// The state of the schedule at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub backoff: Backoff,
    pub limits: Limits,
    /// Unless nothing is learned.
    pub learned: Option<Box<Knowledge>>,
}

/// What was learned, and the plan made from it.
#[derive(Debug, Clone)]
pub struct Knowledge {
    pub standing: Standing,
    pub plan: Option<Arc<Plan>>,
    pub prior: Hazard,
    pub counts: [Counts; CHANNELS],
}

/// How PINs of a channel are polled.
#[derive(Debug, Clone)]
pub struct ChannelOverview {
    pub channel: Channel,
    pub endings: u32,
    /// Whether the channel has a schedule of its own. If not, and there is a plan, only the first poll is by the plan.
    pub is_learned: bool,
    pub backoff: Course,
    /// The plan's schedule, whether or not it is in force.
    pub learned: Option<Course>,
    /// The age up to which enough PINs were seen; above it the plan is a guess.
    pub known_until: Option<Duration>,
    /// Ages up to `known_until`, and the share of PINs that is final by then.
    pub finals: Vec<(Duration, f64)>,
}

/// When PINs are polled.
#[derive(Debug, Clone)]
pub struct Course {
    /// Without jitter; the first [`MAX_AGES`].
    pub ages: Vec<Duration>,
    /// Polls of a PIN that never becomes final; `None` if they are more than [`MAX_POLLS`].
    pub until_deadline: Option<usize>,
    /// The average cost of a PIN, predicted from what was learned.
    pub cost: Option<Cost>,
}

impl Snapshot {
    /// Describes each channel.
    pub fn describe(&self) -> [ChannelOverview; CHANNELS] {
        let grid = grid(&self.limits);
        Channel::ALL.map(|channel| self.overview(channel, &grid))
    }

    fn overview(&self, channel: Channel, grid: &[f64]) -> ChannelOverview {
        let knowledge = self.learned.as_deref();
        let counts = knowledge.map(|knowledge| &knowledge.counts[channel as usize]);
        let plan = knowledge.and_then(|knowledge| knowledge.plan.as_deref());
        let own = plan.and_then(|plan| plan.channels[channel as usize].as_ref());
        // Too few endings give no usable estimate of the cost.
        let known = knowledge.zip(counts).filter(|(_, counts)| counts.endings >= LEAST_ENDINGS);
        let lives = known.map(|(knowledge, counts)| Lives::of(&estimate(counts, &knowledge.prior), grid));
        let known_until = known.and_then(|(_, counts)| self.known_until(counts));
        let course = |interval_at: &dyn Fn(Duration) -> Duration| self.course(lives.as_ref(), interval_at);
        ChannelOverview {
            channel,
            endings: counts.map_or(0, |counts| counts.endings),
            is_learned: own.is_some(),
            backoff: course(&|age| self.backoff.interval_at(age)),
            learned: plan.map(|plan| {
                course(&|age| match own {
                    _ if age.is_zero() => plan.first,
                    Some(own) => own.interval_at(age),
                    None => self.backoff.interval_at(age),
                })
            }),
            known_until,
            finals: lives.zip(known_until).map_or_else(Vec::new, |(lives, until)| finals(&lives, until)),
        }
    }

    fn course(&self, lives: Option<&Lives>, interval_at: &dyn Fn(Duration) -> Duration) -> Course {
        let ages: Vec<_> = poll_ages(self.limits.deadline, interval_at).take(MAX_POLLS + 1).collect();
        let is_whole = ages.len() <= MAX_POLLS;
        Course {
            until_deadline: is_whole.then_some(ages.len()),
            cost: lives.filter(|_| is_whole).map(|lives| forecast(lives, ages.iter().copied())),
            ages: ages.into_iter().take(MAX_AGES).collect(),
        }
    }

    fn known_until(&self, counts: &Counts) -> Option<Duration> {
        let is_seen = |bin: &usize| {
            let (begins, ends) = bounds(*bin);
            counts.exposure[*bin] >= FEW * (ends - begins)
        };
        let seen = (0..BINS).take_while(is_seen).count();
        let last = seen.checked_sub(1)?;
        Some(Duration::from_secs_f64(bounds(last).1).min(self.limits.deadline))
    }
}

fn finals(lives: &Lives, until: Duration) -> Vec<(Duration, f64)> {
    let ends = (0..BINS).map(|bin| Duration::from_secs_f64(bounds(bin).1));
    let share = |age: Duration| (age, 1.0 - lives.at(age.as_secs_f64()).survival);
    ends.take_while(|end| *end < until).chain([until]).map(share).collect()
}

#[cfg(test)]
#[path = "overview_tests.rs"]
mod tests;
