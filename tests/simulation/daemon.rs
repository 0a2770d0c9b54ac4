//! The daemon's core under simulation: the one place that knows the API of `schedule::Core`.
//!
//! What the real daemon does around the core (`schedule::Task`) is done here by hand: it starts polls while
//! there is room, keeps their tickets and hands on the verdicts.

use std::time::Duration;

use pinwatch::clock::Clock;
use pinwatch::outcome::Verdict;
use pinwatch::pin::PinId;
use pinwatch::poll::Meaning;
use pinwatch::schedule::{Cancelled, Core, Stage, Ticket};
use pinwatch::store::InFlight;

use super::clocks::{Clocks, Time};
use super::plan::Plan;
use super::story::number;

/// What the core of this version promises beyond its first. Turn on what it learns; the checks are written.
pub struct Promises {
    /// A 429's time binds the next process too.
    pub brakes_survive_restarts: bool,
    /// A missing answer ends no PIN before this long after its deadline.
    pub deadline_grace: Option<Duration>,
    /// The longest that a probe is away, whatever the brake.
    pub probe_interval: Duration,
}

pub const PROMISES: Promises = Promises {
    brakes_survive_restarts: false,
    deadline_grace: None,
    probe_interval: Duration::from_secs(60),
};

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
    pub fn start(plan: &Plan, clocks: &Clocks, process: u64, rows: &[InFlight]) -> Self {
        let clock = Clock::new(clocks.clone());
        let mut core = Core::new(plan.schedule.clone(), plan.rate, clock, plan.seed ^ (process << 32));
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
        self.core.answered(ticket, meaning)
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

    pub fn is_braked(&self) -> bool {
        self.core.brake().is_some()
    }

    /// PINs that are to be polled some day.
    pub fn waiting(&self) -> usize {
        self.core.in_flight() - self.core.finishing()
    }
}
