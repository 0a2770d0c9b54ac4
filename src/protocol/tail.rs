//! `tail`: outcome records, one a line, and notices among them.

use serde::{Deserialize, Serialize};

use super::fields::flag;
use super::{Record, Refusal, read_answer};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Where to begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Start>,
    /// How many of the newest, instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
    /// Goes on until the client hangs up.
    #[serde(default, deserialize_with = "flag")]
    pub follow: bool,
    /// Sends [`Answer::Position`] and [`Answer::Removed`] among the records.
    #[serde(default, deserialize_with = "flag", skip_serializing_if = "std::ops::Not::not")]
    pub positions: bool,
}

impl Request {
    /// All outcomes from `start` on, with positions, until the client hangs up.
    pub fn follow(start: Start) -> Self {
        Self { from: Some(start), last: None, follow: true, positions: true }
    }
}

/// Where a tail begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a seq, or what an answer gave as \"position\"")]
pub enum Start {
    Seq(i64),
    /// Text that only the daemon can read.
    Position(String),
}

/// A line that is no record.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// Outcomes with a seq in this range were removed before they were read.
    Removed { removed: Range },
    /// There are no more. `next`, the `seq` to go on from, is for clients that know no positions.
    End { end: bool, next: i64, position: String },
    /// All records so far are up to here.
    Position { position: String },
}

/// From one `seq` to another, both included.
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
    /// Reads a line; inside, why no more of them come.
    pub fn parse(line: &[u8]) -> serde_json::Result<Result<Self, Refusal>> {
        /// A record has no `ok`.
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
    fn a_line_is_a_record_or_a_notice_or_a_refusal() {
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
