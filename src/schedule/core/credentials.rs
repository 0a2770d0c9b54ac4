//! Decides whether a 401 or 403 concerns the key or one PIN, by a poll of another PIN.
//!
//! Guarantees that a single refused PIN delays other PINs by at most one second, and that a refusal of the check's
//! poll shows a wrong key. Pure. Must not know the network.

use std::time::Duration;

use super::{Core, Key, Refusals, Ticket, Waiting};
use crate::clock::Moment;
use crate::pin::CompactPinId;
use crate::poll::Meaning;

/// The longest time that other polls wait while it is unknown whether the key is right.
const HOLD: Duration = Duration::from_secs(1);

/// How many times a check is tried if its poll gets no answer.
const TRIES: u32 = 3;

/// A refusal that a poll of another PIN must explain.
#[derive(Debug)]
pub struct Check {
    /// The ID of the refused PIN, which stays excluded even if it is submitted again meanwhile.
    refused: CompactPinId,
    since: Moment,
    /// Whether other polls wait, because no recent answer shows that the key works for any PIN.
    holds: bool,
    is_running: bool,
    tries: u32,
}

/// What a refusal, or its check, shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// Nothing yet.
    Unproven,
    /// The key is wrong: two PINs were refused, or the only one.
    WrongKey,
}

impl Core {
    /// Ends a check when any poll sent since the refusal is answered, which shows that the key works.
    pub(super) fn explain(&mut self, ticket: &Ticket, meaning: &Meaning) {
        let is_answer = matches!(
            meaning,
            Meaning::Deliveries(_) | Meaning::Unreadable(_) | Meaning::NotFound | Meaning::Rejected(_)
        );
        self.check.take_if(|check| is_answer && ticket.sent >= check.since);
    }

    /// Judges what an answer says about the key. The answer to the check's poll ends it, whatever pauses polling by
    /// then: a check that never ends would let no other begin.
    pub(super) fn suspect(&mut self, ticket: &Ticket, meaning: &Meaning, now: Moment) -> Suspicion {
        let is_refused = matches!(meaning, Meaning::Unauthorized(_));
        let is_of = |check: &mut Check| ticket.check && check.is_running && ticket.sent >= check.since;
        if let Some(mut check) = self.check.take_if(is_of) {
            if is_refused {
                return Suspicion::WrongKey;
            }
            // The check got no answer; any answer would have explained the refusal.
            if check.tries < TRIES {
                check.is_running = false;
                self.check = Some(check);
            }
        } else if self.brake.reason().is_some() {
            // Probes find out whether the key is right.
        } else if is_refused && self.is_only_pin() {
            self.check = None;
            let row = self.table.get(ticket.key).and_then(|entry| entry.refusals());
            let is_own = row.is_some_and(Refusals::is_about_the_pin);
            return if is_own { Suspicion::Unproven } else { Suspicion::WrongKey };
        } else if is_refused && self.check.is_none() {
            let is_good = self.recent.last_readable().is_some_and(|at| now.since(at) <= HOLD);
            let refused = CompactPinId::from(&ticket.pin);
            self.check = Some(Check { refused, since: now, holds: !is_good, is_running: false, tries: 0 });
        }
        Suspicion::Unproven
    }

    /// Returns the PIN to poll if a check is due: not the refused PIN, and if possible one that was not refused
    /// itself.
    pub(super) fn find_check(&self, now: Moment) -> Option<Waiting> {
        let check = self.check.as_ref().filter(|check| !check.is_running)?;
        let other = |key| self.table.get(key).filter(|entry| entry.pin != check.refused);
        let find = |takes: &dyn Fn(Key) -> bool| self.queue.find_probe(now, takes);
        find(&|key| other(key).is_some_and(|entry| !entry.is_forbidden()))
            .or_else(|| find(&|key| other(key).is_some()))
    }

    /// Notes that the poll of the check starts.
    pub(super) fn check_starts(&mut self) {
        if let Some(check) = &mut self.check {
            check.is_running = true;
            check.tries += 1;
        }
    }

    /// Returns until when other polls wait for the check.
    pub(super) fn held_until(&self, now: Moment) -> Option<Moment> {
        let until = self.check.as_ref().filter(|check| check.holds).map(|check| check.since.after(HOLD));
        until.filter(|until| now < *until)
    }

    /// Returns whether at most one PIN can be polled.
    pub(super) fn is_only_pin(&self) -> bool {
        self.table.len() - self.finishing <= 1
    }
}
