//! A schedule that learns at which ages PINs become final, and polls when that is most useful.
//!
//! Guarantees that it begins as backoff, and returns to backoff if it does worse. The interval depends only on a PIN's age and
//! channel, so nothing is written per poll. Pure: must not do I/O, read clocks, draw random numbers or start threads, which are
//! the caller's. [`bins`] counts observations, [`hazard`] estimates from them, [`plan`] computes the best schedule, [`safety`]
//! compares it with backoff, and [`overview`] describes it for people.

pub mod bins;
pub mod hazard;
pub mod overview;
pub mod plan;
pub mod safety;

use std::sync::Arc;
use std::time::Duration;

use self::bins::{Counts, Hazard};
use self::overview::{Knowledge, Snapshot, Standing};
use self::plan::{Limits, Plan, Problem};
use self::safety::{Change, Nominal, Safety};
use crate::backoff::Backoff;

/// A channel with fewer endings is polled by backoff.
pub const LEAST_ENDINGS: u32 = 200;

/// A new plan is made after this many endings.
const PLAN_EVERY: u32 = 100;

/// The factor applied to all earlier counts after a relapse.
const KEPT: f64 = 0.02;

/// The share of backoff's cost that a plan may need. Below 1, because forecasts ignore jitter and the hazard is an
/// estimate.
const BUDGET: f64 = 0.97;

/// The budget follows the polls or the delay that were really needed: with this exponent, within these bounds, and only after
/// this many endings.
const PACE: f64 = 0.2;
const BUDGETS: (f64, f64) = (0.7, 1.0);
const LEAST_COMPARED: usize = 200;

/// The first byte of a saved state, which identifies its layout.
const LAYOUT: u8 = 1;

/// The number of channels.
pub const CHANNELS: usize = 3;

/// How a PIN is delivered, according to the last status seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    Sms,
    Call,
    /// The API's answer does not show the channel.
    Unknown,
}

impl Channel {
    pub const ALL: [Self; CHANNELS] = [Self::Sms, Self::Call, Self::Unknown];
}

/// One answer that reported deliveries, as the learner needs it.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// The channel in the previous answer, or in this one if it is the first.
    pub channel: Channel,
    /// The PIN's age at the previous answer, or zero.
    pub since: Duration,
    /// The PIN's age at this answer.
    pub age: Duration,
    /// How late the poll was sent; a schedule is not responsible for the delay of a brake or a rate limit.
    pub late: Duration,
    pub is_final: bool,
}

/// What a learned schedule optimises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// The least delay with at most as many polls as backoff.
    Sooner,
    /// The fewest polls with at most as much delay as backoff.
    Fewer,
}

/// A number of polls, and the weighted delay in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    pub polls: f64,
    pub delay: f64,
}

impl Cost {
    /// Adds another cost, multiplied by `times`.
    pub fn add(&mut self, times: f64, other: Self) {
        self.polls += times * other.polls;
        self.delay += times * other.delay;
    }

    /// Returns the total in seconds, at a price in seconds per poll.
    pub fn at(self, price: f64) -> f64 {
        price * self.polls + self.delay
    }
}

/// The learned state and the plan in force.
#[derive(Debug, Clone)]
pub struct Learner {
    aim: Aim,
    limits: Limits,
    backoff: Backoff,
    nominal: Nominal,
    prior: Hazard,
    counts: [Counts; CHANNELS],
    hazards: [Hazard; CHANNELS],
    safety: Safety,
    plan: Option<Arc<Plan>>,
    /// Whether a plan was computed since the start, even if none was better than backoff.
    has_planned: bool,
    /// See [`Problem::budget`].
    budget: f64,
    /// Endings since a plan was last requested.
    fresh: u32,
}

impl Learner {
    /// Makes a learner without any observations.
    pub fn new(aim: Aim, backoff: &Backoff, limits: Limits) -> Self {
        let prior = hazard::prior(backoff, limits.deadline);
        Self {
            aim,
            limits,
            backoff: backoff.clone(),
            nominal: Nominal::new(backoff, limits.deadline),
            counts: Default::default(),
            hazards: std::array::from_fn(|_| prior.clone()),
            prior,
            safety: Safety::default(),
            plan: None,
            has_planned: false,
            budget: BUDGET,
            fresh: 0,
        }
    }

    /// Processes an answer that reported deliveries; returns whether trust in the learned schedule changed.
    pub fn answered(&mut self, answer: &Answer) -> Option<Change> {
        let Answer { channel, since, age, is_final, .. } = *answer;
        if age <= since {
            return None;
        }
        let (counts, hazard) = (&mut self.counts[channel as usize], &self.hazards[channel as usize]);
        if is_final {
            counts.add_ending(since.as_secs_f64(), age.as_secs_f64(), hazard);
            self.fresh += 1;
        } else {
            counts.add_exposure(since.as_secs_f64(), age.as_secs_f64());
        }
        let price = self.plan.as_ref().map(|plan| plan.price);
        let change = self.safety.record(&self.nominal.compare(answer, hazard), is_final, price);
        if matches!(change, Some(Change::Worse | Change::Early)) {
            self.budget = BUDGET;
            self.counts.iter_mut().for_each(|counts| counts.forget(KEPT));
        }
        change
    }

    /// Returns the input for the next plan, if one is due.
    pub fn problem(&mut self) -> Option<Problem> {
        if self.fresh < PLAN_EVERY {
            return None;
        }
        self.fresh = 0;
        for (hazard, counts) in self.hazards.iter_mut().zip(&self.counts) {
            *hazard = hazard::estimate(counts, &self.prior);
        }
        self.correct();
        let recent = |counts: &Counts| counts.events.iter().sum::<f64>();
        let all: f64 = self.counts.iter().map(recent).sum();
        let known = std::array::from_fn(|n| {
            let counts = &self.counts[n];
            (counts.endings >= LEAST_ENDINGS).then(|| (recent(counts) / all, self.hazards[n].clone()))
        });
        let problem = Problem {
            aim: self.aim,
            limits: self.limits,
            backoff: self.backoff.clone(),
            budget: self.budget,
            channels: known,
        };
        problem.channels.iter().any(Option::is_some).then_some(problem)
    }

    /// Corrects the budget by what the last plans really needed.
    fn correct(&mut self) {
        let (count, recent) = self.safety.recent();
        let needed = match self.aim {
            Aim::Sooner => recent.real.polls / recent.backoff.polls,
            Aim::Fewer => recent.real.delay / recent.backoff.delay,
        };
        if count >= LEAST_COMPARED && needed.is_finite() && needed > 0.0 {
            self.budget = (self.budget * (BUDGET / needed).powf(PACE)).clamp(BUDGETS.0, BUDGETS.1);
        }
    }

    /// Puts a plan in force, or backoff if no better plan was found.
    pub fn adopt(&mut self, plan: Option<Plan>) {
        self.plan = plan.map(Arc::new);
        self.has_planned = true;
    }

    /// Returns the plan in force, if there is one and it is trusted.
    pub fn plan(&self) -> Option<&Arc<Plan>> {
        self.plan.as_ref().filter(|_| self.safety.is_trusting())
    }

    /// Returns the interval, without jitter, after a poll at this age that showed this channel, or after the
    /// submission if there is no channel yet. `None` means backoff's interval.
    pub fn interval_at(&self, channel: Option<Channel>, age: Duration) -> Option<Duration> {
        let plan = self.plan()?;
        match channel {
            None => age.is_zero().then_some(plan.first),
            Some(channel) => Some(plan.channels[channel as usize].as_ref()?.interval_at(age)),
        }
    }

    /// How far learning has come.
    fn standing(&self) -> Standing {
        let is_known = self.counts.iter().any(|counts| counts.endings >= LEAST_ENDINGS);
        match (self.safety.standing(), &self.plan) {
            ((endings_until_retry @ 1.., _), _) => {
                Standing::FellBack { cause: self.safety.cause(), endings_until_retry }
            }
            (_, Some(_)) => Standing::InForce,
            (_, None) if !is_known => Standing::Learning,
            (_, None) if !self.has_planned => Standing::Planning,
            (_, None) => Standing::NoneBetter,
        }
    }

    /// Copies what is described to people: some kilobytes.
    pub fn snapshot(&self) -> Snapshot {
        let knowledge = Knowledge {
            standing: self.standing(),
            plan: self.plan.clone(),
            prior: self.prior.clone(),
            counts: self.counts.clone(),
        };
        Snapshot { backoff: self.backoff.clone(), limits: self.limits, learned: Some(Box::new(knowledge)) }
    }

    /// Returns the comparison of learned schedules with backoff.
    pub fn safety(&self) -> &Safety {
        &self.safety
    }

    /// Returns the counts of a channel.
    pub fn counts(&self, channel: Channel) -> &Counts {
        &self.counts[channel as usize]
    }

    /// Returns the state to save for the next start, of less than three kilobytes.
    pub fn save(&self) -> Vec<u8> {
        let (probation, relapses) = self.safety.standing();
        let mut state = vec![LAYOUT];
        state.extend(probation.to_le_bytes());
        state.extend(relapses.to_le_bytes());
        self.counts.iter().for_each(|counts| counts.save(&mut state));
        state
    }

    /// Restores a saved state; returns false and changes nothing if [`Learner::save`] can't have written it.
    pub fn restore(&mut self, state: &[u8]) -> bool {
        let Some((&LAYOUT, rest)) = state.split_first() else { return false };
        let Some((probation, rest)) = rest.split_first_chunk() else { return false };
        let Some((relapses, rest)) = rest.split_first_chunk() else { return false };
        let loaded: Option<Vec<Counts>> = rest.chunks(Counts::SAVED).map(Counts::load).collect();
        let Some(Ok(loaded)) = loaded.map(TryInto::try_into) else { return false };
        self.counts = loaded;
        self.safety.resume((u32::from_le_bytes(*probation), u32::from_le_bytes(*relapses)));
        self.fresh = PLAN_EVERY;
        true
    }
}

#[cfg(test)]
#[path = "learner_tests.rs"]
mod tests;
