//! The brake pauses all polling when a problem concerns the account, the API or this machine instead of one PIN.
//!
//! While the brake is on, no poll starts before the wait is over. Then one poll, the probe, decides whether polling
//! continues. Guarantees that it ends no PIN. Pure: the caller passes moments. Must not know PINs.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::poll;

/// The wait before the first probe after a refused key, and the longest wait before a later probe. A corrected key is
/// noticed within the longest wait.
const UNAUTHORIZED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// The same waits for an outage, and for a machine that can't send.
const OUTAGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Why all polling is paused. A later variant outranks an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// This machine lacks file descriptors, memory, ports or a resolver to send a request.
    NotSent,
    /// Most polls get no answer.
    Outage,
    /// 429: the account polls too often.
    Throttled,
    /// 401 or 403 for different PINs: the credentials are wrong.
    Unauthorized,
}

impl Reason {
    pub const ALL: [Self; 4] = [Self::NotSent, Self::Outage, Self::Throttled, Self::Unauthorized];

    /// Returns its name in logs, `stats` and the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotSent => "not_sent",
            Self::Outage => "outage",
            Self::Throttled => "throttled",
            Self::Unauthorized => "unauthorized",
        }
    }

    /// Returns the longest single pause for this reason.
    pub fn longest(self) -> Duration {
        match self {
            Self::NotSent | Self::Outage => OUTAGE.1,
            Self::Throttled => poll::LONGEST,
            Self::Unauthorized => UNAUTHORIZED.1,
        }
    }
}

/// What an answer implies for all polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Polls are answered.
    Fine,
    /// Polls fail for this reason; a 429 also gives the time to wait.
    Trouble(Reason, Option<Duration>),
}

/// The effect of a [`Sign`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Nothing,
    /// The brake went on, or its reason changed.
    On(Reason),
    /// The brake stays on for longer.
    Longer(Reason),
    /// The brake went off.
    Off(Reason),
}

/// Decides whether polls may start.
#[derive(Debug)]
pub struct Brake {
    on: Option<On>,
    unauthorized: Backoff,
    outage: Backoff,
}

#[derive(Debug, Clone, Copy)]
struct On {
    reason: Reason,
    /// Since when it has been on for this reason.
    since: Moment,
    until: Moment,
    /// The number of refused probes in a row.
    refused: u32,
    probing: bool,
    /// When an answer last confirmed the reason.
    last_sign: Moment,
}

impl Default for Brake {
    fn default() -> Self {
        let backoff = |(first, longest)| Backoff::new(first, 2.0, longest, 0.0);
        Self { on: None, unauthorized: backoff(UNAUTHORIZED), outage: backoff(OUTAGE) }
    }
}

impl Brake {
    /// Returns why polling is paused; `None` if it is not.
    pub fn reason(&self) -> Option<Reason> {
        self.on.map(|on| on.reason)
    }

    /// Returns since when polling has been paused for this reason, as far as this process knows.
    pub fn since(&self) -> Option<Moment> {
        self.on.map(|on| on.since)
    }

    /// Returns the end of the present wait; `None` if the brake is off.
    pub fn until(&self) -> Option<Moment> {
        self.on.map(|on| on.until)
    }

    /// Returns whether a poll may start now. While the brake is on, that poll is the probe.
    pub fn admits(&self, now: Moment) -> bool {
        self.on.is_none_or(|on| !on.probing && on.until <= now)
    }

    /// Returns whether the last probe got another 429.
    pub fn was_probe_throttled(&self) -> bool {
        self.on.is_some_and(|on| on.reason == Reason::Throttled && on.refused > 0)
    }

    /// Returns when [`Brake::admits`] changes by itself.
    pub fn opens_at(&self) -> Option<Moment> {
        self.on.filter(|on| !on.probing).map(|on| on.until)
    }

    /// Notes that a poll starts; returns whether it is the probe.
    pub fn started(&mut self) -> bool {
        match &mut self.on {
            Some(on) => {
                on.probing = true;
                true
            }
            None => false,
        }
    }

    /// Restores the brake after a restart, for at most the longest wait of its reason. A probe ends it, as always.
    pub fn restore(&mut self, reason: Reason, until: Moment, now: Moment) {
        let until = until.min(now.after(reason.longest()));
        self.on = Some(On { reason, since: now, until, refused: 0, probing: false, last_sign: now });
    }

    /// Ends the wait when a new PIN is due, which has not failed yet, but no earlier than a second after the last sign.
    /// An outage of a part of the API thus delays no other PINs. Never shortens the wait of a 429.
    pub fn newcomer(&mut self, due: Moment) {
        if let Some(on) = self.on.as_mut().filter(|on| on.reason != Reason::Throttled) {
            on.until = on.until.min(due.max(on.last_sign.after(OUTAGE.0)));
        }
    }

    /// Ends the wait at once if the credentials are the reason, because they may have changed; the next poll is the
    /// probe. Never shortens the wait of a 429, which the same account would have to keep.
    pub fn try_now(&mut self, now: Moment) {
        if let Some(on) = self.on.as_mut().filter(|on| on.reason == Reason::Unauthorized) {
            on.until = now;
            on.refused = 0;
        }
    }

    /// Lets a probe start now, whatever the reason, because the API or the account is another one. Ignores the answer
    /// of a running probe.
    pub fn renew(&mut self, now: Moment) {
        if let Some(on) = &mut self.on {
            *on = On { until: now, refused: 0, probing: false, ..*on };
        }
    }

    /// Applies a sign; `probe` says whether it comes from the answer to the probe.
    pub fn observe(&mut self, now: Moment, sign: Sign, probe: bool) -> Change {
        let (reason, wait) = match sign {
            Sign::Fine => return self.released(now, probe),
            Sign::Trouble(reason, wait) => (reason, wait),
        };
        let refused = match self.on {
            Some(on) if on.reason == reason => on.refused + u32::from(probe),
            _ => 0,
        };
        let wait = wait.unwrap_or_else(|| match reason {
            Reason::Unauthorized => self.unauthorized.nth(refused),
            Reason::NotSent | Reason::Outage | Reason::Throttled => self.outage.nth(refused),
        });
        let until = now.after(wait);
        match &mut self.on {
            None => {
                self.on = Some(On { reason, since: now, until, refused: 0, probing: false, last_sign: now });
                Change::On(reason)
            }
            Some(on) if probe => {
                let news = on.reason != reason;
                let since = if news { now } else { on.since };
                let until = until.max(on.until);
                *on = On { reason, since, until, refused, probing: false, last_sign: now };
                if news { Change::On(reason) } else { Change::Longer(reason) }
            }
            // This poll was running when the brake went on. A more serious reason replaces the present one. The same
            // reason again changes nothing, because a burst of refusals is one refusal.
            Some(on) if reason > on.reason => {
                *on = On { reason, since: now, until: until.max(on.until), last_sign: now, ..*on };
                Change::On(reason)
            }
            Some(on) if reason == Reason::Throttled && until > on.until => {
                on.until = until;
                Change::Longer(on.reason)
            }
            Some(_) => Change::Nothing,
        }
    }

    fn released(&mut self, now: Moment, probe: bool) -> Change {
        let Some(on) = self.on.as_mut().filter(|_| probe) else { return Change::Nothing };
        on.probing = false;
        // A 429 that arrived while the probe was running still applies.
        if on.until > now {
            return Change::Nothing;
        }
        let reason = on.reason;
        self.on = None;
        Change::Off(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const T0: Moment = Moment::START;
    const UNAUTHORIZED: Sign = Sign::Trouble(Reason::Unauthorized, None);
    const OUTAGE: Sign = Sign::Trouble(Reason::Outage, None);

    fn throttled(seconds: u32) -> Sign {
        Sign::Trouble(Reason::Throttled, Some(seconds * SECOND))
    }

    #[test]
    fn a_wrong_key_stops_all_polls_but_one_probe_with_growing_intervals() {
        let mut brake = Brake::default();
        let mut now = T0;
        assert_eq!(brake.observe(now, UNAUTHORIZED, false), Change::On(Reason::Unauthorized));
        assert_eq!(
            brake.observe(now, UNAUTHORIZED, false),
            Change::Nothing,
            "the other running polls are no news"
        );
        for wait in [5, 10, 20, 40, 60, 60] {
            assert!(!brake.admits(now.after(wait * SECOND - Duration::from_millis(1))));
            now = now.after(wait * SECOND);
            assert!(brake.admits(now) && brake.started());
            assert!(!brake.admits(now), "one probe at a time");
            assert_eq!(brake.observe(now, UNAUTHORIZED, true), Change::Longer(Reason::Unauthorized));
        }
        now = now.after(60 * SECOND);
        assert!(brake.started());
        assert_eq!(
            brake.observe(now, Sign::Fine, false),
            Change::Nothing,
            "a poll from before does not lift it"
        );
        assert_eq!(brake.observe(now, Sign::Fine, true), Change::Off(Reason::Unauthorized));
        assert!(brake.admits(now) && !brake.started());
    }

    #[test]
    fn a_new_key_is_tried_at_once() {
        let mut brake = Brake::default();
        brake.observe(T0, UNAUTHORIZED, false);
        brake.try_now(T0);
        assert!(brake.admits(T0) && brake.started());
        assert_eq!(brake.observe(T0, Sign::Fine, true), Change::Off(Reason::Unauthorized));
    }

    #[test]
    fn a_new_configuration_does_not_shorten_the_time_of_a_429() {
        let mut brake = Brake::default();
        brake.observe(T0, throttled(3600), false);
        brake.try_now(T0);
        assert!(!brake.admits(T0.after(3599 * SECOND)));
    }

    #[test]
    fn several_429s_stop_all_polls_for_the_longest_of_their_waits() {
        let mut brake = Brake::default();
        assert_eq!(brake.observe(T0, throttled(30), false), Change::On(Reason::Throttled));
        assert_eq!(brake.observe(T0, throttled(10), false), Change::Nothing);
        assert_eq!(brake.observe(T0, throttled(40), false), Change::Longer(Reason::Throttled));
        assert!(!brake.admits(T0.after(39 * SECOND)) && brake.admits(T0.after(40 * SECOND)));
    }

    #[test]
    fn a_429_during_a_probe_prolongs_the_brake() {
        let mut brake = Brake::default();
        brake.observe(T0, OUTAGE, false);
        let now = T0.after(SECOND);
        assert!(brake.admits(now) && brake.started());
        assert_eq!(brake.observe(now, throttled(60), false), Change::On(Reason::Throttled));
        assert_eq!(brake.observe(now, Sign::Fine, true), Change::Nothing);
        assert!(!brake.admits(now.after(59 * SECOND)) && brake.admits(now.after(60 * SECOND)));
    }

    #[test]
    fn a_probe_that_fails_for_another_reason_changes_the_reason() {
        let mut brake = Brake::default();
        brake.observe(T0, UNAUTHORIZED, false);
        let now = T0.after(5 * SECOND);
        brake.started();
        assert_eq!(brake.observe(now, OUTAGE, true), Change::On(Reason::Outage));
        assert!(!brake.admits(now) && brake.admits(now.after(SECOND)));
    }

    #[test]
    fn a_brake_from_before_a_restart_ends_by_a_probe() {
        let mut brake = Brake::default();
        brake.restore(Reason::Throttled, T0.after(10 * SECOND), T0);
        assert!(!brake.admits(T0));
        let now = T0.after(10 * SECOND);
        assert!(brake.admits(now) && brake.started() && !brake.admits(now));
        assert_eq!(brake.observe(now, Sign::Fine, true), Change::Off(Reason::Throttled));
    }

    #[test]
    fn a_restored_wait_is_at_most_the_longest_of_its_reason() {
        for (reason, seconds) in [
            (Reason::NotSent, 30),
            (Reason::Outage, 30),
            (Reason::Throttled, 3600),
            (Reason::Unauthorized, 60),
        ] {
            let mut brake = Brake::default();
            brake.restore(reason, T0.after(7200 * SECOND), T0);
            assert!(!brake.admits(T0.after(seconds * SECOND - Duration::from_millis(1))));
            assert!(brake.admits(T0.after(seconds * SECOND)), "{reason:?}");
        }
    }

    #[test]
    fn in_an_outage_a_new_pin_that_has_not_failed_is_probed_within_a_second() {
        let mut brake = Brake::default();
        let mut now = T0;
        brake.observe(now, OUTAGE, false);
        for wait in [1, 2, 4, 8] {
            now = now.after(wait * SECOND);
            brake.started();
            brake.observe(now, OUTAGE, true);
        }
        brake.newcomer(now.after(SECOND / 2));
        assert!(!brake.admits(now.after(SECOND / 2)) && brake.admits(now.after(SECOND)));
        let mut brake = Brake::default();
        brake.observe(T0, throttled(60), false);
        brake.newcomer(T0.after(SECOND));
        assert!(!brake.admits(T0.after(59 * SECOND)), "a 429 asked for silence from everybody");
    }
}
