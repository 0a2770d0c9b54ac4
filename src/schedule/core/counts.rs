//! Counts the answers, and logs those without a usable result.
//!
//! Guarantees at most one log line per minute, however many polls fail. Must not decide anything.

use std::time::Duration;

use tracing::warn;

use super::super::ages::AGE_BANDS;
use super::{Core, Ticket};
use crate::clock::Moment;
use crate::metrics::{self, STATUSES, catalogue::LIFETIMES};
use crate::outcome::Ending;
use crate::poll::Meaning;

/// Counts since the start.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    pub polls: u64,
    /// The same polls by the PIN's age when they were sent, in the order of [`AGE_BANDS`].
    pub by_age: [u64; AGE_BANDS.len()],
    pub understood: u64,
    pub unreadable: u64,
    pub rejected: u64,
    pub unauthorized: u64,
    pub not_found: u64,
    pub throttled: u64,
    pub unavailable: u64,
    pub not_sent: u64,
    pub outcomes: [u64; Ending::ALL.len()],
    /// The same PINs by the status that decided, in the order of [`metrics::statuses`].
    pub statuses: [u64; STATUSES],
    /// Polls by this process of the PINs that ended.
    pub polls_of_ended: u64,
    /// PINs that became final, by their age when that was noticed: up to each of [`LIFETIMES`], then older ones.
    pub final_ages: [u64; LIFETIMES.len() + 1],
    /// PINs with an estimated moment of becoming final, and the sum of the delays from then until it was noticed.
    pub noticed: u64,
    pub notice_delay: Duration,
}

impl Counts {
    /// Returns the average number of polls of a PIN that ended; `None` if none did.
    pub fn polls_per_pin(&self) -> Option<f64> {
        share(self.polls_of_ended, self.outcomes.iter().sum())
    }

    /// Returns the average time from a PIN becoming final until it was noticed; `None` before the first. See
    /// [`notice_delay`].
    pub fn mean_notice_delay(&self) -> Option<Duration> {
        (self.noticed > 0).then(|| self.notice_delay.div_f64(self.noticed as f64))
    }

    /// Returns the polls by what their answers meant. The names are labels of a metric, so they stay as they are.
    pub fn by_meaning(&self) -> [(&'static str, u64); 8] {
        [
            ("understood", self.understood),
            ("unreadable", self.unreadable),
            ("rejected", self.rejected),
            ("unauthorized", self.unauthorized),
            ("not_found", self.not_found),
            ("throttled", self.throttled),
            ("unavailable", self.unavailable),
            ("not_sent", self.not_sent),
        ]
    }

    /// Counts a PIN that ended at this age after this many polls. `status` is a place in [`metrics::statuses`].
    pub(super) fn ended(&mut self, ending: Ending, status: usize, age: Duration, polls: u32) {
        self.outcomes[ending as usize] += 1;
        self.statuses[status] += 1;
        self.polls_of_ended += u64::from(polls);
        if ending == Ending::Final {
            let age = age.as_secs_f64();
            self.final_ages[LIFETIMES.partition_point(|&limit| limit < age)] += 1;
        }
    }

    /// Counts a PIN that was noticed to be final this long after it became so.
    pub(super) fn noticed(&mut self, delay: Duration) {
        self.noticed += 1;
        self.notice_delay = self.notice_delay.saturating_add(delay);
        metrics::noticed(delay);
    }

    /// Returns the share (0 to 1) of PINs that reached their deadline, among those and the PINs that became final.
    pub fn never_final(&self) -> Option<f64> {
        let [finals, late] = [Ending::Final, Ending::Deadline].map(|ending| self.outcomes[ending as usize]);
        share(late, finals + late)
    }
}

/// Estimates how long a PIN had been final when it was noticed: half of the time between the last answer "not yet", at
/// the age `since`, and the answer "final".
pub(super) fn notice_delay(since: Duration, age: Duration) -> Duration {
    age.saturating_sub(since) / 2
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

impl Core {
    pub(super) fn count(&mut self, ticket: &Ticket, meaning: &Meaning, now: Moment) {
        let counts = &mut self.counts;
        counts.polls += 1;
        counts.by_age[AGE_BANDS.partition_point(|(_, end)| *end <= ticket.age)] += 1;
        let class = match meaning {
            Meaning::Deliveries(_) => &mut counts.understood,
            Meaning::Unreadable(_) => &mut counts.unreadable,
            Meaning::Rejected(_) => &mut counts.rejected,
            Meaning::Unauthorized(_) => &mut counts.unauthorized,
            Meaning::NotFound => &mut counts.not_found,
            Meaning::Throttled(_) => &mut counts.throttled,
            Meaning::Unavailable(_) => &mut counts.unavailable,
            Meaning::NotSent(_) => &mut counts.not_sent,
        };
        *class += 1;
        let (Meaning::Unavailable(what) | Meaning::Unreadable(what) | Meaning::NotSent(what)) = meaning
        else {
            return;
        };
        // One line per burst: neither an outage nor a few failed polls among many good ones may fill the log.
        let Some(more) = self.complaints.due(self.clock.instant(now)) else { return };
        warn!(answer = %what, more, "a poll got no usable answer; its PIN is polled again. `more` counts the earlier ones that were not logged");
    }
}

/// Summarises an answer in a few words; `None` for deliveries, which describe themselves.
pub(super) fn describe(meaning: &Meaning) -> Option<String> {
    match meaning {
        Meaning::Deliveries(_) => None,
        Meaning::Unreadable(what) => Some(format!("not understood: {what}")),
        Meaning::Rejected(text) => Some(format!("rejected: {text}")),
        Meaning::Unauthorized(status) => Some(format!("{status}: the credentials are refused")),
        Meaning::NotFound => Some("404 not found".into()),
        Meaning::Throttled(wait) => Some(format!("429: wait {} s", wait.as_secs_f64())),
        Meaning::Unavailable(what) | Meaning::NotSent(what) => Some(what.clone()),
    }
}
