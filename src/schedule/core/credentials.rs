//! Whether a 401 or 403 is about the key or about one PIN: another PIN's poll decides.
//!
//! Promises that a PIN which the API alone refuses pauses nobody for longer than one poll takes, and that a wrong key is
//! noticed by the second refusal. Pure.

use std::time::Duration;

use super::{Core, Ticket, Waiting};
use crate::clock::Moment;
use crate::pin::CompactPinId;
use crate::poll::Meaning;

/// While it is unknown whether the key is good, other polls wait, but not for longer than this.
const HOLD: Duration = Duration::from_secs(1);

/// A check whose poll got no answer is repeated so often.
const TRIES: u32 = 3;

/// A refusal that the poll of another PIN is to explain.
#[derive(Debug)]
pub struct Check {
    /// The PIN that was refused: if it comes again meanwhile, it is still the same.
    refused: CompactPinId,
    since: Moment,
    /// Whether nothing shows yet that the key is good for anybody.
    holds: bool,
    is_running: bool,
    tries: u32,
}

/// What a refusal, or its check, says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// Nothing, or not yet.
    Unproven,
    /// Two PINs were refused, or the only one: the key is wrong.
    WrongKey,
}

impl Core {
    /// Whichever poll was sent since a refusal and is answered explains it: the key is good.
    pub(super) fn explain(&mut self, ticket: &Ticket, meaning: &Meaning) {
        let is_answer = matches!(
            meaning,
            Meaning::Deliveries(_) | Meaning::Unreadable(_) | Meaning::NotFound | Meaning::Rejected(_)
        );
        self.check.take_if(|check| is_answer && ticket.sent >= check.since);
    }

    /// Takes in what an answer says about the key, while no brake is on for it.
    pub(super) fn suspect(&mut self, ticket: &Ticket, meaning: &Meaning, now: Moment) -> Suspicion {
        let is_refused = matches!(meaning, Meaning::Unauthorized(_));
        if ticket.check
            && let Some(mut check) = self.check.take_if(|check| check.is_running)
        {
            if is_refused {
                return Suspicion::WrongKey;
            }
            // It got no answer, or it would have explained the refusal.
            if check.tries < TRIES {
                check.is_running = false;
                self.check = Some(check);
            }
        } else if is_refused && self.is_only_pin() {
            self.check = None;
            let row = self.table.get(ticket.slot).and_then(|entry| entry.refusals());
            let is_own = row.is_some_and(|row| row.is_about_the_pin(&self.others()));
            return if is_own { Suspicion::Unproven } else { Suspicion::WrongKey };
        } else if is_refused && self.check.is_none() {
            let is_good = self.recent.last_readable().is_some_and(|at| now.since(at) <= HOLD);
            let refused = CompactPinId::from(&ticket.pin);
            self.check = Some(Check { refused, since: now, holds: !is_good, is_running: false, tries: 0 });
        }
        Suspicion::Unproven
    }

    /// The PIN whose poll is to explain a refusal, if one is to go out now: any but the refused one, and one that was not
    /// refused itself if there is one.
    pub(super) fn find_check(&self, now: Moment) -> Option<Waiting> {
        let check = self.check.as_ref().filter(|check| !check.is_running)?;
        let other = |slot| self.table.get(slot).filter(|entry| entry.pin != check.refused);
        let find = |takes: &dyn Fn(u32) -> bool| self.queue.find_probe(now, takes);
        find(&|slot| other(slot).is_some_and(|entry| !entry.is_forbidden()))
            .or_else(|| find(&|slot| other(slot).is_some()))
    }

    /// The poll that explains a refusal is sent.
    pub(super) fn check_starts(&mut self) {
        if let Some(check) = &mut self.check {
            check.is_running = true;
            check.tries += 1;
        }
    }

    /// Until when other polls wait for a check.
    pub(super) fn held_until(&self, now: Moment) -> Option<Moment> {
        let until = self.check.as_ref().filter(|check| check.holds).map(|check| check.since.after(HOLD));
        until.filter(|until| now < *until)
    }

    /// Whether at most one PIN can be polled.
    pub(super) fn is_only_pin(&self) -> bool {
        self.table.len() - self.finishing <= 1
    }
}
