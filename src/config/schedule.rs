//! `[schedule]`: when a PIN is polled, and when it is given up.
//!
//! Promises that every interval is positive and no longer than a year, and that the first is no longer than the longest. Must not
//! know how backoff is computed.

use std::time::Duration;

use super::read::{MILLISECOND, YEAR, humantime_text};
use super::section::{Section, section};

section! {
    /// `[schedule]`
    pub struct Schedule {
        /// The first interval; at least a millisecond.
        pub initial_interval: Duration = duration("1s", MILLISECOND..=YEAR),
        /// Each interval is the previous one times this factor; 1 to 10.
        pub multiplier: f64 = number(1.5, 1.0..=10.0, "from 1 to 10"),
        /// The longest interval.
        pub max_interval: Duration = duration("1h", MILLISECOND..=YEAR),
        /// The share of its interval by which a poll may be earlier or later; 0 to less than 1.
        pub randomization_factor: f64 = number(0.2, 0.0..1.0, "from 0 to less than 1"),
        /// The time from its submission until a PIN is given up; at most a year.
        pub deadline: Duration = duration("48h", MILLISECOND..=YEAR),
        /// The time over which refusals (a 404, for example) must continue before they end a PIN, while other PINs are answered.
        pub not_found_grace: Duration = duration("2m", Duration::ZERO..=YEAR),
        /// How long past its deadline a PIN may wait for its last poll while polling pauses; also how long refusals must
        /// continue while no PIN is answered.
        pub deadline_grace: Duration = duration("1h", Duration::ZERO..=YEAR),
        pub completion: Completion = choice("all", &[("all", Completion::All), ("any", Completion::Any)]),
        pub adapt: Adapt =
            choice("off", &[("off", Adapt::Off), ("sooner", Adapt::Sooner), ("fewer", Adapt::Fewer)]),
    }
}

/// Whether the daemon learns when PINs become final and adapts the intervals to that, and for which purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adapt {
    Off,
    /// Notice outcomes sooner, with about as many polls.
    Sooner,
    /// Use fewer polls, and notice outcomes about as soon.
    Fewer,
}

/// How many of several deliveries must be final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    All,
    Any,
}

impl Schedule {
    /// Reads the section, and checks that its intervals fit together.
    pub(super) fn checked(section: &mut Section) -> Option<Self> {
        let schedule = Self::read(section)?;
        if schedule.initial_interval <= schedule.max_interval {
            return Some(schedule);
        }
        // The mistake is in the key that was written; the other one may be a default.
        if section.is_given("max_interval") {
            let initial = humantime_text(schedule.initial_interval);
            section.refuse(
                "max_interval",
                format!("must be at least schedule.initial_interval, which is {initial}"),
            )
        } else {
            let max = humantime_text(schedule.max_interval);
            section
                .refuse("initial_interval", format!("must be at most schedule.max_interval, which is {max}"))
        }
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
                "schedule.initial_interval = \"2h\"",
                "schedule.initial_interval: must be at most schedule.max_interval, which is 1h",
            ),
        ]);
    }

    #[test]
    fn factors_outside_their_ranges_are_refused() {
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

    #[test]
    fn adapt_is_one_of_three_words() {
        table(&[("sooner is taken", "schedule.adapt = \"sooner\"", "")]);
        table(&[(
            "on says too little",
            "schedule.adapt = \"on\"",
            "schedule.adapt: must be \"off\", \"sooner\"",
        )]);
        let adapt = |config| load(config).unwrap().schedule.adapt;
        assert_eq!((adapt(""), adapt("schedule.adapt = \"fewer\"")), (Adapt::Off, Adapt::Fewer));
    }
}
