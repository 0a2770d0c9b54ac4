//! PINs that were in flight before: at the start, or at another node.
//!
//! Promises that taking them back is no storm, whatever their number.

use super::super::queue::Waiting;
use super::{Core, Stage};
use crate::clock::ClockReading;
use crate::store::InFlight;

impl Core {
    /// Takes a PIN that was in flight before the start. Its age tells its interval, and its next poll is
    /// anywhere within that, so that a start is no storm.
    pub fn resume(&mut self, old: &InFlight) {
        if let Some(Waiting { class, due, key }) = self.enter_old(old, self.clock.reading()) {
            self.queue.insert(key, due, class);
        }
    }

    /// The same for all of them at the start, who come one by one.
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

/// See [`Core::resume_all`].
pub struct ResumeAll<'a> {
    core: &'a mut Core,
    /// When the first of them could come.
    begun: ClockReading,
    /// The queue is made of all of them at once, which is quicker and smaller.
    waiting: Vec<Waiting>,
}

impl ResumeAll<'_> {
    /// Takes one.
    pub fn resume(&mut self, old: &InFlight) {
        self.waiting.extend(self.core.enter_old(old, self.begun));
    }

    /// There are no more. Who became due while the others were read is drawn anew: a million take a second, and
    /// what came due in it would all be polled at once.
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
