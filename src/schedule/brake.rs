//! The brake: what stops all polling at once, because the trouble is the account's and not a PIN's.
//!
//! While it is on, nothing is polled until its time is over; then one poll, the probe, tells whether it
//! goes off. Costs no PIN anything. Pure: moments are passed in.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::clock::Moment;

/// From the first refused poll to the probe; doubles with each refused probe.
const FIRST_PROBE_AFTER: Duration = Duration::from_secs(5);
/// A key that is mended is noticed within this time.
const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(60);

/// Why all polling stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// 401 or 403: the credentials are wrong.
    Unauthorized,
    /// 429: the account polls too much.
    Throttled,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 2] = [Self::Unauthorized, Self::Throttled];

    /// Its name in logs and `stats`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Throttled => "throttled",
        }
    }
}

/// Whether polls may go out.
#[derive(Debug)]
pub struct Brake {
    state: State,
    probes: Backoff,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Off,
    On {
        reason: Reason,
        until: Moment,
        refused_probes: u32,
    },
    /// The probe is running.
    Probing {
        reason: Reason,
        refused_probes: u32,
    },
}

impl Brake {
    pub fn new() -> Self {
        Self { state: State::Off, probes: Backoff::new(FIRST_PROBE_AFTER, 2.0, MAX_PROBE_INTERVAL, 0.0) }
    }

    /// Why polling stands still, if it does.
    pub fn reason(&self) -> Option<Reason> {
        match self.state {
            State::Off => None,
            State::On { reason, .. } | State::Probing { reason, .. } => Some(reason),
        }
    }

    /// Whether a poll may start now. If the brake is on, that poll is the probe.
    pub fn admits(&self, now: Moment) -> bool {
        match self.state {
            State::Off => true,
            State::On { until, .. } => until <= now,
            State::Probing { .. } => false,
        }
    }

    /// When [`Brake::admits`] will change by itself.
    pub fn until(&self) -> Option<Moment> {
        match self.state {
            State::On { until, .. } => Some(until),
            State::Off | State::Probing { .. } => None,
        }
    }

    /// A poll starts; true if it is the probe.
    pub fn started(&mut self) -> bool {
        let State::On { reason, refused_probes, .. } = self.state else { return false };
        self.state = State::Probing { reason, refused_probes };
        true
    }

    /// A poll was answered 401 or 403; true if that is news.
    pub fn unauthorized(&mut self, now: Moment, probe: bool) -> bool {
        let refused_probes = match self.state {
            // Polls that were under way when the brake went on tell nothing new.
            State::On { reason: Reason::Unauthorized, .. } => return false,
            State::Probing { .. } if !probe => return false,
            State::Probing { reason: Reason::Unauthorized, refused_probes } => refused_probes + 1,
            _ => 0,
        };
        let news = self.reason() != Some(Reason::Unauthorized);
        let until = now.after(self.probes.nth(refused_probes));
        self.state = State::On { reason: Reason::Unauthorized, until, refused_probes };
        news
    }

    /// A poll was answered 429, to wait for so long; true if that is news.
    pub fn throttled(&mut self, now: Moment, wait: Duration, probe: bool) -> bool {
        let until = now.after(wait);
        match self.state {
            State::Probing { .. } if !probe => return false,
            // The account is refused whatever the rate: 429 can't lift that, only lengthen it.
            State::On { reason: Reason::Unauthorized, .. } => return false,
            State::On { until: earlier, .. } if until <= earlier => return false,
            _ => {}
        }
        let news = self.reason() != Some(Reason::Throttled);
        self.state = State::On { reason: Reason::Throttled, until, refused_probes: 0 };
        news
    }

    /// A poll had any other end; true if that released the brake.
    pub fn passed(&mut self, probe: bool) -> bool {
        let released = probe && matches!(self.state, State::Probing { .. });
        if released {
            self.state = State::Off;
        }
        released
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const T0: Moment = Moment::START;

    #[test]
    fn a_wrong_key_stops_all_polls_but_one_probe_with_growing_intervals() {
        let mut brake = Brake::new();
        let mut now = T0;
        assert!(brake.unauthorized(now, false));
        assert!(!brake.unauthorized(now, false), "the other running polls are no news");
        for wait in [5, 10, 20, 40, 60, 60] {
            assert!(!brake.admits(now.after(wait * SECOND - Duration::from_millis(1))));
            now = now.after(wait * SECOND);
            assert!(brake.admits(now));
            assert!(brake.started());
            assert!(!brake.admits(now), "one probe at a time");
            brake.unauthorized(now, true);
        }
        now = now.after(60 * SECOND);
        assert!(brake.started());
        assert!(!brake.passed(false), "a poll from before the brake does not lift it");
        assert!(brake.passed(true));
        assert!(brake.admits(now) && !brake.started());
    }

    #[test]
    fn a_429_stops_all_polls_for_as_long_as_it_says() {
        let mut brake = Brake::new();
        assert!(brake.throttled(T0, 30 * SECOND, false));
        assert!(!brake.throttled(T0, 10 * SECOND, false));
        assert_eq!(brake.until(), Some(T0.after(30 * SECOND)));
        assert!(!brake.admits(T0.after(29 * SECOND)) && brake.admits(T0.after(30 * SECOND)));
        assert!(brake.started() && brake.passed(true));
        assert_eq!(brake.reason(), None);
    }
}
