//! Intervals that follow what was learned, and what each answer teaches.
//!
//! Promises that every interval is backoff's while `schedule.adapt` is "off" or nothing was learned yet. How it is learned
//! is in [`learn`](super::super::learn).

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

/// How learning goes.
#[derive(Debug, Clone)]
pub struct Learned {
    /// PINs from whose end something was learned.
    pub endings: u64,
    /// Whether PINs are polled by what was learned, and not by backoff.
    pub is_in_force: bool,
    /// After the learned schedule did worse than backoff: so many are to end until it is tried again.
    pub endings_until_retry: u32,
    /// How often in a row it did worse.
    pub relapses: u32,
    /// So many PINs ended last under the learned schedule, at this cost.
    pub compared: usize,
    pub recent: Comparison,
}

impl Core {
    /// What a new plan is to be made of, if it is time for one. To solve it takes milliseconds.
    pub fn problem(&mut self) -> Option<Problem> {
        self.learner.as_mut()?.problem()
    }

    /// Puts a plan in force; backoff, if there is no better one. The plan must be of the settings in force.
    pub fn adopt(&mut self, plan: Option<Plan>) {
        if let Some(learner) = &mut self.learner {
            learner.adopt(plan);
            self.unsaved = true;
        }
    }

    /// What was learned is to be saved, for the daemon stops.
    pub fn keep_learned(&mut self) {
        self.unsaved |= self.learner.is_some();
    }

    /// Who learns, if anybody does.
    pub fn learner(&self) -> Option<&Learner> {
        self.learner.as_ref()
    }

    /// What decides when PINs are polled, for people.
    pub fn overview(&self) -> Overview {
        let without =
            || Snapshot { backoff: self.backoff.clone(), limits: limits_of(&self.settings), learned: None };
        Overview {
            adapt: self.settings.adapt,
            snapshot: self.learner.as_ref().map_or_else(without, Learner::snapshot),
            learned: self.learned(),
        }
    }

    /// How learning goes, for people.
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

    /// The interval, without jitter, after a poll at this age of a PIN that has these deliveries.
    pub(super) fn interval_at(&self, seen: Option<&Deliveries>, age: Duration) -> Duration {
        let channel = seen.map(|deliveries| channel_of(deliveries));
        let learned = self.learner.as_ref().and_then(|learner| learner.interval_at(channel, age));
        learned.unwrap_or_else(|| self.backoff.interval_at(age))
    }

    /// Goes on learning under other settings: what was learned of PINs does not depend on them.
    pub(super) fn reconfigure_learner(&mut self) {
        let old = std::mem::replace(&mut self.learner, learner_of(&self.settings, &self.backoff));
        if let (Some(learner), Some(old)) = (&mut self.learner, old) {
            learner.restore(&old.save());
        }
    }
}

/// Who learns under these settings, if anybody does.
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

/// Takes in an answer, and tells people when the learned schedule gives way to backoff or is tried again. Gives
/// whether it did.
pub(super) fn teach(learner: &mut Learner, answer: &Answer) -> bool {
    let Some(change) = learner.answered(answer) else { return false };
    let (endings, _) = learner.safety().standing();
    match change {
        Change::Worse => warn!(
            endings,
            "the learned schedule costs more than backoff: PINs are polled by backoff until so many have ended"
        ),
        Change::Early => info!(
            endings,
            "PINs become final earlier than was learned: they are polled by backoff until so many have ended"
        ),
        Change::Retries => info!("enough was learned anew: the learned schedule is tried again"),
    }
    true
}

/// How a PIN travels, by its newest delivery that is not final; its newest, if all are.
pub(super) fn channel_of(deliveries: &[Delivery]) -> Channel {
    let newest = deliveries.iter().rfind(|delivery| !delivery.final_status).or(deliveries.last());
    match newest.map(|delivery| &delivery.status) {
        Some(Status::Sms(_)) => Channel::Sms,
        Some(Status::Call(CallStatus::Undefined)) | Some(Status::Unknown(_)) | None => Channel::Unknown,
        Some(Status::Call(_)) => Channel::Call,
    }
}
