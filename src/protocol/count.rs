//! `count`: counts what matches a filter, part by part, so that a person sees the number before acting on it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::filter::Filter;

/// What is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", try_from = "Cow<str>")]
pub enum Of {
    /// PINs in flight.
    #[default]
    InFlight,
    Outcomes,
    /// Dead letters: those of `sink`, or of all sinks.
    DeadLetters,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    #[serde(default, skip_serializing_if = "Of::is_in_flight")]
    pub of: Of,
    /// Only with [`Of::DeadLetters`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink: Option<String>,
    #[serde(default)]
    pub filter: Filter,
    /// The `next` of the previous answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

impl TryFrom<Cow<'_, str>> for Of {
    type Error = &'static str;

    fn try_from(name: Cow<str>) -> Result<Self, Self::Error> {
        match &*name {
            "in_flight" => Ok(Self::InFlight),
            "outcomes" => Ok(Self::Outcomes),
            "dead_letters" => Ok(Self::DeadLetters),
            _ => Err("must be in_flight, outcomes or dead_letters"),
        }
    }
}

impl Of {
    fn is_in_flight(&self) -> bool {
        *self == Self::InFlight
    }
}

/// Also the answer to `cancel_matching`, `replay` and `drop`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// How many match in this part, or were acted on. The sum of all parts is exact.
    pub count: u64,
    /// Where the next part begins; absent after the last part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
