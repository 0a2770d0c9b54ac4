//! `tail`: streams outcome records, one per line, with notices between them.

use serde::{Deserialize, Serialize};

use super::fields::flag;
use super::filter::Filter;
use super::{Record, Refusal, read_answer};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Where to begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Start>,
    /// How many of the newest outcomes to begin with, instead of `from`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
    /// Continues until the client closes the connection.
    #[serde(default, deserialize_with = "flag")]
    pub follow: bool,
    /// Sends [`Answer::Position`] and [`Answer::Removed`] between the records.
    #[serde(default, deserialize_with = "flag", skip_serializing_if = "std::ops::Not::not")]
    pub positions: bool,
    /// Sends only the records that match. Positions still move past the others.
    #[serde(default, skip_serializing_if = "Filter::is_empty")]
    pub filter: Filter,
}

impl Request {
    /// Requests all outcomes from `start` on, with positions, until the client closes the connection.
    pub fn follow(start: Start) -> Self {
        Self { from: Some(start), last: None, follow: true, positions: true, filter: Filter::default() }
    }
}

/// Where a tail begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a seq, or what an answer gave as \"position\"")]
pub enum Start {
    Seq(i64),
    /// An opaque text that only the daemon interprets.
    Position(String),
}

/// A line that is not a record.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// Retention removed the outcomes of this `seq` range before they were sent.
    Removed { removed: Range },
    /// No more outcomes follow. `next` is the `seq` to continue from, for clients that do not use positions.
    End { end: bool, next: i64, position: String },
    /// The position after all records sent so far.
    Position { position: String },
}

/// From the first `seq` to the last, both included.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    pub from: i64,
    pub to: i64,
}

/// Any line of a tail.
#[derive(Debug, PartialEq)]
pub enum Line {
    Record(Box<Record>),
    Notice(Answer),
}

impl Line {
    /// Reads a line. The inner error is the refusal that ended the tail.
    pub fn parse(line: &[u8]) -> serde_json::Result<Result<Self, Refusal>> {
        /// Distinguishes records, which have no `ok`, from all other lines.
        #[derive(Deserialize)]
        struct Kind {
            ok: Option<bool>,
        }
        match serde_json::from_slice::<Kind>(line)?.ok {
            None => serde_json::from_slice(line).map(|record| Ok(Self::Record(record))),
            Some(_) => Ok(read_answer(line)?.map(Self::Notice)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Code, answer, refused};
    use super::*;

    #[test]
    fn a_line_of_a_tail_is_read_as_a_record_a_notice_or_an_error() {
        for (notice, json) in [
            (
                Answer::End { end: true, next: 7, position: "p6".into() },
                r#"{"ok":true,"end":true,"next":7,"position":"p6"}"#,
            ),
            (Answer::Position { position: "p6".into() }, r#"{"ok":true,"position":"p6"}"#),
            (
                Answer::Removed { removed: Range { from: 2, to: 6 } },
                r#"{"ok":true,"removed":{"from":2,"to":6}}"#,
            ),
        ] {
            assert_eq!(answer(&notice), format!("{json}\n"));
            assert_eq!(Line::parse(json.as_bytes()).unwrap(), Ok(Line::Notice(notice)));
        }
        let record = br#"{"seq":6,"id":"x","pinId":"9C81","outcome":"rejected","delivered":null,"error":"no","new":[1]}"#;
        let Ok(Line::Record(record)) = Line::parse(record).unwrap() else { panic!("not a record") };
        assert_eq!((record.seq, record.pin_id.as_str(), record.delivered), (6, "9C81", None));
        let refusal = Code::ShuttingDown.because("bye");
        assert_eq!(Line::parse(refused(&refusal).as_bytes()).unwrap(), Err(refusal));
        assert!(Line::parse(br#"{"ok":true}"#).is_err());
    }
}
