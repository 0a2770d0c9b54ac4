//! Applies answers to the brake and the rate, and saves both for the next start.
//!
//! Guarantees that a brake ends no PIN, and that PINs that fail or are refused alone do not pause other PINs. Must
//! not know the brake's own rules ([`brake`](super::super::brake)) or how failures are counted
//! ([`recent`](super::super::recent)).

use std::time::Duration;

use tracing::{info, warn};

use super::super::brake::{Brake, Change, Reason, Sign};
use super::super::learn::Learner;
use super::super::recent::{Kind, NO_NEWS};
use super::credentials::Suspicion;
use super::{Core, Entry, Evidence, Others, Refusal, Ticket, Waiting};
use crate::clock::Moment;
use crate::poll::Meaning;
use crate::store::SavedSchedule;

/// Most PINs count as refused until refusals have not been the majority for this long. So an API that refuses about half of all
/// PINs is reported once, not repeatedly.
const OVER: Duration = Duration::from_secs(60);

/// Most PINs are refused.
#[derive(Debug, Clone, Copy)]
pub struct RefusedEverywhere {
    since: Moment,
    /// When most were refused last.
    last: Moment,
    how: Refusal,
}

impl RefusedEverywhere {
    /// Returns whether answers have shown the opposite for long enough, or there was no answer at all for long. `newest`
    /// is when the newest answer came.
    fn is_over(&self, newest: Option<Moment>, now: Moment) -> bool {
        let is_contradicted = newest.is_some_and(|newest| newest > self.last);
        now.since(self.last) >= if is_contradicted { OVER } else { NO_NEWS }
    }
}

impl Core {
    /// Returns why all polling is paused, and until when.
    pub fn brake(&self) -> Option<(Reason, Option<Moment>)> {
        self.brake.reason().map(|reason| (reason, self.brake.until()))
    }

    /// Returns since when the brake has been on.
    pub fn brake_since(&self) -> Option<Moment> {
        self.brake.since()
    }

    /// Returns the brake, the rate and the learned state to save for the next start, if they changed since the last
    /// call.
    pub fn take_unsaved(&mut self) -> Option<SavedSchedule> {
        let rate = self.rate.learned();
        let has_doubled = match (rate, self.saved_rate) {
            (Some(rate), Some(saved)) => rate >= 2.0 * saved,
            (rate, saved) => rate.is_some() != saved.is_some(),
        };
        (std::mem::take(&mut self.unsaved) || has_doubled).then(|| {
            self.saved_rate = rate;
            SavedSchedule {
                reason: self.brake.reason().map(|reason| reason.as_str().to_owned()),
                until: self.brake.until().map(|until| self.clock.steady_of_future(until)),
                rate,
                learned: self.learner.as_ref().map(Learner::save),
            }
        })
    }

    /// Marks what is known for saving, because the daemon stops: the learned state, and the rate, which is saved in
    /// between only when it has doubled.
    pub fn keep_all(&mut self) {
        self.unsaved |= self.learner.is_some() || self.rate.learned() != self.saved_rate;
    }

    /// Restores the brake, the rate and the learned state from before the start.
    pub fn restore(&mut self, saved: &SavedSchedule) {
        let now = self.clock.now();
        if let Some(reason) = Reason::ALL.into_iter().find(|r| Some(r.as_str()) == saved.reason.as_deref()) {
            // After a reboot the elapsed time is unknown, so a probe finds out at once whether the reason still
            // applies.
            let until = saved.until.filter(|_| !self.clock.has_gap());
            let ahead = until.map(|until| until.since(self.clock.steady())).unwrap_or_default();
            info!(reason = reason.as_str(), "polling was paused before the start: it continues with a probe");
            self.brake.restore(reason, now.after(ahead), now);
        }
        if let Some(rate) = saved.rate {
            self.rate.restore(rate, now);
            self.saved_rate = self.rate.learned();
        }
        if let (Some(learner), Some(state)) = (&mut self.learner, &saved.learned)
            && !learner.restore(state)
        {
            info!(
                "what the schedule had learned before the start can't be read: it learns again from the beginning"
            );
        }
    }

    /// Applies what an answer says about its PIN, the account, the API and this machine. Returns the wait of a 429
    /// that concerns this PIN alone.
    pub(super) fn learn(&mut self, ticket: &Ticket, meaning: &Meaning, now: Moment) -> Option<Duration> {
        let (was_failing, was_throttled) = self.note(ticket, meaning, now);
        if let Some(kind) = Kind::of(meaning) {
            self.recent.record(ticket.generation, now, kind, was_failing);
        }
        self.report_refusals(meaning, now);
        self.explain(ticket, meaning);
        let is_own = was_throttled.is_some_and(|since| self.recent.throttles_only(ticket.generation, since));
        let is_refused = matches!(meaning, Meaning::Unauthorized(_));
        let mut is_probe = ticket.probe;
        if is_probe && is_refused && self.brake.reason() != Some(Reason::Unauthorized) {
            // The API answered, so the reason for the probe is over. Whether the key is wrong is decided separately.
            self.observe(Sign::Fine, true, meaning, now);
            is_probe = false;
        }
        let suspicion = self.suspect(ticket, meaning, now);
        let sign = match meaning {
            Meaning::Unauthorized(_) if is_probe || suspicion == Suspicion::WrongKey => {
                Sign::Trouble(Reason::Unauthorized, None)
            }
            Meaning::Throttled(wait) if is_own && !is_probe => return Some(*wait),
            Meaning::Throttled(wait) => Sign::Trouble(Reason::Throttled, Some(*wait)),
            Meaning::NotSent(_) => Sign::Trouble(Reason::NotSent, None),
            Meaning::Unavailable(_) if is_probe || self.recent.is_outage(now) => {
                Sign::Trouble(Reason::Outage, None)
            }
            // One unanswered poll or one refused PIN says nothing about all PINs while others get answers.
            Meaning::Unavailable(_) | Meaning::Unauthorized(_) => return None,
            Meaning::Deliveries(_) | Meaning::NotFound | Meaning::Rejected(_) | Meaning::Unreadable(_) => {
                Sign::Fine
            }
        };
        if let Sign::Trouble(Reason::Unauthorized, _) = sign {
            self.refused_alone = match self.brake.reason() {
                Some(Reason::Unauthorized) => self.refused_alone.filter(|pin| *pin == ticket.generation),
                _ => self.is_only_pin().then_some(ticket.generation),
            };
        }
        self.observe(sign, is_probe, meaning, now);
        None
    }

    /// Lets the next probe ask about a new PIN once that is due: if it is answered, the trouble is that of other PINs.
    /// A key that was refused for two PINs is wrong, so of that a new PIN would tell nothing.
    pub(super) fn newcomer(&mut self, due: Moment) {
        match self.brake.reason() {
            Some(Reason::Outage) => self.brake.newcomer(due),
            Some(Reason::Unauthorized) if self.refused_alone.is_some() => self.brake.newcomer(due),
            _ => {}
        }
    }

    /// Does the same again after a probe failed, which may have been under way when a new PIN came.
    fn find_newcomer(&mut self, now: Moment) {
        let Some(since) = self.brake.since() else { return };
        let is_new = |entry: &Entry| entry.polls == 0 && !entry.is_resumed && entry.submitted >= since;
        let new = self.queue.find_probe(now, |key| self.table.get(key).is_some_and(is_new));
        if let Some(Waiting { due, .. }) = new {
            self.newcomer(due);
        }
    }

    /// Applies a sign to the brake, and to the rate that depends on it.
    fn observe(&mut self, sign: Sign, is_probe: bool, meaning: &Meaning, now: Moment) {
        let is_failing =
            |brake: &Brake| matches!(brake.reason(), Some(Reason::Outage | Reason::Unauthorized));
        let was_failing = is_failing(&self.brake);
        let change = self.brake.observe(now, sign, is_probe);
        if was_failing || is_failing(&self.brake) {
            self.last_failing = Some(now);
        }
        if is_probe && matches!(change, Change::On(_) | Change::Longer(_)) {
            self.find_newcomer(now);
        }
        let is_new_429 = match change {
            Change::Nothing => return,
            Change::Longer(_) => is_probe,
            Change::On(reason) => {
                announce(reason, meaning);
                true
            }
            Change::Off(reason) => {
                info!(reason = reason.as_str(), "a probe was answered: polling goes on");
                self.recent.pause_ends();
                self.rate.ramp_up(now);
                false
            }
        };
        // A burst of 429s counts as one; a probe that gets another 429 counts as one more.
        if is_new_429 && matches!(meaning, Meaning::Throttled(_)) {
            self.rate.halve(now);
        }
        self.unsaved = true;
    }

    /// Returns what is known about other PINs.
    pub(super) fn others(&self) -> Others {
        Others {
            none: self.is_only_pin(),
            last_readable: self.recent.last_readable(),
            most_are_refused: self.recent.is_refused_everywhere(),
            last_failing: self.last_failing,
        }
    }

    /// Returns since when most PINs are refused, and how; `None` if they are not, or none is polled.
    pub fn refused_everywhere(&self) -> Option<(Moment, Refusal)> {
        if self.table.len() == self.finishing {
            return None;
        }
        let (newest, now) = (self.recent.newest(), self.clock.now());
        self.refused
            .filter(|refused| !refused.is_over(newest, now))
            .map(|refused| (refused.since, refused.how))
    }

    /// Stores in the PIN's entry what its answer was. Returns whether its previous poll failed, and when its last 429
    /// before this answer came, if that still counts.
    fn note(&mut self, ticket: &Ticket, meaning: &Meaning, now: Moment) -> (bool, Option<Moment>) {
        let others = self.others();
        let entry = self.table.get_mut(ticket.key).filter(|entry| entry.generation == ticket.generation);
        let Some(entry) = entry else { return (false, None) };
        let before = entry.evidence.take().map(|evidence| *evidence);
        entry.evidence = Evidence::after(before, meaning, &others, now).map(Box::new);
        let is_failing = match meaning {
            Meaning::NotSent(_) => entry.is_failing,
            _ => matches!(meaning, Meaning::Unavailable(_)),
        };
        let was_failing = std::mem::replace(&mut entry.is_failing, is_failing);
        let throttled = before.and_then(|before| before.throttled);
        let throttled = throttled.filter(|last| last.is_last || now.since(last.at) <= NO_NEWS);
        (was_failing, throttled.map(|last| last.at))
    }

    /// Logs when most PINs begin to be refused, and when that ends.
    fn report_refusals(&mut self, meaning: &Meaning, now: Moment) {
        let is_everywhere = self.recent.is_refused_everywhere();
        let newest = self.recent.newest();
        match &mut self.refused {
            Some(refused) if is_everywhere => refused.last = now,
            Some(refused) if refused.is_over(newest, now) => {
                self.refused = None;
                info!("most PINs are not refused any more");
            }
            None if is_everywhere && let Some(how) = Refusal::of(meaning) => {
                self.refused = Some(RefusedEverywhere { since: now, last: now, how });
                warn!("most PINs are answered {}: {}", how.answer(), how.advice());
            }
            _ => {}
        }
    }
}

/// Logs why all polling is paused.
fn announce(reason: Reason, meaning: &Meaning) {
    match reason {
        Reason::NotSent => {
            let lack = match meaning {
                Meaning::NotSent(lack) => lack,
                _ => "no more is known",
            };
            warn!(lack, "this machine can't send polls: polling pauses and tries again; no PIN is given up");
        }
        Reason::Unauthorized => warn!(
            "the API refuses the credentials: all polling waits, one probe at a time; no PIN is given up. Check the \
             key ([api] key or key_file)"
        ),
        Reason::Throttled => warn!("the API answers 429: all polling waits, then continues more slowly"),
        Reason::Outage => warn!("most PINs get no answer: only probes go out until one does"),
    }
}
