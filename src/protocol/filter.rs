//! `filter`: which PINs in flight, or which outcomes, a request is about.
//!
//! One type for all operations. [`Filter::check`] is the one place that says which members an operation accepts; a
//! member that would have no meaning is refused, so that nobody acts on more than was meant. Compares references byte by
//! byte: no character is special. Pure: must not know the store or the schedule.

use std::fmt;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::fields::duration;
use super::{Code, Record, Refusal};

/// Every member that is given must match. A filter without members matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Filter {
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub state: Option<Phase>,
    /// The whole reference.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// How the reference begins; the empty text matches every PIN that has a reference.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub reference_prefix: Option<String>,
    /// The status that the API gave last, as `show` has it. Of a PIN in flight only the node that polls it knows the
    /// status: the PINs of other nodes do not match.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The least age: for PINs in flight since they were submitted, for outcomes since the PIN finished.
    #[serde(
        serialize_with = "duration::serialize",
        deserialize_with = "given_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub older_than: Option<Duration>,
    /// The age must be below this one.
    #[serde(
        serialize_with = "duration::serialize",
        deserialize_with = "given_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub newer_than: Option<Duration>,
}

/// Reads a member that is given. It may not be null: who writes null may mean something else than "any".
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fn given_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let duration = duration::deserialize(deserializer)?;
    duration
        .map(Some)
        .ok_or_else(|| D::Error::custom("must be a time with its unit, such as \"10m\", and is null"))
}

/// How far a PIN is, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// `count`, `cancel_matching`
    InFlight,
    /// `tail`
    Outcomes,
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
            (About::Outcomes, Some(Phase::InFlight)) => {
                return refuse("a PIN in flight has no outcome yet: give another \"state\", or none");
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

    /// The filter that matches now what this one matched `elapsed` ago, as far as ages decide: nothing that came
    /// since.
    #[must_use]
    pub fn as_of(&self, elapsed: Duration) -> Self {
        Self {
            older_than: Some(self.older_than.unwrap_or_default().saturating_add(elapsed)),
            newer_than: self.newer_than.map(|newer| newer.saturating_add(elapsed)),
            ..self.clone()
        }
    }

    /// Whether an outcome of this age matches.
    pub fn matches(&self, record: &Record, age: Duration) -> bool {
        let reference = record.reference.as_deref();
        let in_state = match self.state {
            None | Some(Phase::Finished) => true,
            Some(state) => record.outcome == state.as_str(),
        };
        in_state
            && self.reference.as_deref().is_none_or(|wanted| reference == Some(wanted))
            && self
                .reference_prefix
                .as_deref()
                .is_none_or(|prefix| reference.is_some_and(|reference| reference.starts_with(prefix)))
            && self.status.as_deref().is_none_or(|wanted| record.status.as_deref() == Some(wanted))
            && self.older_than.is_none_or(|least| age >= least)
            && self.newer_than.is_none_or(|below| age < below)
    }
}

/// The filter in words, as a preview shows it.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |duration| humantime::format_duration(duration).to_string();
        let parts = [
            self.state.map(|state| format!("state {}", state.as_str())),
            self.reference.as_ref().map(|reference| format!("reference {reference}")),
            self.reference_prefix.as_ref().map(|prefix| format!("reference {prefix}*")),
            self.status.as_ref().map(|status| format!("status {status}")),
            self.older_than.map(|older| format!("older than {}", time(older))),
            self.newer_than.map(|newer| format!("newer than {}", time(newer))),
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
        }))
        .unwrap()
    }

    #[test]
    fn a_written_filter_is_read_back_and_unknown_members_are_refused() {
        let filter = Filter {
            state: Some(Phase::NotFound),
            status: Some("SENT".into()),
            older_than: Some(Duration::from_secs(600)),
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
            r#"{"olderThan":null}"#,
            r#"{"status":null}"#,
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
            filter.matches(&record(reference), Duration::ZERO)
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
        let old = Duration::from_secs(60);
        for (json, expected) in [
            ("{}", true),
            (r#"{"state":"finished"}"#, true),
            (r#"{"state":"rejected","status":"FAILED"}"#, true),
            (r#"{"state":"final"}"#, false),
            (r#"{"status":"failed"}"#, false),
            (r#"{"olderThan":"1m"}"#, true),
            (r#"{"newerThan":"1m"}"#, false),
            (r#"{"newerThan":"61s","olderThan":"59s"}"#, true),
        ] {
            assert_eq!(read(json).unwrap().matches(&record(None), old), expected, "{json}");
        }
    }

    #[test]
    fn a_filter_member_that_does_not_apply_is_refused() {
        for (json, about, expected) in [
            (r#"{"state":"in_flight"}"#, About::InFlight, true),
            (r#"{"state":"rejected"}"#, About::InFlight, false),
            (r#"{"state":"in_flight"}"#, About::Outcomes, false),
            (r#"{"state":"rejected"}"#, About::Either, true),
        ] {
            assert_eq!(read(json).unwrap().check(about).is_ok(), expected, "{json} {about:?}");
        }
    }

    #[test]
    fn a_filter_as_of_its_preview_excludes_newer_pins() {
        let filter = read(r#"{"olderThan":"10m","newerThan":"1h"}"#).unwrap().as_of(Duration::from_secs(5));
        assert_eq!(filter, read(r#"{"olderThan":"10m 5s","newerThan":"1h 5s"}"#).unwrap());
        assert_eq!(Filter::default().as_of(Duration::from_secs(5)), read(r#"{"olderThan":"5s"}"#).unwrap());
    }
}
