//! Counts the answers, and logs those without a usable result.
//!
//! Guarantees at most one log line per minute, however many polls fail. Must not decide anything.

use std::time::Duration;

use tracing::warn;

use super::Core;
use crate::clock::Moment;
use crate::outcome::Ending;
use crate::poll::Meaning;

/// The shortest time between two log lines about polls without a usable answer.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Counts since the start.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    pub polls: u64,
    pub understood: u64,
    pub unreadable: u64,
    pub rejected: u64,
    pub unauthorized: u64,
    pub not_found: u64,
    pub throttled: u64,
    pub unavailable: u64,
    pub not_sent: u64,
    pub outcomes: [u64; Ending::ALL.len()],
    /// Polls by this process of the PINs that ended.
    pub polls_of_ended: u64,
}

impl Counts {
    /// Returns the average number of polls of a PIN that ended; `None` if none did.
    pub fn polls_per_pin(&self) -> Option<f64> {
        share(self.polls_of_ended, self.outcomes.iter().sum())
    }

    /// Returns the share (0 to 1) of PINs that reached their deadline, among those and the PINs that became final.
    pub fn never_final(&self) -> Option<f64> {
        let [finals, late] = [Ending::Final, Ending::Deadline].map(|ending| self.outcomes[ending as usize]);
        share(late, finals + late)
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

impl Core {
    pub(super) fn count(&mut self, meaning: &Meaning, now: Moment) {
        let counts = &mut self.counts;
        counts.polls += 1;
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
        if self.complained.is_some_and(|(at, _)| now.since(at) < COMPLAIN_EVERY) {
            self.complained = self.complained.map(|(at, more)| (at, more + 1));
            return;
        }
        let (_, more) = self.complained.replace((now, 0)).unwrap_or((now, 0));
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
