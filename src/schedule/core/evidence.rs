//! The evidence that ends a refused PIN: the rule for a *confirmed* ending in `docs/operations.md`, "What ends a PIN".
//!
//! Guarantees that a short failure of a proxy, a load balancer or a key ends no PIN. Pure. Judges only what answers
//! prove about their own PIN; must not decide anything about other PINs.

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

/// The evidence against a PIN since its last good answer.
#[derive(Debug, Clone, Copy)]
pub struct Evidence {
    pub refusals: Option<Refusals>,
    /// When the last answer came, if it was a 429.
    pub throttled: Option<Moment>,
}

impl Evidence {
    /// Returns the evidence after one more answer; `None` if there is none.
    ///
    /// A 429 and a request that was not sent say nothing about the PIN, so they do not interrupt a row of refusals.
    pub fn after(before: Option<Self>, meaning: &Meaning, now: Moment) -> Option<Self> {
        let (refusals, throttled) = before.map_or((None, None), |before| (before.refusals, before.throttled));
        let after = match meaning {
            Meaning::NotSent(_) => Self { refusals, throttled },
            Meaning::Throttled(_) => Self { refusals, throttled: Some(now) },
            _ => {
                let refusals = Refusal::of(meaning).map(|refusal| Refusals::with(refusals, refusal, now));
                Self { refusals, throttled: None }
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
    count: u32,
    first: Moment,
    /// When the last refusal came, and the one before it.
    last: Moment,
    before: Moment,
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
}

impl Refusals {
    /// Returns the row with one more refusal, or a new row if the refusal is of another kind.
    fn with(row: Option<Self>, refusal: Refusal, now: Moment) -> Self {
        match row.filter(|row| row.refusal == refusal) {
            Some(row) => Self { count: row.count.saturating_add(1), before: row.last, last: now, ..row },
            None => Self { refusal, count: 1, first: now, last: now, before: now },
        }
    }

    /// Returns the ending that this row confirms, if any.
    pub fn confirmed(&self, others: &Others, settings: &config::Schedule) -> Option<Ending> {
        let span = self.last.since(self.first);
        let enough = if self.is_about_the_pin(others) {
            settings.not_found_grace
        } else if self.refusal == Refusal::Forbidden {
            // The key may be wrong, so no PIN is given up.
            return None;
        } else {
            settings.deadline_grace.max(settings.not_found_grace)
        };
        (self.count >= CONFIRMED_AFTER && span >= enough).then(|| self.refusal.ending())
    }

    /// Returns whether the refusals are 401 or 403.
    pub fn is_forbidden(&self) -> bool {
        self.refusal == Refusal::Forbidden
    }

    /// Returns whether the refusals concern this PIN: other PINs got readable answers since the last refusal but one,
    /// and most are not refused. Believes the refusal of a lone PIN, but a forbidden one only if the key worked for
    /// another PIN since its first refusal.
    pub fn is_about_the_pin(&self, others: &Others) -> bool {
        let answered_since = |moment| others.last_readable.is_some_and(|at| at >= moment);
        if others.none {
            return self.refusal != Refusal::Forbidden || answered_since(self.first);
        }
        self.count > 1 && answered_since(self.before) && !others.most_are_refused
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const GRACE: Duration = Duration::from_secs(120);
    const ALONE: Others = Others { none: true, last_readable: None, most_are_refused: false };

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

    /// Returns the row that these answers make, each with the second at which it came.
    fn row(answers: &[(u64, Meaning)]) -> Option<Refusals> {
        let evidence = answers
            .iter()
            .fold(None, |evidence, (second, meaning)| Evidence::after(evidence, meaning, at(*second)));
        evidence?.refusals
    }

    fn rejected() -> Meaning {
        Meaning::Rejected("400".into())
    }

    fn ending(answers: &[(u64, Meaning)], others: Others) -> Option<Ending> {
        row(answers)?.confirmed(&others, &settings())
    }

    fn answered_at(second: u64) -> Others {
        Others { none: false, last_readable: Some(at(second)), most_are_refused: false }
    }

    #[test]
    fn three_refusals_over_the_grace_end_a_pin_while_others_are_answered() {
        for (meaning, expected) in [
            (Meaning::NotFound, Ending::NotFound),
            (rejected(), Ending::Rejected),
            (Meaning::Unauthorized(403), Ending::Rejected),
        ] {
            let answers = [(0, meaning.clone()), (60, meaning.clone()), (120, meaning.clone())];
            assert_eq!(ending(&answers, answered_at(90)), Some(expected));
            assert_eq!(ending(&answers[..2], answered_at(90)), None, "two are too few");
            let soon = [(0, meaning.clone()), (60, meaning.clone()), (119, meaning.clone())];
            assert_eq!(ending(&soon, answered_at(90)), None, "the grace is not over");
            assert_eq!(ending(&answers, answered_at(59)), None, "others were answered before, not since");
            let everywhere = Others { most_are_refused: true, ..answered_at(90) };
            assert_eq!(ending(&answers, everywhere), None, "most others are refused too");
        }
    }

    #[test]
    fn a_lone_pin_can_end_as_not_found_but_not_by_wrong_credentials() {
        let of = |meaning: Meaning| [(0, meaning.clone()), (60, meaning.clone()), (120, meaning)];
        assert_eq!(ending(&of(Meaning::NotFound), ALONE), Some(Ending::NotFound));
        assert_eq!(ending(&of(Meaning::Unauthorized(401)), ALONE), None);
    }

    #[test]
    fn without_answers_for_others_a_refusal_is_confirmed_after_the_deadline_grace() {
        let nobody = Others { none: false, last_readable: None, most_are_refused: true };
        let until = |second| [(0, Meaning::NotFound), (60, Meaning::NotFound), (second, Meaning::NotFound)];
        assert_eq!(ending(&until(3599), nobody), None);
        assert_eq!(ending(&until(3600), nobody), Some(Ending::NotFound));
        let forbidden = [0, 60, 7200].map(|second| (second, Meaning::Unauthorized(401)));
        assert_eq!(ending(&forbidden, nobody), None, "a wrong key gives up no PIN");
    }

    #[test]
    fn a_different_answer_restarts_the_count_of_refusals_and_a_failed_send_does_not() {
        let with = |between: Meaning| {
            [(0, Meaning::NotFound), (60, Meaning::NotFound), (90, between), (120, Meaning::NotFound)]
        };
        for between in [
            Meaning::Deliveries(vec![]),
            Meaning::Unreadable("HTML".into()),
            Meaning::Unavailable("503".into()),
            rejected(),
        ] {
            assert_eq!(ending(&with(between), answered_at(110)), None);
        }
        for between in [Meaning::NotSent("EMFILE".into()), Meaning::Throttled(SECOND)] {
            assert_eq!(ending(&with(between), answered_at(110)), Some(Ending::NotFound));
        }
    }

    #[test]
    fn a_429_ends_no_pin_even_if_it_is_repeated() {
        let answers: Vec<_> = (0..100).map(|n| (n * 60, Meaning::Throttled(SECOND))).collect();
        assert_eq!(ending(&answers, answered_at(98 * 60)), None);
    }
}
