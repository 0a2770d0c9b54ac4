//! `[schedule]`: when a PIN is polled, and when it is given up.
//!
//! Promises: every interval is positive and no longer than a year, and the first is no longer than the
//! longest. Must not know: the arithmetic of backoff.

use std::time::Duration;

use serde::Deserialize;

use super::check::{YEAR, humantime_text};
use super::section::Section;
use super::wire::{Number, Span, Text};

/// `[schedule]`
#[derive(Debug, Clone)]
pub struct Schedule {
    /// The first interval; at least a millisecond.
    pub initial_interval: Duration,
    /// What each interval is multiplied by to give the next; 1 to 10.
    pub multiplier: f64,
    /// No interval gets longer.
    pub max_interval: Duration,
    /// How far from its interval a poll may be, as a part of it; 0 to less than 1.
    pub randomization_factor: f64,
    /// From submission until a PIN is given up; at most a year.
    pub deadline: Duration,
    /// From submission, how long 404 means "not yet".
    pub not_found_grace: Duration,
    /// How long past its deadline a PIN waits for its last poll while an outage keeps it from one.
    pub deadline_grace: Duration,
    pub completion: Completion,
}

/// Of several deliveries, how many must be final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    All,
    Any,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wire {
    initial_interval: Span,
    multiplier: Number,
    max_interval: Span,
    randomization_factor: Number,
    deadline: Span,
    not_found_grace: Span,
    deadline_grace: Span,
    completion: Text,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            initial_interval: Span(Duration::from_secs(1)),
            multiplier: Number(1.5),
            max_interval: Span(Duration::from_secs(10 * 60)),
            randomization_factor: Number(0.2),
            deadline: Span(Duration::from_secs(48 * 60 * 60)),
            not_found_grace: Span(Duration::from_secs(2 * 60)),
            deadline_grace: Span(Duration::from_secs(60 * 60)),
            completion: "all".into(),
        }
    }
}

/// Reads and checks the section; `None` if it is of no use, which is reported then.
pub(super) fn check(mut section: Section) -> Option<Schedule> {
    let wire: Wire = section.read();
    let positive = Duration::from_millis(1)..=YEAR;
    let schedule = Schedule {
        initial_interval: section.duration("initial_interval", wire.initial_interval, positive.clone()),
        multiplier: section
            .number("multiplier", wire.multiplier, "from 1 to 10", |number| (1.0..=10.0).contains(&number)),
        max_interval: section.duration("max_interval", wire.max_interval, positive.clone()),
        randomization_factor: section.number(
            "randomization_factor",
            wire.randomization_factor,
            "from 0 to less than 1",
            |number| (0.0..1.0).contains(&number),
        ),
        deadline: section.duration("deadline", wire.deadline, positive),
        not_found_grace: section.duration("not_found_grace", wire.not_found_grace, Duration::ZERO..=YEAR),
        deadline_grace: section.duration("deadline_grace", wire.deadline_grace, Duration::ZERO..=YEAR),
        completion: section.choice(
            "completion",
            &wire.completion,
            &[("all", Completion::All), ("any", Completion::Any)],
        )?,
    };
    if section.is_clean() && schedule.initial_interval > schedule.max_interval {
        refuse_order(&mut section, &schedule);
    }
    Some(schedule)
}

/// Blames the key that was written; the other one may be a default.
fn refuse_order(section: &mut Section, schedule: &Schedule) {
    let (initial, max) = (humantime_text(schedule.initial_interval), humantime_text(schedule.max_interval));
    if section.has("max_interval") {
        section.refuse(
            "max_interval",
            format!("must be at least schedule.initial_interval, which is {initial}"),
        );
    } else {
        section.refuse("initial_interval", format!("must be at most schedule.max_interval, which is {max}"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{load, table};
    use super::*;

    #[test]
    fn intervals_are_positive_and_in_order() {
        table(&[
            ("two units are taken", "schedule.max_interval = \"1m 30s\"", ""),
            (
                "one interval for all is taken",
                "schedule = {initial_interval = \"5s\", max_interval = \"5s\"}",
                "",
            ),
            (
                "no interval is refused",
                "schedule.initial_interval = \"0s\"",
                "schedule.initial_interval: must be at",
            ),
            (
                "a bare number is refused",
                "schedule.deadline = 48",
                "schedule.deadline: must be a duration with",
            ),
            (
                "so is one in a string",
                "schedule.deadline = \"48\"",
                "schedule.deadline: must be a duration with",
            ),
            (
                "and a bare zero",
                "schedule.not_found_grace = \"0\"",
                "schedule.not_found_grace: must be a duration",
            ),
            (
                "a unit that isn't one is refused",
                "schedule.deadline = \"48 hrss\"",
                "schedule.deadline: must be",
            ),
            ("less than nothing is refused", "schedule.deadline = \"-1s\"", "schedule.deadline: must be"),
            (
                "more than a year is refused",
                "schedule.deadline = \"366days\"",
                "schedule.deadline: must be at least",
            ),
            (
                "more than fits is refused",
                "schedule.deadline = \"99999999999999999y\"",
                "schedule.deadline: must",
            ),
            ("a year is taken as humantime reads it", "schedule.deadline = \"1year\"", ""),
            ("no grace is taken", "schedule.not_found_grace = \"0s\"", ""),
            (
                "the longest may not be shorter than the first",
                "schedule.max_interval = \"500ms\"",
                "schedule.max_interval: must be at least schedule.initial_interval, which is 1s",
            ),
            (
                "the first may not be longer than the longest, and the one that was written is blamed",
                "schedule.initial_interval = \"1h\"",
                "schedule.initial_interval: must be at most schedule.max_interval, which is 10m",
            ),
        ]);
    }

    #[test]
    fn factors_are_numbers_that_make_sense() {
        table(&[
            ("a whole number is taken", "schedule.multiplier = 2", ""),
            (
                "shrinking is refused",
                "schedule.multiplier = 0.9",
                "schedule.multiplier: must be a number from 1 to 10",
            ),
            (
                "infinity is refused",
                "schedule.multiplier = inf",
                "schedule.multiplier: must be a number from 1",
            ),
            (
                "not a number is refused",
                "schedule.multiplier = nan",
                "schedule.multiplier: must be a number from 1",
            ),
            ("no jitter is taken", "schedule.randomization_factor = 0", ""),
            (
                "full jitter is refused",
                "schedule.randomization_factor = 1.0",
                "schedule.randomization_factor: must",
            ),
        ]);
    }

    #[test]
    fn completion_is_one_of_two_words() {
        table(&[
            ("any is taken", "schedule.completion = \"any\"", ""),
            (
                "a typing error is helped",
                "schedule.completion = \"al\"",
                "schedule.completion: must be \"all\" or \"any\"; did you mean \"all\"?",
            ),
            (
                "the words are lower case",
                "schedule.completion = \"ALL\"",
                "schedule.completion: must be \"all\"",
            ),
        ]);
        assert_eq!(load("schedule.completion = \"any\"").unwrap().schedule.completion, Completion::Any);
    }
}
