//! `submit`: accepts a PIN durably; the daemon then polls it until it has an outcome.

use std::borrow::Cow;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::fields::{duration, flag, parse_duration};
use super::{Raw, Record, State};
use crate::config::YEAR;
use crate::outcome::Metadata;
use crate::pin::PinId;

/// The deepest nesting of metadata, which every reader of outcomes can handle.
const MAX_METADATA_DEPTH: usize = 32;

/// Also the format of a JSON line in a file of PINs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    pub pin_id: PinId,
    /// The submitter's own name for the PIN; copied to the outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Any JSON; copied to the outcome.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "metadata")]
    pub metadata: Option<Metadata>,
    /// The PIN's own time to live, which replaces `schedule.deadline`.
    #[serde(
        default,
        deserialize_with = "deadline",
        serialize_with = "duration::serialize",
        skip_serializing_if = "Option::is_none"
    )]
    pub deadline: Option<Duration>,
    /// Polls the PIN again if it has already finished.
    #[serde(default, deserialize_with = "flag", skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

impl Request {
    /// Returns a request for this PIN without further fields.
    pub fn of(pin_id: PinId) -> Self {
        Self { pin_id, reference: None, metadata: None, deadline: None, again: false }
    }
}

/// Also the answer to `cancel`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    pub pin_id: PinId,
    /// `accepted`, `duplicate` or `finished`.
    pub state: State,
    /// The outcome, if the state is `finished`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Raw<Record>>,
}

/// Appends the line of an [`Answer`] to `out`.
///
/// Bypasses serde, because the daemon writes a hundred thousand of these per second, and neither a PIN ID nor a
/// record needs escaping.
pub fn write_answer(pin: &PinId, state: State, outcome: Option<&str>, out: &mut Vec<u8>) {
    for part in [r#"{"ok":true,"pinId":""#, pin.as_str(), r#"","state":""#, state.as_str(), "\""] {
        out.extend_from_slice(part.as_bytes());
    }
    if let Some(record) = outcome {
        out.extend_from_slice(br#","outcome":"#);
        out.extend_from_slice(record.as_bytes());
    }
    out.extend_from_slice(b"}\n");
}

/// Reads how long a PIN may be in flight: more than 0 and at most one year, as `schedule.deadline`.
pub fn parse_deadline(text: &str) -> Result<Duration, String> {
    let deadline = parse_duration(text).map_err(|error| error.to_string())?;
    if deadline.is_zero() || deadline > YEAR {
        return Err("a deadline is more than 0 and at most 1year (365.25 days)".to_owned());
    }
    Ok(deadline)
}

fn deadline<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<Cow<'de, str>>::deserialize(deserializer)?;
    text.map(|text| parse_deadline(&text)).transpose().map_err(D::Error::custom)
}

/// Reads metadata; `null` is none.
fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Metadata>, D::Error> {
    let metadata = Option::<Metadata>::deserialize(deserializer)?;
    if metadata.as_ref().is_some_and(|metadata| depth(metadata.get()) > MAX_METADATA_DEPTH) {
        return Err(D::Error::custom(format!("metadata is nested at most {MAX_METADATA_DEPTH} deep")));
    }
    Ok(metadata)
}

/// Returns the nesting depth of valid JSON.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::super::answer;
    use super::*;

    #[test]
    fn the_answer_that_is_written_by_hand_is_the_one_that_serde_writes() {
        let pin_id: PinId = "9C817C6F8AF3D48F9FE553282AFA2B67".parse().unwrap();
        let record = r#"{"seq":1,"reference":"a\u2028b","n":1.50}"#;
        for state in [State::Accepted, State::Duplicate, State::Finished, State::Cancelled] {
            for outcome in [None, Some(record)] {
                let mut line = Vec::new();
                write_answer(&pin_id, state, outcome, &mut line);
                let outcome = outcome.map(|record| Raw::from_json(record).unwrap());
                let expected = answer(&Answer { pin_id: pin_id.clone(), state, outcome });
                assert_eq!(String::from_utf8(line).unwrap(), expected);
            }
        }
    }
}
