//! What an answer says of all polling, and what the next start should know of that.
//!
//! Promises that a brake costs no PIN anything: nothing here knows of a PIN. The brake's own rules are in
//! [`brake`](super::super::brake).

use std::time::Duration;

use tracing::{info, warn};

use super::super::brake::{Change, Reason, Sign};
use super::{Core, Ticket};
use crate::clock::Moment;
use crate::poll::{self, Meaning};
use crate::store::SavedBrake;

impl Core {
    /// Why all polling stands still, and until when.
    pub fn brake(&self) -> Option<(Reason, Option<Moment>)> {
        self.brake.reason().map(|reason| (reason, self.brake.until()))
    }

    /// What the next start should know of the brake and the rate, if that has changed since this was asked.
    pub fn take_unsaved(&mut self) -> Option<SavedBrake> {
        std::mem::take(&mut self.unsaved).then(|| SavedBrake {
            reason: self.brake.reason().map(|reason| reason.as_str().to_owned()),
            until: self.brake.until().map(|until| self.clock.wall_of(until)),
            rate: self.rate.learned(),
        })
    }

    /// Puts brake and rate as they were before the start. A brake's time that is further away than any can be
    /// is the work of a clock that went back.
    pub fn restore(&mut self, saved: &SavedBrake) {
        let now = self.clock.now();
        if let Some(reason) = Reason::ALL.into_iter().find(|r| Some(r.as_str()) == saved.reason.as_deref()) {
            let ahead = saved.until.map(|until| until.duration_since(self.clock.wall()));
            let ahead = ahead.and_then(|ahead| Duration::try_from(ahead).ok()).unwrap_or_default();
            info!(reason = reason.as_str(), "all polling waited before the start: it goes on by a probe");
            self.brake.restore(reason, now.after(ahead.min(poll::LONGEST)));
        }
        if let Some(rate) = saved.rate {
            self.rate.restore(rate, now);
        }
    }

    pub(super) fn apply_brake(&mut self, ticket: &Ticket, meaning: &Meaning, now: Moment) {
        let outage = self.circuit.record(now, !matches!(meaning, Meaning::Unavailable(_)));
        let sign = match meaning {
            Meaning::Unauthorized(_) => Sign::Trouble(Reason::Unauthorized, None),
            Meaning::Throttled(wait) => Sign::Trouble(Reason::Throttled, Some(*wait)),
            Meaning::Unavailable(_) if outage || ticket.probe => Sign::Trouble(Reason::Outage, None),
            // One poll without an answer, between others that had one, says nothing about all.
            Meaning::Unavailable(_) => return,
            _ => Sign::Fine,
        };
        let change = self.brake.hear(now, sign, ticket.probe);
        let halve = match change {
            Change::Nothing => return,
            Change::Longer(_) => ticket.probe,
            Change::On(reason) => {
                match reason {
                    Reason::Unauthorized => warn!(
                        "the API refuses the credentials: all polling waits, one probe at a time; no PIN is \
                         given up. Check the key ([api] key or key_file)"
                    ),
                    Reason::Throttled => warn!("the API answers 429: all polling waits, then goes on slower"),
                    Reason::Outage => warn!("most polls get no answer: only probes go out until one does"),
                }
                true
            }
            Change::Off(reason) => {
                info!(reason = reason.as_str(), "a probe was answered: polling goes on");
                self.circuit.forget();
                self.rate.ramp_up(now);
                false
            }
        };
        // A burst of 429s is one; a probe that meets another is one more.
        if halve && matches!(meaning, Meaning::Throttled(_)) {
            self.rate.halve(now, ticket.probe);
        }
        self.unsaved = true;
    }
}
