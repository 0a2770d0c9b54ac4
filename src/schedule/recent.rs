//! Remembers the last results of different PINs, to distinguish problems of all PINs from problems of a few.
//!
//! Guarantees that a PIN counts once, however often it is polled: the number of *different* PINs that fail decides
//! what pauses all polling. Pure: the caller passes moments. Bounded by [`REMEMBERED`]. Must not know what follows
//! from its answers.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Moment;
use crate::poll::Meaning;

/// The number of different PINs whose last results are remembered.
const REMEMBERED: usize = 64;

/// The fewest failing PINs that count as an outage.
const ENOUGH: usize = 5;

/// The fewest refused PINs that count as a pattern.
const ENOUGH_REFUSED: usize = 3;

/// The age at which results no longer count: with few PINs in flight, their polls can take hours.
pub const NO_NEWS: Duration = Duration::from_secs(10 * 60);

/// If fewer than [`ENOUGH`] different PINs are polled, an outage is detected once no poll got an answer for this
/// long.
const SILENCE: Duration = Duration::from_secs(10);

/// What an answer says about the API beyond its own PIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A 200 that was understood.
    Readable,
    /// 404, 400 and other 4xx, 401, 403: the API reports no status for this PIN.
    Refused,
    /// 429
    Throttled,
    /// A 200 that was not understood.
    Unreadable,
    /// No answer, or a temporary error.
    Failed,
}

impl Kind {
    /// Returns the kind of an answer; `None` if no request was sent, which says nothing about the API.
    pub fn of(meaning: &Meaning) -> Option<Self> {
        match meaning {
            Meaning::Deliveries(_) => Some(Self::Readable),
            Meaning::NotFound | Meaning::Rejected(_) | Meaning::Unauthorized(_) => Some(Self::Refused),
            Meaning::Throttled(_) => Some(Self::Throttled),
            Meaning::Unreadable(_) => Some(Self::Unreadable),
            Meaning::Unavailable(_) => Some(Self::Failed),
            Meaning::NotSent(_) => None,
        }
    }
}

#[derive(Debug)]
struct Result {
    /// The PIN's generation in the table, which no other PIN has.
    pin: u32,
    at: Moment,
    kind: Kind,
}

/// The last results of different PINs, the oldest first.
#[derive(Debug, Default)]
pub struct Recent {
    results: VecDeque<Result>,
    /// The PINs that last failed again, and when, the oldest first.
    again: VecDeque<(u32, Moment)>,
    /// The failures since the last answer: when the first occurred, and how many there are.
    silence: Option<(Moment, usize)>,
    /// The last two different PINs that got a readable answer, the newer first, and when.
    readable: [Option<(u32, Moment)>; 2],
}

impl Recent {
    /// Records the result of a poll. `failed_before` says that the PIN's previous poll failed too, so that another
    /// failure says nothing new about the API.
    pub fn record(&mut self, pin: u32, now: Moment, kind: Kind, failed_before: bool) {
        if kind == Kind::Failed {
            let silence =
                self.silence.filter(|(since, count)| *count >= ENOUGH || now.since(*since) <= NO_NEWS);
            self.silence = Some(silence.map_or((now, 1), |(since, count)| (since, count + 1)));
        } else {
            self.silence = None;
        }
        if kind == Kind::Readable {
            if self.readable[0].is_none_or(|(other, _)| other != pin) {
                self.readable[1] = self.readable[0];
            }
            self.readable[0] = Some((pin, now));
        }
        self.again.retain(|(other, _)| *other != pin);
        if kind == Kind::Failed && failed_before {
            if self.again.len() >= REMEMBERED {
                self.again.pop_front();
            }
            self.again.push_back((pin, now));
            return;
        }
        if let Some(index) = self.results.iter().position(|result| result.pin == pin) {
            self.results.remove(index);
        }
        while self.results.front().is_some_and(|oldest| now.since(oldest.at) > NO_NEWS)
            || self.results.len() >= REMEMBERED
        {
            self.results.pop_front();
        }
        self.results.push_back(Result { pin, at: now, kind });
    }

    /// Returns whether the API is down: most different PINs fail, or no poll got an answer for [`SILENCE`]. While some
    /// PINs get readable answers, "most" is three quarters, so that an outage of half of the API pauses nobody.
    pub fn is_outage(&self, now: Moment) -> bool {
        let (failed, all) = self.count(Kind::Failed);
        let (readable, _) = self.count(Kind::Readable);
        let are_most = if readable > 0 { failed * 4 >= all * 3 } else { failed * 2 > all };
        let is_silent = |(since, count): (Moment, usize)| count >= ENOUGH && now.since(since) >= SILENCE;
        (failed >= ENOUGH && are_most) || self.silence.is_some_and(is_silent)
    }

    /// Returns whether most different PINs were refused; the PINs are then hardly the cause.
    pub fn is_refused_everywhere(&self) -> bool {
        let (refused, all) = self.count(Kind::Refused);
        refused >= ENOUGH_REFUSED && refused * 2 > all
    }

    /// Returns whether most PINs other than `pin` that were polled since `since` got readable answers. Counts those too
    /// that failed again.
    pub fn are_others_readable(&self, pin: u32, since: Moment) -> bool {
        let others = || self.results.iter().filter(|result| result.pin != pin && result.at >= since);
        let is_other = |(other, at): &&(u32, Moment)| {
            *other != pin && *at >= since && !others().any(|result| result.pin == *other)
        };
        let all = others().count() + self.again.iter().filter(is_other).count();
        others().filter(|result| result.kind == Kind::Readable).count() * 2 > all
    }

    /// Returns whether 429s concern `pin` alone, whose last 429 came at `since`: another PIN got a readable answer
    /// since, and at most a quarter of the others were throttled.
    pub fn throttles_only(&self, pin: u32, since: Moment) -> bool {
        let others = || self.results.iter().filter(|result| result.pin != pin);
        let throttled = others().filter(|result| result.kind == Kind::Throttled).count();
        let is_answered = |(other, at): &(u32, Moment)| *other != pin && *at >= since;
        self.readable.iter().flatten().any(is_answered) && throttled * 4 <= others().count()
    }

    /// Returns when the newest result came.
    pub fn newest(&self) -> Option<Moment> {
        self.results.back().map(|result| result.at)
    }

    /// Returns when a PIN last got a readable answer.
    pub fn last_readable(&self) -> Option<Moment> {
        self.readable[0].map(|(_, at)| at)
    }

    /// Forgets after a pause what had led to it, because that says nothing about the time after it. Keeps readable
    /// answers: without them, the next few PINs that fail would be most of those that are remembered.
    pub fn pause_ends(&mut self) {
        self.results.retain(|result| result.kind == Kind::Readable);
        self.silence = None;
    }

    fn count(&self, kind: Kind) -> (usize, usize) {
        (self.results.iter().filter(|result| result.kind == kind).count(), self.results.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Moment = Moment::START;
    const SECOND: Duration = Duration::from_secs(1);

    /// Records this result for these PINs at the same moment; returns after each whether it is an outage.
    fn outages(recent: &mut Recent, pins: std::ops::Range<u32>, kind: Kind) -> Vec<bool> {
        pins.map(|pin| {
            recent.record(pin, T0, kind, false);
            recent.is_outage(T0)
        })
        .collect()
    }

    #[test]
    fn five_different_pins_that_fail_are_an_outage_and_one_in_two_is_not() {
        assert_eq!(outages(&mut Recent::default(), 0..5, Kind::Failed), [false, false, false, false, true]);
        let mut recent = Recent::default();
        for pin in 0..100 {
            recent.record(2 * pin, T0, Kind::Readable, false);
            recent.record(2 * pin + 1, T0, Kind::Failed, false);
            assert!(!recent.is_outage(T0));
        }
    }

    #[test]
    fn after_many_good_polls_an_outage_needs_three_quarters_of_the_remembered_pins_to_fail() {
        let mut recent = Recent::default();
        assert!(outages(&mut recent, 0..1000, Kind::Readable).iter().all(|outage| !outage));
        let until_open = outages(&mut recent, 1000..1064, Kind::Failed).iter().position(|outage| *outage);
        assert_eq!(until_open, Some(REMEMBERED * 3 / 4 - 1));
        recent.pause_ends();
        assert!(!recent.is_outage(T0));
    }

    #[test]
    fn after_an_outage_a_few_pins_that_still_fail_begin_no_other_one() {
        let mut recent = Recent::default();
        outages(&mut recent, 0..10, Kind::Readable);
        assert!(outages(&mut recent, 10..60, Kind::Failed).contains(&true));
        recent.pause_ends();
        recent.record(60, T0, Kind::Readable, false);
        assert!(!outages(&mut recent, 61..90, Kind::Failed).contains(&true), "29 of 40");
        assert!(outages(&mut recent, 90..100, Kind::Failed).contains(&true), "39 of 50");
    }

    #[test]
    fn after_many_good_polls_five_polls_without_an_answer_for_ten_seconds_are_an_outage() {
        let mut recent = Recent::default();
        outages(&mut recent, 0..1000, Kind::Readable);
        for second in 0..12 {
            let now = T0.after(second * SECOND);
            recent.record(2000 + second, now, Kind::Failed, false);
            assert_eq!(recent.is_outage(now), second >= 10, "after {second} s");
        }
    }

    #[test]
    fn a_pin_that_fails_a_hundred_times_counts_once() {
        let mut recent = Recent::default();
        for round in 0..100 {
            for pin in 0..4 {
                recent.record(pin, T0, Kind::Failed, round > 0);
            }
            recent.record(1000 + round, T0, Kind::Readable, false);
            assert!(!recent.is_outage(T0.after(100 * SECOND)), "in round {round}");
        }
    }

    #[test]
    fn a_pin_fails_alone_only_if_most_others_are_answered_counting_those_that_fail_again() {
        let mut recent = Recent::default();
        outages(&mut recent, 0..20, Kind::Failed);
        recent.pause_ends();
        let now = T0.after(SECOND);
        recent.record(0, now, Kind::Readable, true);
        assert!(recent.are_others_readable(9, now));
        recent.record(1, now, Kind::Failed, true);
        assert!(!recent.are_others_readable(9, now), "one of two");
        assert!(recent.are_others_readable(1, now), "its own failures are not those of others");
        assert!(!recent.are_others_readable(9, now.after(SECOND)), "nobody was polled since");
        recent.record(1, now, Kind::Readable, true);
        assert!(recent.are_others_readable(9, now));
    }

    #[test]
    fn pins_that_failed_before_an_outage_do_not_cause_the_next_one() {
        let mut recent = Recent::default();
        assert!(outages(&mut recent, 0..20, Kind::Failed).contains(&true));
        recent.pause_ends();
        for pin in 0..20 {
            recent.record(pin, T0, Kind::Failed, true);
        }
        assert!(!recent.is_outage(T0));
    }

    #[test]
    fn a_lone_pin_is_in_an_outage_after_ten_seconds_without_any_answer() {
        let mut recent = Recent::default();
        for second in 0..20 {
            let now = T0.after(second * SECOND);
            recent.record(7, now, Kind::Failed, second > 0);
            assert_eq!(recent.is_outage(now), second >= 10, "after {second} s");
        }
        recent.record(8, T0.after(20 * SECOND), Kind::Throttled, false);
        assert!(!recent.is_outage(T0.after(21 * SECOND)), "a 429 is an answer");
    }

    #[test]
    fn old_failures_do_not_count_as_an_outage() {
        let minutes = |count: u32| T0.after(count * 60 * SECOND);
        let mut recent = Recent::default();
        // One PIN, polled every three minutes over a network that loses some packets.
        for n in 0..5 {
            recent.record(7, minutes(3 * n), Kind::Failed, n > 0);
            assert!(!recent.is_outage(minutes(3 * n)), "four polls in ten minutes conclude nothing");
        }
        let mut recent = Recent::default();
        outages(&mut recent, 0..4, Kind::Failed);
        recent.record(9, minutes(11), Kind::Failed, false);
        assert!(!recent.is_outage(minutes(11)), "the first for eleven minutes");
    }

    #[test]
    fn refusals_count_as_general_only_if_most_pins_are_refused() {
        let mut recent = Recent::default();
        outages(&mut recent, 0..32, Kind::Readable);
        outages(&mut recent, 32..64, Kind::Refused);
        assert!(!recent.is_refused_everywhere());
        outages(&mut recent, 64..65, Kind::Refused);
        assert!(recent.is_refused_everywhere());
        outages(&mut recent, 70..102, Kind::Readable);
        assert!(!recent.is_refused_everywhere());
    }

    #[test]
    fn a_429_concerns_one_pin_only_while_others_get_answers() {
        let mut recent = Recent::default();
        outages(&mut recent, 1..10, Kind::Readable);
        recent.record(0, T0.after(SECOND), Kind::Throttled, false);
        assert!(!recent.throttles_only(0, T0.after(SECOND)), "nobody had an answer since");
        recent.record(1, T0.after(2 * SECOND), Kind::Readable, false);
        assert!(recent.throttles_only(0, T0.after(SECOND)));
        outages(&mut recent, 2..8, Kind::Throttled);
        assert!(!recent.throttles_only(0, T0.after(SECOND)), "most others are throttled too");
    }
}
