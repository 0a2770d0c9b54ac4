//! Takes in PINs that were in flight before, at the start or from another node.
//!
//! Guarantees that resuming any number of PINs avoids a thundering herd. Must not know where the PINs come from.

use super::super::queue::Waiting;
use super::{Core, LAST_POLL_AGAIN, Stage};
use crate::clock::{ClockReading, Moment};
use crate::store::InFlight;

impl Core {
    /// Takes in a PIN that was already in flight. Its age determines the interval, and its next poll is at a random
    /// time within that interval, which avoids a thundering herd.
    pub fn resume(&mut self, old: &InFlight) {
        if let Some(Waiting { class, due, key }) = self.enter_old(old, self.clock.reading()) {
            self.queue.insert(key, due, class);
        }
    }

    /// Does the same for all PINs at the start, which are passed one by one.
    pub fn resume_all(&mut self) -> ResumeAll<'_> {
        let begun = self.clock.reading();
        ResumeAll { core: self, begun, waiting: Vec::new() }
    }

    fn enter_old(&mut self, old: &InFlight, at: ClockReading) -> Option<Waiting> {
        let now = at.now;
        let submitted = at.moment_of_past(old.submitted_at.steady);
        let interval = self.backoff.interval_at(now.since(submitted));
        let mut waiting = self.enter(old, submitted, now, interval, now)?;
        if let Some(entry) = self.table.get_mut(waiting.key) {
            entry.is_resumed = true;
        }
        self.spread(&mut waiting, now);
        Some(waiting)
    }

    /// Draws the time of the next poll of a PIN that is not in the queue yet, within its interval and before its
    /// deadline. Many PINs may have passed their deadline while nobody polled, so their last polls are spread too, but
    /// as last polls that are repeated: within seconds, and before the grace is over.
    fn spread(&mut self, waiting: &mut Waiting, now: Moment) {
        let Some(entry) = self.table.get_mut(waiting.key) else { return };
        let interval = self.backoff.interval_at(now.since(entry.submitted));
        let end = entry.deadline.after(self.settings.deadline_grace);
        let (within, last) = if now < entry.deadline {
            (interval, entry.deadline)
        } else {
            (interval.min(LAST_POLL_AGAIN).min(end.since(now)), end)
        };
        waiting.due = now.after(within.mul_f64(self.random.f64())).min(last.max(now));
        entry.stage = Stage::Waiting { due: waiting.due, class: waiting.class };
    }
}

/// Collects PINs; see [`Core::resume_all`].
pub struct ResumeAll<'a> {
    core: &'a mut Core,
    /// The moment at which the resumption began.
    begun: ClockReading,
    /// Builds the queue from all PINs at once, which is faster and uses less memory.
    waiting: Vec<Waiting>,
}

impl ResumeAll<'_> {
    /// Takes in one PIN.
    pub fn resume(&mut self, old: &InFlight) {
        self.waiting.extend(self.core.enter_old(old, self.begun));
    }

    /// Ends the resumption. Draws a new time for each PIN that became due while others were read: reading a million
    /// takes a second, and all that became due in it would be polled at once.
    pub fn done(mut self) {
        let core = self.core;
        let now = core.clock.now();
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.due < now) {
            core.spread(waiting, now);
        }
        core.queue.fill(self.waiting);
    }
}
