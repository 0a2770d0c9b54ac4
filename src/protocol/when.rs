//! When something happened: an age such as `10m`, or a time such as `2026-11-28T14:00:00Z`.
//!
//! Pure: the caller passes the current time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// A moment that separates what is older from what is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// This long ago. Something of exactly this age is older.
    Ago(Duration),
    /// At this time. Something that happened exactly then is newer.
    At(Timestamp),
}

impl When {
    /// Whether what happened at `time` is older.
    pub fn is_after(self, time: Timestamp, now: Timestamp) -> bool {
        match self {
            Self::Ago(least) => Duration::try_from(now.duration_since(time)).unwrap_or_default() >= least,
            Self::At(at) => time < at,
        }
    }

    /// The same moment, seen `elapsed` later.
    #[must_use]
    pub fn later(self, elapsed: Duration) -> Self {
        match self {
            Self::Ago(age) => Self::Ago(age.saturating_add(elapsed)),
            Self::At(_) => self,
        }
    }
}

/// The text is neither an age nor a time.
#[derive(Debug, Error)]
#[error("{0:?} is neither an age, such as 30s, 10m or 2h, nor a time, such as 2026-11-28T14:00:00Z")]
pub struct InvalidWhen(String);

impl FromStr for When {
    type Err = InvalidWhen;

    fn from_str(text: &str) -> Result<Self, InvalidWhen> {
        if let Ok(age) = humantime::parse_duration(text) {
            return Ok(Self::Ago(age));
        }
        // Bounds the text that the error message quotes.
        text.parse().map(Self::At).map_err(|_| InvalidWhen(text.chars().take(40).collect()))
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ago(age) => humantime::format_duration(*age).fmt(f),
            Self::At(time) => time.fmt(f),
        }
    }
}

impl Serialize for When {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn an_age_and_a_time_are_read_as_they_are_written_and_nothing_else_is() {
        for text in ["10m", "1h 30m", "0s", "2026-11-28T14:00:00Z", "2026-11-28T14:00:00.25Z"] {
            assert_eq!(text.parse::<When>().unwrap().to_string(), text);
        }
        let with_offset: When = "2026-11-28T16:00:00+02:00".parse().unwrap();
        assert_eq!(with_offset, When::At(time("2026-11-28T14:00:00Z")));
        for wrong in ["", "10", "soon", "2026-11-28", "2026-11-28T14:00:00", "14:00:00Z", "1764338400", "-1h"]
        {
            assert!(wrong.parse::<When>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_has_exactly_the_age_is_older_and_what_happened_exactly_at_the_time_is_newer() {
        let now = time("2026-11-28T14:00:00Z");
        for (when, at, is_older) in [
            ("10m", "2026-11-28T13:50:00Z", true),
            ("10m", "2026-11-28T13:50:00.001Z", false),
            ("0s", "2026-11-28T14:00:01Z", true),
            ("2026-11-28T13:50:00Z", "2026-11-28T13:49:59.999Z", true),
            ("2026-11-28T13:50:00Z", "2026-11-28T13:50:00Z", false),
        ] {
            assert_eq!(when.parse::<When>().unwrap().is_after(time(at), now), is_older, "{when} {at}");
        }
    }
}
