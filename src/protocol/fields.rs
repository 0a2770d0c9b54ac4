//! Values that several operations share.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use super::error::{Code, Refusal};
use crate::pin::PinId;

/// The most items on one page, whatever the client asks for.
pub const MAX_PAGE: u32 = 1000;

/// Returns the number of items on a page: what the client asks for, from 1 to [`MAX_PAGE`]; 100 by default.
pub fn page_limit(asked: Option<u32>) -> u32 {
    asked.unwrap_or(100).clamp(1, MAX_PAGE)
}

/// The state of a PIN in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// `submit`: the PIN is now durably in flight.
    Accepted,
    /// `submit`: the PIN was already in flight.
    Duplicate,
    /// `show`: the PIN is in flight.
    InFlight,
    /// The PIN already has an outcome.
    Finished,
    /// `cancel`: the PIN is withdrawn.
    Cancelled,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::InFlight => "in_flight",
            Self::Finished => "finished",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Reads a boolean; `null` is false.
pub fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a duration with its unit: `"90s"`, `"15m"`, `"1h 30m"`.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidDuration> {
    // Bounds the text that the error message quotes.
    humantime::parse_duration(text).map_err(|_| InvalidDuration(text.chars().take(40).collect()))
}

/// The error for a text that is not a duration.
#[derive(Debug, Error)]
#[error("{0:?} is not a duration with its unit, such as 30s, 10m or 2h")]
pub struct InvalidDuration(String);

/// Serde functions for durations as text with a unit.
pub mod duration {
    use std::borrow::Cow;
    use std::time::Duration;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => serializer.collect_str(&humantime::format_duration(*duration)),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let text = Option::<Cow<'de, str>>::deserialize(deserializer)?;
        text.map(|text| super::parse_duration(&text)).transpose().map_err(D::Error::custom)
    }
}

/// The outcomes that a request selects by `pinId`, or by `from` and `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The newest outcome of this PIN, or all of its dead letters.
    Pin(PinId),
    /// From the first `seq` to the last, both included.
    Range(i64, i64),
}

impl Selection {
    /// Returns what the fields of a request select; `None` if all are absent.
    pub fn of(pin_id: Option<PinId>, from: Option<i64>, to: Option<i64>) -> Result<Option<Self>, Refusal> {
        match (pin_id, from, to) {
            (None, None, None) => Ok(None),
            (Some(pin), None, None) => Ok(Some(Self::Pin(pin))),
            (None, Some(from), Some(to)) if from <= to => Ok(Some(Self::Range(from, to))),
            _ => Err(invalid_selection()),
        }
    }

    /// As [`Selection::of`], but refuses a request that selects nothing.
    pub fn required(pin_id: Option<PinId>, from: Option<i64>, to: Option<i64>) -> Result<Self, Refusal> {
        Self::of(pin_id, from, to)?.ok_or_else(invalid_selection)
    }
}

fn invalid_selection() -> Refusal {
    Code::InvalidRequest
        .because("say which outcomes: \"pinId\", or \"from\" and \"to\", two seqs in their order")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_has_the_same_name_in_json_and_in_text() {
        use State::*;
        for state in [Accepted, Duplicate, InFlight, Finished, Cancelled] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }

    #[test]
    fn a_selection_must_be_a_pin_or_an_ascending_range() {
        let pin: PinId = "A".parse().unwrap();
        assert_eq!(Selection::required(Some(pin.clone()), None, None), Ok(Selection::Pin(pin.clone())));
        assert_eq!(Selection::required(None, Some(7), Some(7)), Ok(Selection::Range(7, 7)));
        assert_eq!(Selection::of(None, None, None), Ok(None));
        for (pin_id, from, to) in [
            (None, Some(9), Some(1)),
            (None, Some(1), None),
            (None, None, Some(1)),
            (Some(pin), Some(1), Some(2)),
        ] {
            assert_eq!(Selection::of(pin_id, from, to).unwrap_err().code, Code::InvalidRequest);
        }
        assert!(Selection::required(None, None, None).is_err());
    }
}
