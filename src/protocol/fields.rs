//! Values that several operations share.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use super::error::{Code, Refusal};
use super::filter::{About, Filter};
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

/// The outcomes that a request selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The newest outcome of this PIN, or all of its dead letters.
    Pin(PinId),
    /// From the first `seq` to the last, both included.
    Range(i64, i64),
    /// A part of those that match: it begins after the `next` of the part before.
    Matching(Filter, Option<String>),
}

impl Selection {
    /// Returns what a request selects by `pinId`, by `from` and `to`, or by `filter`; an empty one only with `all`.
    ///
    /// # Errors
    /// It selects nothing, or in more than one way, or the filter has no meaning for outcomes at a sink.
    pub fn of(
        pin_id: Option<PinId>,
        from: Option<i64>,
        to: Option<i64>,
        filter: Filter,
        all: bool,
        after: Option<String>,
    ) -> Result<Self, Refusal> {
        filter.check(About::OutcomesAtSink)?;
        let is_matching = !filter.is_empty() || all;
        match (pin_id, from, to) {
            (None, None, None) if is_matching => Ok(Self::Matching(filter, after)),
            _ if is_matching => Err(Code::InvalidRequest
                .because("\"filter\" and \"all\" do not go with \"pinId\", \"from\" and \"to\"")),
            _ if after.is_some() => {
                Err(Code::InvalidRequest.because("\"after\" goes with \"filter\" or \"all\""))
            }
            (Some(pin), None, None) => Ok(Self::Pin(pin)),
            (None, Some(from), Some(to)) if from <= to => Ok(Self::Range(from, to)),
            _ => Err(Code::InvalidRequest.because(
                "say which outcomes: \"pinId\", or \"from\" and \"to\", two seqs in their order, or a \"filter\"; an empty filter \
                 matches all of them: give \"all\":true if you mean that",
            )),
        }
    }
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
    fn a_selection_is_a_pin_an_ascending_range_or_a_filter() {
        let pin: PinId = "A".parse().unwrap();
        let named = |pin_id, from, to| Selection::of(pin_id, from, to, Filter::default(), false, None);
        assert_eq!(named(Some(pin.clone()), None, None), Ok(Selection::Pin(pin.clone())));
        assert_eq!(named(None, Some(7), Some(7)), Ok(Selection::Range(7, 7)));
        for (pin_id, from, to) in [
            (None, None, None),
            (None, Some(9), Some(1)),
            (None, Some(1), None),
            (None, None, Some(1)),
            (Some(pin.clone()), Some(1), Some(2)),
        ] {
            assert_eq!(named(pin_id, from, to).unwrap_err().code, Code::InvalidRequest);
        }
        let filter = Filter::default().with_reference("a*");
        let after = Some("p7".to_owned());
        let matching = |filter: &Filter, all, after: &Option<String>| {
            Selection::of(None, None, None, filter.clone(), all, after.clone())
        };
        for all in [false, true] {
            let expected = Selection::Matching(filter.clone(), after.clone());
            assert_eq!(matching(&filter, all, &after), Ok(expected));
        }
        let none = Filter::default();
        assert_eq!(matching(&none, true, &None), Ok(Selection::Matching(none.clone(), None)));
        assert!(matching(&none, false, &None).is_err() && matching(&none, false, &after).is_err());
        assert!(Selection::of(Some(pin.clone()), None, None, filter, false, None).is_err());
        assert!(Selection::of(Some(pin), None, None, none.clone(), true, None).is_err());
        assert!(Selection::of(None, Some(1), Some(2), none, false, after).is_err());
    }
}
