//! `filter`: which PINs in flight, or which outcomes, a request is about.
//!
//! One type for all operations. [`Filter::check`] is the one place that says which members an operation accepts; a
//! member that would have no meaning is refused, so that nobody acts on more than was meant. Compares references byte by
//! byte: no character is special. Pure: must not know the store or the schedule.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::when::When;
use super::{Code, Record, Refusal};

/// Every member that is given must match. A filter without members matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default, remote = "Self")]
pub struct Filter {
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub state: Option<Phase>,
    /// The whole reference.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// How the reference begins; the empty text matches every PIN that has a reference.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub reference_prefix: Option<String>,
    /// The API's last status, as in `show`. Only the node that polls a PIN in flight knows its status: the PINs of
    /// other nodes do not match.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Matches what is older than this age or time. The age of a PIN in flight begins with its submission, that of an
    /// outcome with the end of its PIN.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub older_than: Option<When>,
    /// Matches what is newer than this age or time.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub newer_than: Option<When>,
    /// A sink that does not have the outcome: it is still to be delivered, or is a dead letter. This is checked when
    /// the outcome is read.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub sink: Option<String>,
}

impl Serialize for Filter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Filter {
    /// Reads an object. What serde derives would also read an array of the members' values.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Filter;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Filter, A::Error> {
                Filter::deserialize(MapAccessDeserializer::new(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// Reads a member that is given. Refuses null: a client that writes null may mean something other than "any".
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// How far a PIN is, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", try_from = "Cow<str>")]
pub enum Phase {
    InFlight,
    /// Any ending.
    Finished,
    Final,
    Deadline,
    NotFound,
    Rejected,
    Cancelled,
}

impl TryFrom<Cow<'_, str>> for Phase {
    type Error = String;

    fn try_from(name: Cow<str>) -> Result<Self, String> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            format!("a state is one of {names}")
        })
    }
}

impl Phase {
    pub const ALL: [Self; 7] = [
        Self::InFlight,
        Self::Finished,
        Self::Final,
        Self::Deadline,
        Self::NotFound,
        Self::Rejected,
        Self::Cancelled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::InFlight => "in_flight",
            Self::Finished => "finished",
            Self::Final => "final",
            Self::Deadline => "deadline",
            Self::NotFound => "not_found",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What an operation looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// `cancel_matching`, and `count` of PINs in flight
    InFlight,
    /// `tail`, and `count` of outcomes
    Outcomes,
    /// `replay`, `drop`, `dead_letters`, and `count` of dead letters: the request itself names the sink.
    OutcomesAtSink,
    /// `list`: PINs in flight, unless `state` asks for finished ones.
    Either,
}

impl Filter {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether `state` asks for PINs that have finished.
    pub fn is_for_finished(&self) -> bool {
        self.state.is_some_and(|state| state != Phase::InFlight)
    }

    /// # Errors
    /// A member has no meaning for this operation.
    pub fn check(&self, about: About) -> Result<(), Refusal> {
        let refuse = |message: &'static str| Err(Code::InvalidRequest.because(message));
        match (about, self.state) {
            (About::InFlight, Some(_)) if self.is_for_finished() => {
                return refuse(
                    "this operation is for PINs in flight: leave \"state\" out, or give in_flight",
                );
            }
            (About::Outcomes | About::OutcomesAtSink, Some(Phase::InFlight)) => {
                return refuse("a PIN in flight has no outcome yet: give another \"state\", or none");
            }
            _ => {}
        }
        match (about, &self.sink) {
            (About::InFlight, Some(_)) => {
                return refuse(
                    "a PIN in flight has no outcome yet that a sink could have: leave \"sink\" out",
                );
            }
            (About::Either, Some(_)) if !self.is_for_finished() => {
                return refuse(
                    "\"sink\" is for outcomes, and a PIN in flight has none yet: give \"state\" finished, or an ending",
                );
            }
            (About::OutcomesAtSink, Some(_)) => {
                return refuse("the request names its \"sink\" beside the filter, not within it");
            }
            _ => {}
        }
        if [&self.reference, &self.reference_prefix].into_iter().flatten().any(|text| text.contains('\0')) {
            return refuse("a reference to search for has no NUL character");
        }
        Ok(())
    }

    /// Reads a reference as people write it: a `*` at the end means that any text may follow.
    #[must_use]
    pub fn with_reference(self, text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Self { reference_prefix: Some(prefix.to_owned()), ..self },
            None => Self { reference: Some(text.to_owned()), ..self },
        }
    }

    /// Returns a filter whose times match now what those of this one matched `elapsed` ago: nothing that came since.
    #[must_use]
    pub fn as_of(&self, elapsed: Duration, now: Timestamp) -> Self {
        let then = When::Ago(elapsed);
        let older_than = match self.older_than {
            // That time was in the future then, or still is.
            Some(When::At(at)) if !then.is_after(at, now) => then,
            older => older.map_or(then, |older| older.later(elapsed)),
        };
        Self {
            older_than: Some(older_than),
            newer_than: self.newer_than.map(|newer| newer.later(elapsed)),
            ..self.clone()
        }
    }

    /// Whether the record of an outcome matches every member except `sink`, which a record does not show.
    pub fn matches(&self, record: &Record, now: Timestamp) -> bool {
        let reference = record.reference.as_deref();
        let in_state = match self.state {
            None | Some(Phase::Finished) => true,
            Some(state) => record.outcome == state.as_str(),
        };
        let finished_at = record.finished_at.as_deref().and_then(|at| at.parse().ok()).unwrap_or(now);
        in_state
            && self.reference.as_deref().is_none_or(|wanted| reference == Some(wanted))
            && self
                .reference_prefix
                .as_deref()
                .is_none_or(|prefix| reference.is_some_and(|reference| reference.starts_with(prefix)))
            && self.status.as_deref().is_none_or(|wanted| record.status.as_deref() == Some(wanted))
            && self.older_than.is_none_or(|when| when.is_after(finished_at, now))
            && self.newer_than.is_none_or(|when| !when.is_after(finished_at, now))
    }
}

/// The filter in words, as a preview shows it.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = |age: &str, time: &str, when| match when {
            When::Ago(_) => format!("{age} {when}"),
            When::At(_) => format!("{time} {when}"),
        };
        let parts = [
            self.state.map(|state| format!("state {}", state.as_str())),
            self.reference.as_ref().map(|reference| format!("reference {reference}")),
            self.reference_prefix.as_ref().map(|prefix| format!("reference {prefix}*")),
            self.status.as_ref().map(|status| format!("status {status}")),
            self.older_than.map(|older| moment("older than", "before", older)),
            self.newer_than.map(|newer| moment("newer than", "since", newer)),
            self.sink.as_ref().map(|sink| format!("not at sink {sink}")),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        if parts.is_empty() { f.write_str("no filter") } else { f.write_str(&parts.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> serde_json::Result<Filter> {
        serde_json::from_str(json)
    }

    fn record(reference: Option<&str>) -> Record {
        serde_json::from_value(serde_json::json!({
            "seq": 1, "pinId": "P", "outcome": "rejected", "status": "FAILED", "reference": reference,
            "finishedAt": "2026-11-28T13:59:00.000Z",
        }))
        .unwrap()
    }

    /// A minute after the record's end.
    fn now() -> Timestamp {
        "2026-11-28T14:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_written_filter_is_read_back_and_unknown_members_are_refused() {
        let filter = Filter {
            state: Some(Phase::NotFound),
            status: Some("SENT".into()),
            older_than: Some(When::Ago(Duration::from_secs(600))),
            ..Filter::default()
        }
        .with_reference("order-4*");
        let json = r#"{"state":"not_found","referencePrefix":"order-4","status":"SENT","olderThan":"10m"}"#;
        assert_eq!(serde_json::to_string(&filter).unwrap(), json);
        assert_eq!(read(json).unwrap(), filter);
        assert_eq!(filter.to_string(), "state not_found, reference order-4*, status SENT, older than 10m");
        assert!(read("{}").unwrap().is_empty());
        for wrong in [
            r#"{"refrence":"a"}"#,
            r#"{"state":"gone"}"#,
            r#"{"olderThan":10}"#,
            r#"{"olderThan":"10"}"#,
            r#"{"olderThan":"2026-11-28"}"#,
            r#"{"olderThan":null}"#,
            r#"{"sink":null}"#,
            r#"{"status":null}"#,
            r#"{"state":{"final":null}}"#,
            r#"["final"]"#,
            "[]",
            "null",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        for phase in Phase::ALL {
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.as_str());
        }
    }

    #[test]
    fn only_a_trailing_star_is_special_in_a_written_reference_filter() {
        fn matches(filter: Filter, reference: Option<&str>) -> bool {
            filter.matches(&record(reference), now())
        }
        let written = |text: &str| Filter::default().with_reference(text);
        assert!(matches(written("order-4*"), Some("order-42")));
        assert!(!matches(written("order-4"), Some("order-42")));
        assert!(matches(written("a*b"), Some("a*b")) && !matches(written("a*b"), Some("aXb")));
        for special in ["%", "_", "?", "[a]", "É"] {
            assert!(!matches(written(&format!("{special}*")), Some("anything é")), "{special}");
            let with_more = format!("{special}1");
            assert!(matches(written(&format!("{special}*")), Some(&with_more)), "{special}");
        }
        assert!(matches(written("*"), Some("")) && !matches(written("*"), None));
        assert!(written("a\0").check(About::Either).is_err());
    }

    #[test]
    fn each_member_of_a_filter_must_match() {
        for (json, expected) in [
            ("{}", true),
            (r#"{"state":"finished"}"#, true),
            (r#"{"state":"rejected","status":"FAILED"}"#, true),
            (r#"{"state":"final"}"#, false),
            (r#"{"status":"failed"}"#, false),
            (r#"{"olderThan":"1m"}"#, true),
            (r#"{"newerThan":"1m"}"#, false),
            (r#"{"newerThan":"61s","olderThan":"59s"}"#, true),
            (r#"{"olderThan":"2026-11-28T13:59:00Z"}"#, false),
            (r#"{"newerThan":"2026-11-28T13:59:00Z","olderThan":"2026-11-28T14:59:00.001+01:00"}"#, true),
        ] {
            assert_eq!(read(json).unwrap().matches(&record(None), now()), expected, "{json}");
        }
    }

    #[test]
    fn a_filter_member_that_does_not_apply_is_refused() {
        for (json, about, expected) in [
            (r#"{"state":"in_flight"}"#, About::InFlight, true),
            (r#"{"state":"rejected"}"#, About::InFlight, false),
            (r#"{"state":"in_flight"}"#, About::Outcomes, false),
            (r#"{"state":"rejected"}"#, About::Either, true),
            (r#"{"state":"in_flight"}"#, About::OutcomesAtSink, false),
            (r#"{"sink":"hook"}"#, About::InFlight, false),
            (r#"{"sink":"hook"}"#, About::Either, false),
            (r#"{"sink":"hook","state":"in_flight"}"#, About::Either, false),
            (r#"{"sink":"hook","state":"finished"}"#, About::Either, true),
            (r#"{"sink":"hook"}"#, About::Outcomes, true),
            (r#"{"sink":"hook"}"#, About::OutcomesAtSink, false),
        ] {
            assert_eq!(read(json).unwrap().check(about).is_ok(), expected, "{json} {about:?}");
        }
    }

    #[test]
    fn a_filter_as_of_its_preview_excludes_newer_pins() {
        let elapsed = Duration::from_secs(5);
        for (before, after) in [
            ("{}", r#"{"olderThan":"5s"}"#),
            (r#"{"olderThan":"10m","newerThan":"1h"}"#, r#"{"olderThan":"10m 5s","newerThan":"1h 5s"}"#),
            (
                r#"{"newerThan":"2026-11-28T13:00:00Z"}"#,
                r#"{"olderThan":"5s","newerThan":"2026-11-28T13:00:00Z"}"#,
            ),
            (r#"{"olderThan":"2026-11-28T13:59:55Z"}"#, r#"{"olderThan":"2026-11-28T13:59:55Z"}"#),
            (r#"{"olderThan":"2026-11-28T13:59:56Z"}"#, r#"{"olderThan":"5s"}"#),
            (r#"{"olderThan":"2027-01-01T00:00:00Z"}"#, r#"{"olderThan":"5s"}"#),
        ] {
            assert_eq!(read(before).unwrap().as_of(elapsed, now()), read(after).unwrap(), "{before}");
        }
    }

    #[test]
    fn a_filter_in_words_has_every_member() {
        let json = r#"{"state":"finished","referencePrefix":"a","olderThan":"2026-11-28T14:00:00Z",
            "newerThan":"2d","sink":"hook"}"#;
        let words =
            "state finished, reference a*, before 2026-11-28T14:00:00Z, newer than 2days, not at sink hook";
        assert_eq!(read(json).unwrap().to_string(), words);
        assert_eq!(Filter::default().to_string(), "no filter");
    }
}
