//! The daemon's core under simulation: the one place that knows the API of `schedule::Core`.
//!
//! What the real daemon does around the core (`schedule::Task`) is done here by hand: it starts polls while
//! there is room, keeps their tickets and hands on the verdicts.

use std::time::Duration;

use fastrand::Rng;
use pinwatch::backoff::Backoff;
use pinwatch::clock::Clock;
use pinwatch::config::Adapt;
use pinwatch::outcome::Verdict;
use pinwatch::pin::PinId;
use pinwatch::poll::Meaning;
use pinwatch::schedule::learn::plan::Limits;
use pinwatch::schedule::learn::{Aim, Answer, Channel, Learner};
use pinwatch::schedule::{Cancelled, Core, Reason, Stage, Ticket};
use pinwatch::store::{InFlight, SavedSchedule};

use super::clocks::{Clocks, Time};
use super::pin_history::number;
use super::plan::Plan;

/// The longest that a probe is away, whatever the brake, unless a 429 says otherwise.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(60);

/// In the second after a brake went off, no more polls than this go out.
pub const RAMP: usize = 20;

/// However many 429s there were, so many polls a second may go out, and each second so many more.
pub const LEAST_RATE: f64 = 1.0;
pub const LEAST_GROWTH: f64 = 0.25;

/// So long after the last 429, brake or start, the rate is `api.rate` again: even 300 a second are reached in a minute
/// and a half from one poll a second.
pub const RECOVERED: Duration = Duration::from_secs(120);

/// How often the task asks for PINs that something has kept from their last poll for too long.
pub const EXPIRE_EVERY: Duration = Duration::from_secs(60);

/// Where the core has a PIN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Standing {
    Absent,
    Waiting { due: Time },
    Polling,
    Finishing,
}

/// One process.
pub struct Daemon {
    core: Core,
    clocks: Clocks,
}

impl Daemon {
    pub fn start(
        plan: &Plan,
        clocks: &Clocks,
        process: u64,
        rows: &[InFlight],
        brake: &SavedSchedule,
    ) -> Self {
        let clock = Clock::new(clocks.clone());
        clock.go_on(&[Clocks::anchor()]);
        let mut core = Core::new(plan.schedule.clone(), plan.rate, clock, plan.seed ^ (process << 32));
        let learned = brake.learned.clone().or_else(|| experience(plan));
        core.restore(&SavedSchedule { learned, ..brake.clone() });
        rows.iter().for_each(|row| core.resume(row));
        Self { core, clocks: clocks.clone() }
    }

    pub fn accept(&mut self, row: &InFlight) {
        self.core.accept(row);
    }

    pub fn finished(&mut self, pin: &PinId) {
        self.core.finished(pin);
    }

    /// The poll to send now, and of which PIN; else when to ask again.
    pub fn next_poll(&mut self) -> Result<(Ticket, usize), Option<Time>> {
        match self.core.next_poll() {
            Ok(ticket) => {
                let pin = number(ticket.pin.as_str());
                Ok((ticket, pin))
            }
            Err(again) => Err(again.map(|moment| self.clocks.time_of(self.core.clock().instant(moment)))),
        }
    }

    pub fn answered(&mut self, ticket: Ticket, meaning: Meaning) -> Option<Verdict> {
        let verdict = self.core.answered(ticket, meaning);
        if let Some(problem) = self.core.problem() {
            self.core.adopt(problem.solve());
        }
        verdict
    }

    /// The verdict of a cancel, if there is one now.
    pub fn cancel(&mut self, pin: &PinId) -> Option<Verdict> {
        match self.core.cancel(pin) {
            Cancelled::Now(verdict) => Some(verdict),
            Cancelled::Finishing | Cancelled::Unknown => None,
        }
    }

    pub fn standing(&self, pin: &PinId) -> Standing {
        match self.core.entry(pin).map(|entry| entry.stage) {
            None => Standing::Absent,
            Some(Stage::Waiting { due, .. }) => {
                Standing::Waiting { due: self.clocks.time_of(self.core.clock().instant(due)) }
            }
            Some(Stage::Polling) => Standing::Polling,
            Some(Stage::Finishing) => Standing::Finishing,
        }
    }

    pub fn brake(&self) -> Option<Reason> {
        self.core.brake().map(|(reason, _)| reason)
    }

    /// Polls a second that may go out now; `None` is no limit.
    pub fn rate(&self) -> Option<f64> {
        self.core.rate()
    }

    /// What the store is to know of the brake.
    pub fn unsaved(&mut self) -> Option<SavedSchedule> {
        self.core.take_unsaved()
    }

    /// PINs that something has kept from their last poll for too long.
    pub fn expired(&mut self) -> Vec<Verdict> {
        self.core.expired()
    }

    /// The configuration is read anew, and is as it was; or the credentials are others.
    pub fn reload(&mut self, plan: &Plan, renewed: bool) {
        if renewed {
            self.core.renew();
        }
        self.core.reconfigure(plan.schedule.clone(), plan.rate);
    }

    /// PINs that are to be polled some day.
    pub fn waiting(&self) -> usize {
        self.core.in_flight() - self.core.finishing()
    }
}

/// What an earlier daemon may have learned, of these PINs or of quite others: most simulations are too short to learn
/// anything from nothing.
fn experience(plan: &Plan) -> Option<Vec<u8>> {
    if plan.schedule.adapt == Adapt::Off {
        return None;
    }
    let settings = &plan.schedule;
    let (shortest, longest) = (settings.initial_interval, settings.max_interval);
    let limits = Limits { shortest, longest, deadline: settings.deadline };
    // What is saved is the evidence alone.
    let mut learner = Learner::new(Aim::Sooner, &Backoff::new(shortest, 2.0, longest, 0.0), limits);
    let mut rng = Rng::with_seed(plan.seed);
    let usual = (rng.f64() * 8.0).exp();
    for channel in Channel::ALL {
        for _ in 0..rng.u32(..1_000) {
            let known_open = Duration::from_secs_f64(usual * (0.2 + rng.f64() * 3.0));
            let answer = Answer {
                channel,
                since: Duration::ZERO,
                age: known_open,
                late: Duration::ZERO,
                is_final: false,
            };
            learner.answered(&answer);
            let age = known_open.mul_f64(1.0 + rng.f64());
            learner.answered(&Answer { since: known_open, age, is_final: true, ..answer });
        }
    }
    Some(learner.save())
}
