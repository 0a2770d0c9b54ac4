//! Detects that polls stay late, because PINs become due faster than polls may be sent.
//!
//! Late PINs share the allowed polls in proportion to their intervals: if one is late by [`TOO_LATE`] intervals, all are polled
//! that much less often than planned. Must not decide anything.

use std::time::Duration;

use super::{Core, MAX_FINISHING};
use crate::clock::Moment;

/// Polls count as late from this many intervals on. The queue rounds an interval down to a power of two milliseconds, so two
/// rounded intervals are at least one real one.
const TOO_LATE: f64 = 2.0;

/// A smaller delay is not reported, however short the interval.
const WORTH_NOTICE: Duration = Duration::from_secs(1);

/// How long polls must be late before it is reported. A backlog after many submits or after a pause is usually gone by then.
const FOR_LONG: Duration = Duration::from_secs(60);

impl Core {
    /// Checks how late polls are; call it every few seconds.
    pub fn watch_lateness(&mut self) {
        let now = self.clock.now();
        self.late_since = self.is_late(now).then(|| self.late_since.unwrap_or(now));
    }

    /// Returns how long the most overdue PIN has been due, and since when polls are late; `None` unless polls have been late for
    /// [`FOR_LONG`] and still are.
    pub fn late(&self) -> Option<(Duration, Moment)> {
        let now = self.clock.now();
        let since = self.late_since.filter(|since| now.since(*since) >= FOR_LONG)?;
        self.is_late(now).then(|| (self.longest_due(now), since))
    }

    /// Polls that a brake, the store or a lost lease holds back do not count as late: each of these has its own report.
    fn is_late(&self, now: Moment) -> bool {
        let may_poll =
            self.brake.reason().is_none() && self.finishing < MAX_FINISHING && self.held.admits(now);
        may_poll && self.longest_due(now) >= WORTH_NOTICE && self.queue.intervals_late(now) >= TOO_LATE
    }

    fn longest_due(&self, now: Moment) -> Duration {
        self.queue.next_due().map_or(Duration::ZERO, |due| now.since(due))
    }
}
