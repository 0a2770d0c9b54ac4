//! Takes in PINs that were in flight before, at the start or from another node.
//!
//! Guarantees that resuming any number of PINs avoids a thundering herd. Must not know where the PINs come from.

use super::super::queue::Waiting;
use super::{Core, Stage};
use crate::clock::ClockReading;
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
        let due = now.after(interval.mul_f64(self.random.f64()));
        let waiting = self.enter(old, submitted, due, interval, now)?;
        if let Some(entry) = self.table.get_mut(waiting.key) {
            entry.is_resumed = true;
        }
        Some(waiting)
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
            let Some(entry) = core.table.get_mut(waiting.key) else { continue };
            let interval = core.backoff.interval_at(now.since(entry.submitted));
            waiting.due = now.after(interval.mul_f64(core.random.f64())).min(entry.deadline.max(now));
            entry.stage = Stage::Waiting { due: waiting.due, class: waiting.class };
        }
        core.queue.fill(self.waiting);
    }
}
