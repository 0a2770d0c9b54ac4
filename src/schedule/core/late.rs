//! Notices that polls have been late for long: they become due faster than they may be sent.
//!
//! PINs that are late share what may be sent, in proportion to their intervals. So when one is late by [`TOO_LATE`] intervals, all
//! are polled that much less often than the schedule says. Must not decide anything.

use std::time::Duration;

use super::{Core, MAX_FINISHING};
use crate::clock::Moment;

/// From here on, polls are late. Intervals are rounded down to a power of two of milliseconds, so that it is at least one interval.
const TOO_LATE: f64 = 2.0;

/// Nobody notices that polls come later by less than this, however short their intervals are.
const WORTH_NOTICE: Duration = Duration::from_secs(1);

/// How long polls must have been late. What many submits at once or a pause leave behind is usually made up for within that.
const FOR_LONG: Duration = Duration::from_secs(60);

impl Core {
    /// Looks how late polls are; call it every few seconds.
    pub fn watch_lateness(&mut self) {
        let now = self.clock.now();
        self.late_since = self.is_late(now).then(|| self.late_since.unwrap_or(now));
    }

    /// Returns how long the PIN has been due that has been due longest, and since when polls are late, if they have been for long
    /// and still are.
    pub fn late(&self) -> Option<(Duration, Moment)> {
        let now = self.clock.now();
        let since = self.late_since.filter(|since| now.since(*since) >= FOR_LONG)?;
        self.is_late(now).then(|| (self.longest_due(now), since))
    }

    /// Polls that a brake, the store or a lost lease holds back are not late: that is reported as what it is.
    fn is_late(&self, now: Moment) -> bool {
        let may_poll =
            self.brake.reason().is_none() && self.finishing < MAX_FINISHING && self.held.admits(now);
        may_poll && self.longest_due(now) >= WORTH_NOTICE && self.queue.intervals_late(now) >= TOO_LATE
    }

    fn longest_due(&self, now: Moment) -> Duration {
        self.queue.next_due().map_or(Duration::ZERO, |due| now.since(due))
    }
}
