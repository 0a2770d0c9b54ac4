//! A schedule that learns at which ages PINs become final, and polls where that pays most.
//!
//! Begins as backoff, and returns to it if it does worse. Stays a function of a PIN's age and channel, so nothing is
//! written per poll. No I/O, no clock, no randomness, no threads: who calls owns those. [`bins`] counts what is seen,
//! [`hazard`] estimates from that, [`plan`] makes the best schedule of it, [`safety`] compares it with backoff.

pub mod bins;
pub mod hazard;
pub mod plan;
pub mod safety;

use std::sync::Arc;
use std::time::Duration;

use self::bins::{Counts, Hazard};
use self::plan::{Limits, Plan, Problem};
use self::safety::{Change, Nominal, Safety};
use crate::backoff::Backoff;

/// A channel with fewer endings is polled by backoff.
const LEAST_ENDINGS: u32 = 200;

/// A new plan after so many endings.
const PLAN_EVERY: u32 = 100;

/// After a relapse, what was counted before weighs this much.
const KEPT: f64 = 0.02;

/// A plan may need this part of what backoff needs: forecasts know no jitter, and the hazard is an estimate.
const BUDGET: f64 = 0.97;

/// The budget follows what was really needed, at this pace, within these bounds, and not by fewer endings.
const PACE: f64 = 0.2;
const BUDGETS: (f64, f64) = (0.7, 1.0);
const LEAST_COMPARED: usize = 200;

/// The first byte of a saved state tells its layout.
const LAYOUT: u8 = 1;

/// How many channels there are.
pub const CHANNELS: usize = 3;

/// How a PIN travels, by the last status seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    Sms,
    Call,
    /// The API told nothing that tells them apart.
    Unknown,
}

impl Channel {
    pub const ALL: [Self; CHANNELS] = [Self::Sms, Self::Call, Self::Unknown];
}

/// What a poll told of a PIN that was not final when last asked about.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// The channel that the answer before told; this one, if it is the first.
    pub channel: Channel,
    /// The PIN's age at the answer before, or zero.
    pub since: Duration,
    /// Its age at this one.
    pub age: Duration,
    /// How long after it was due the poll went out: a brake or a rate limit is no schedule's fault.
    pub late: Duration,
    pub is_final: bool,
}

/// What a learned schedule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// As many polls as backoff at most, with the least delay.
    Sooner,
    /// As much delay as backoff at most, with the fewest polls.
    Fewer,
}

/// Polls, and weighted delay in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    pub polls: f64,
    pub delay: f64,
}

impl Cost {
    /// Adds so many times another one.
    pub fn add(&mut self, times: f64, other: Self) {
        self.polls += times * other.polls;
        self.delay += times * other.delay;
    }

    /// At a price in seconds a poll.
    pub fn at(self, price: f64) -> f64 {
        price * self.polls + self.delay
    }
}

/// What was learned, and the plan in force.
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
    /// See [`Problem::budget`].
    budget: f64,
    /// Endings since the last plan was asked for.
    fresh: u32,
}

impl Learner {
    /// Knows nothing yet.
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
            budget: BUDGET,
            fresh: 0,
        }
    }

    /// Takes in an answer: the hook of every poll that told how things are.
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

    /// What the next plan is to be made of, if it is time for one.
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

    /// Puts a plan in force; backoff, if nothing better was found.
    pub fn adopt(&mut self, plan: Option<Plan>) {
        self.plan = plan.map(Arc::new);
    }

    /// The plan in force, if there is one and it is trusted.
    pub fn plan(&self) -> Option<&Arc<Plan>> {
        self.plan.as_ref().filter(|_| self.safety.is_trusting())
    }

    /// The interval, without jitter, after a poll at this age that told this channel; after the submission, if none did.
    /// `None`: backoff's.
    pub fn interval_at(&self, channel: Option<Channel>, age: Duration) -> Option<Duration> {
        let plan = self.plan()?;
        match channel {
            None => age.is_zero().then_some(plan.first),
            Some(channel) => Some(plan.channels[channel as usize].as_ref()?.interval_at(age)),
        }
    }

    /// How learned schedules do beside backoff.
    pub fn safety(&self) -> &Safety {
        &self.safety
    }

    /// What is counted of a channel.
    pub fn counts(&self, channel: Channel) -> &Counts {
        &self.counts[channel as usize]
    }

    /// What the next start should know: under three kilobytes.
    pub fn save(&self) -> Vec<u8> {
        let (probation, relapses) = self.safety.standing();
        let mut state = vec![LAYOUT];
        state.extend(probation.to_le_bytes());
        state.extend(relapses.to_le_bytes());
        self.counts.iter().for_each(|counts| counts.save(&mut state));
        state
    }

    /// Goes on with what was known before; false, and nothing is changed, if [`Learner::save`] can't have written it.
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
