//! The evidence that ends a refused PIN: the rule for a *confirmed* ending in `docs/operations.md`, "What ends a PIN".
//!
//! Guarantees that a short failure of a proxy, a load balancer or a key ends no PIN. Pure. Judges only what answers
//! prove about their own PIN; must not decide anything about other PINs.

use std::time::Duration;

use super::super::recent::NO_NEWS;
use crate::clock::Moment;
use crate::config;
use crate::outcome::Ending;
use crate::poll::Meaning;

/// The fewest refusals in a row that end a PIN.
const CONFIRMED_AFTER: u32 = 3;

/// How the API refuses to report the status of a PIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 404
    NotFound,
    /// 400 and other 4xx.
    Rejected,
    /// 401 or 403: the key is wrong, or may not read this PIN; `credentials.rs` finds out which.
    Forbidden,
}

impl Refusal {
    /// Returns the refusal in an answer, if it is one.
    pub fn of(meaning: &Meaning) -> Option<Self> {
        match meaning {
            Meaning::NotFound => Some(Self::NotFound),
            Meaning::Rejected(_) => Some(Self::Rejected),
            Meaning::Unauthorized(_) => Some(Self::Forbidden),
            Meaning::Deliveries(_)
            | Meaning::Throttled(_)
            | Meaning::Unreadable(_)
            | Meaning::Unavailable(_)
            | Meaning::NotSent(_) => None,
        }
    }

    /// Returns its status codes, for people.
    pub fn answer(self) -> &'static str {
        match self {
            Self::NotFound => "404",
            Self::Rejected => "4xx",
            Self::Forbidden => "401 or 403",
        }
    }

    /// Returns what to check when most PINs get this answer.
    pub fn advice(self) -> &'static str {
        match self {
            Self::NotFound => "check api.base_url, and the proxy or load balancer in front of the API",
            Self::Rejected => "check that api.base_url and api.path are those of this API",
            Self::Forbidden => "check that the key is right and may read these PINs",
        }
    }

    /// Returns the ending of a PIN once this refusal is confirmed.
    fn ending(self) -> Ending {
        match self {
            Self::NotFound => Ending::NotFound,
            Self::Rejected | Self::Forbidden => Ending::Rejected,
        }
    }
}

/// The evidence against a PIN: its refusals since its last good answer, and its last 429.
#[derive(Debug, Clone, Copy)]
pub struct Evidence {
    pub refusals: Option<Refusals>,
    pub throttled: Option<Throttled>,
}

/// The last 429 of a PIN. It is remembered for [`NO_NEWS`], because an API that limits requests for a PIN answers some
/// of them.
#[derive(Debug, Clone, Copy)]
pub struct Throttled {
    pub at: Moment,
    /// Whether it was the PIN's last answer.
    pub is_last: bool,
}

impl Throttled {
    /// Returns the 429 with another answer after it; `None` if it is too old.
    fn before(self, now: Moment) -> Option<Self> {
        (now.since(self.at) <= NO_NEWS).then_some(Self { is_last: false, ..self })
    }
}

impl Evidence {
    /// Returns the evidence after one more answer; `None` if there is none. `others` is what was known before it.
    ///
    /// A 429 and a request that was not sent say nothing about the PIN, so they do not interrupt a row of refusals.
    pub fn after(before: Option<Self>, meaning: &Meaning, others: &Others, now: Moment) -> Option<Self> {
        let (refusals, throttled) = before.map_or((None, None), |before| (before.refusals, before.throttled));
        let after = match meaning {
            Meaning::NotSent(_) => Self { refusals, throttled },
            Meaning::Throttled(_) => Self { refusals, throttled: Some(Throttled { at: now, is_last: true }) },
            _ => {
                let refusals =
                    Refusal::of(meaning).map(|refusal| Refusals::with(refusals, refusal, others, now));
                Self { refusals, throttled: throttled.and_then(|last| last.before(now)) }
            }
        };
        (after.refusals.is_some() || after.throttled.is_some()).then_some(after)
    }
}

/// A row of equal refusals, interrupted by no answer about the PIN. Every poll after the first refusal uses a new
/// connection, so three refusals come over at least two connections.
#[derive(Debug, Clone, Copy)]
pub struct Refusals {
    refusal: Refusal,
    last: Moment,
    all: Row,
    /// The newest of them, while which other PINs got readable answers.
    own: Row,
}

/// How many refusals there are, and when the first came.
#[derive(Debug, Clone, Copy)]
struct Row {
    first: Moment,
    count: u32,
}

impl Row {
    fn new(now: Moment) -> Self {
        Self { first: now, count: 1 }
    }

    fn longer(self) -> Self {
        Self { count: self.count.saturating_add(1), ..self }
    }

    /// Returns whether these are enough refusals, the last of them at `last`, over this time.
    fn spans(&self, time: Duration, last: Moment) -> bool {
        self.count >= CONFIRMED_AFTER && last.since(self.first) >= time
    }
}

/// What is known about other PINs.
#[derive(Debug, Clone, Copy)]
pub struct Others {
    /// Whether no other PIN is in flight.
    pub none: bool,
    /// When another PIN last got a readable answer.
    pub last_readable: Option<Moment>,
    /// Whether most other PINs are refused too.
    pub most_are_refused: bool,
    /// When all polling was last paused because the key was refused or the API was down.
    pub last_failing: Option<Moment>,
}

impl Others {
    /// Returns whether the API answered other PINs since this moment, and did not fail for all of them meanwhile.
    pub fn were_answered_since(&self, moment: Moment) -> bool {
        self.last_readable.is_some_and(|last| last >= moment)
            && self.last_failing.is_none_or(|last| last < moment)
            && !self.most_are_refused
    }
}

impl Refusals {
    /// Returns the row with one more refusal, or a new row if the refusal is of another kind.
    ///
    /// The PIN's own row begins anew if others were not answered since the refusal before this one: then the API may
    /// have refused everybody, which says nothing about this PIN. Nobody can tell that of a lone PIN, so it is
    /// believed, but a forbidden one only if the key worked for another PIN since the row began.
    fn with(row: Option<Self>, refusal: Refusal, others: &Others, now: Moment) -> Self {
        let Some(row) = row.filter(|row| row.refusal == refusal) else {
            return Self { refusal, last: now, all: Row::new(now), own: Row::new(now) };
        };
        let is_own = if others.none {
            refusal != Refusal::Forbidden || others.last_readable.is_some_and(|at| at >= row.own.first)
        } else {
            others.were_answered_since(row.last)
        };
        let own = if is_own { row.own.longer() } else { Row::new(now) };
        Self { last: now, all: row.all.longer(), own, ..row }
    }

    /// Returns the ending that this row confirms, if any.
    pub fn confirmed(&self, settings: &config::Schedule) -> Option<Ending> {
        let (short, long) = (settings.not_found_grace, settings.deadline_grace.max(settings.not_found_grace));
        // The key may be wrong, so no PIN is given up only because it and all others are forbidden for long.
        let is_confirmed =
            self.own.spans(short, self.last) || !self.is_forbidden() && self.all.spans(long, self.last);
        is_confirmed.then(|| self.refusal.ending())
    }

    /// Returns whether the refusals are 401 or 403.
    pub fn is_forbidden(&self) -> bool {
        self.refusal == Refusal::Forbidden
    }

    /// Returns whether the last refusal concerns this PIN, because others were answered since the one before it.
    pub fn is_about_the_pin(&self) -> bool {
        self.own.count > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const GRACE: Duration = Duration::from_secs(120);
    const ALONE: Others =
        Others { none: true, last_readable: None, most_are_refused: false, last_failing: None };
    const NOBODY: Others = Others { none: false, ..ALONE };

    fn at(seconds: u64) -> Moment {
        Moment::START.after(Duration::from_secs(seconds))
    }

    fn settings() -> config::Schedule {
        config::Schedule {
            initial_interval: SECOND,
            multiplier: 1.5,
            max_interval: 3600 * SECOND,
            randomization_factor: 0.0,
            deadline: 172_800 * SECOND,
            not_found_grace: GRACE,
            deadline_grace: 3600 * SECOND,
            completion: config::Completion::All,
            adapt: config::Adapt::Off,
        }
    }

    fn rejected() -> Meaning {
        Meaning::Rejected("400".into())
    }

    fn answered_at(second: u64) -> Others {
        Others { last_readable: Some(at(second)), ..NOBODY }
    }

    /// An answer, the second at which it came, and what was known about others then.
    type Answer = (u64, Meaning, Others);

    /// The ending that these answers confirm.
    fn ending(answers: &[Answer]) -> Option<Ending> {
        let after = |evidence, (second, meaning, others): &Answer| {
            Evidence::after(evidence, meaning, others, at(*second))
        };
        answers.iter().fold(None, after)?.refusals?.confirmed(&settings())
    }

    /// The same answer at these seconds, each time when another PIN was answered a second ago.
    fn while_answered<const N: usize>(meaning: &Meaning, seconds: [u64; N]) -> [Answer; N] {
        seconds.map(|second| (second, meaning.clone(), answered_at(second.saturating_sub(1))))
    }

    #[test]
    fn three_refusals_over_the_grace_end_a_pin_while_others_are_answered() {
        for (meaning, expected) in [
            (Meaning::NotFound, Ending::NotFound),
            (rejected(), Ending::Rejected),
            (Meaning::Unauthorized(403), Ending::Rejected),
        ] {
            let answers = while_answered(&meaning, [0, 60, 120]);
            assert_eq!(ending(&answers), Some(expected));
            assert_eq!(ending(&answers[..2]), None, "two are too few");
            let soon = while_answered(&meaning, [0, 60, 119]);
            assert_eq!(ending(&soon), None, "the grace is not over");
        }
    }

    #[test]
    fn refusals_from_a_time_when_the_api_failed_for_all_do_not_count_when_it_answers_again() {
        for meaning in [Meaning::NotFound, rejected(), Meaning::Unauthorized(401)] {
            for wrong in [
                NOBODY,
                answered_at(59),
                Others { most_are_refused: true, ..answered_at(119) },
                Others { last_failing: Some(at(60)), ..answered_at(119) },
            ] {
                let mut answers = while_answered(&meaning, [0, 60, 120, 180, 240]).to_vec();
                answers[2].2 = wrong;
                assert_eq!(ending(&answers[..3]), None, "{meaning:?} {wrong:?}");
                assert_eq!(ending(&answers[..4]), None, "two since are too few");
                assert!(ending(&answers).is_some(), "three since, over two minutes");
            }
        }
    }

    #[test]
    fn a_lone_pin_can_end_as_not_found_but_not_by_wrong_credentials() {
        let alone = |meaning: Meaning| [0, 60, 120].map(|second| (second, meaning.clone(), ALONE));
        assert_eq!(ending(&alone(Meaning::NotFound)), Some(Ending::NotFound));
        assert_eq!(ending(&alone(Meaning::Unauthorized(401))), None);
        // The key worked for another PIN, which has ended since.
        let known = Others { none: true, ..answered_at(1) };
        let left = [(0, NOBODY), (60, answered_at(1)), (120, known)];
        assert_eq!(
            ending(&left.map(|(s, others)| (s, Meaning::Unauthorized(403), others))),
            Some(Ending::Rejected)
        );
    }

    #[test]
    fn without_answers_for_others_a_refusal_is_confirmed_after_the_deadline_grace() {
        let nobody = Others { most_are_refused: true, ..NOBODY };
        let until = |meaning: Meaning, second| [0, 60, second].map(|at| (at, meaning.clone(), nobody));
        assert_eq!(ending(&until(Meaning::NotFound, 3599)), None);
        assert_eq!(ending(&until(Meaning::NotFound, 3600)), Some(Ending::NotFound));
        assert_eq!(ending(&until(Meaning::Unauthorized(401), 7200)), None, "a wrong key gives up no PIN");
    }

    #[test]
    fn a_different_answer_restarts_the_count_of_refusals_and_a_failed_send_does_not() {
        let with = |between: Meaning| {
            let mut answers = while_answered(&Meaning::NotFound, [0, 60, 90, 120]);
            answers[2].1 = between;
            answers
        };
        for between in [
            Meaning::Deliveries(vec![]),
            Meaning::Unreadable("HTML".into()),
            Meaning::Unavailable("503".into()),
            rejected(),
        ] {
            assert_eq!(ending(&with(between)), None);
        }
        for between in [Meaning::NotSent("EMFILE".into()), Meaning::Throttled(SECOND)] {
            assert_eq!(ending(&with(between)), Some(Ending::NotFound));
        }
    }

    #[test]
    fn a_429_ends_no_pin_even_if_it_is_repeated() {
        let answers: Vec<_> =
            (1..100).map(|n| (n * 60, Meaning::Throttled(SECOND), answered_at(n * 60 - 1))).collect();
        assert_eq!(ending(&answers), None);
    }
}
