//! Uses the learned intervals, and passes each answer to the learner.
//!
//! Guarantees that every interval is backoff's while `schedule.adapt` is "off" or nothing is learned yet. Must not
//! know how the learning works ([`learn`](super::super::learn)).

use std::time::Duration;

use tracing::{info, warn};

use super::super::Overview;
use super::super::learn::overview::Snapshot;
use super::super::learn::plan::{Limits, Plan, Problem};
use super::super::learn::safety::{Change, Comparison};
use super::super::learn::{Aim, Answer, Channel, Learner};
use super::Core;
use crate::backoff::Backoff;
use crate::config;
use crate::outcome::{CallStatus, Deliveries, Delivery, Status};

/// The state of the learning.
#[derive(Debug, Clone)]
pub struct Learned {
    /// How many ended PINs the schedule has learned from.
    pub endings: u64,
    /// Whether PINs are polled by the learned schedule instead of by backoff.
    pub is_in_force: bool,
    /// How many PINs must end until the learned schedule, which did worse than backoff, is tried again.
    pub endings_until_retry: u32,
    /// How many times in a row it did worse than backoff.
    pub relapses: u32,
    /// How many PINs ended last under the learned schedule, and their cost.
    pub compared: usize,
    pub recent: Comparison,
}

impl Core {
    /// Returns the input for a new plan, if one is due. Solving it takes milliseconds.
    pub fn problem(&mut self) -> Option<Problem> {
        self.learner.as_mut()?.problem()
    }

    /// Puts a plan in force, or backoff if there is no better plan. The plan must have been made with the present
    /// settings.
    pub fn adopt(&mut self, plan: Option<Plan>) {
        if let Some(learner) = &mut self.learner {
            learner.adopt(plan);
            self.unsaved = true;
        }
    }

    /// Returns the learner; `None` if `schedule.adapt` is "off".
    pub fn learner(&self) -> Option<&Learner> {
        self.learner.as_ref()
    }

    /// Returns what decides when PINs are polled, for people.
    pub fn overview(&self) -> Overview {
        let without =
            || Snapshot { backoff: self.backoff.clone(), limits: limits_of(&self.settings), learned: None };
        Overview {
            adapt: self.settings.adapt,
            snapshot: self.learner.as_ref().map_or_else(without, Learner::snapshot),
            learned: self.learned(),
        }
    }

    /// Returns the state of the learning.
    pub fn learned(&self) -> Option<Learned> {
        let learner = self.learner.as_ref()?;
        let (endings_until_retry, relapses) = learner.safety().standing();
        let (compared, recent) = learner.safety().recent();
        Some(Learned {
            endings: Channel::ALL.iter().map(|channel| u64::from(learner.counts(*channel).endings)).sum(),
            is_in_force: learner.plan().is_some(),
            endings_until_retry,
            relapses,
            compared,
            recent,
        })
    }

    /// Returns the interval, without jitter, after a poll at this age of a PIN with these deliveries.
    pub(super) fn interval_at(&self, seen: Option<&Deliveries>, age: Duration) -> Duration {
        let channel = seen.map(|deliveries| channel_of(deliveries));
        let learned = self.learner.as_ref().and_then(|learner| learner.interval_at(channel, age));
        learned.unwrap_or_else(|| self.backoff.interval_at(age))
    }

    /// Keeps the learned state under new settings, because it does not depend on them.
    pub(super) fn reconfigure_learner(&mut self) {
        let old = std::mem::replace(&mut self.learner, learner_of(&self.settings, &self.backoff));
        if let (Some(learner), Some(old)) = (&mut self.learner, old) {
            learner.restore(&old.save());
        }
    }
}

/// Makes the learner for these settings; `None` if `schedule.adapt` is "off".
pub(super) fn learner_of(settings: &config::Schedule, backoff: &Backoff) -> Option<Learner> {
    let aim = match settings.adapt {
        config::Adapt::Off => return None,
        config::Adapt::Sooner => Aim::Sooner,
        config::Adapt::Fewer => Aim::Fewer,
    };
    Some(Learner::new(aim, backoff, limits_of(settings)))
}

fn limits_of(settings: &config::Schedule) -> Limits {
    let config::Schedule { initial_interval, max_interval, deadline, .. } = *settings;
    Limits { shortest: initial_interval, longest: max_interval, deadline }
}

/// Passes an answer to the learner, and logs when backoff replaces the learned schedule or when the latter is tried
/// again. Returns whether either happened.
pub(super) fn teach(learner: &mut Learner, answer: &Answer) -> bool {
    let Some(change) = learner.answered(answer) else { return false };
    let (endings, _) = learner.safety().standing();
    match change {
        Change::Worse => warn!(
            endings,
            "the learned schedule costs more than backoff: PINs are polled by backoff until this many endings"
        ),
        Change::Early => info!(
            endings,
            "PINs become final earlier than learned: they are polled by backoff until this many endings"
        ),
        Change::Retries => info!("the schedule has learned enough again: the learned schedule is retried"),
    }
    true
}

/// Returns a PIN's channel by its newest delivery that is not final, or by its newest if all are final.
pub(super) fn channel_of(deliveries: &[Delivery]) -> Channel {
    let newest = deliveries.iter().rfind(|delivery| !delivery.final_status).or(deliveries.last());
    match newest.map(|delivery| &delivery.status) {
        Some(Status::Sms(_)) => Channel::Sms,
        Some(Status::Call(CallStatus::Undefined) | Status::Unknown(_) | Status::Other { .. }) | None => {
            Channel::Unknown
        }
        Some(Status::Call(_)) => Channel::Call,
    }
}
