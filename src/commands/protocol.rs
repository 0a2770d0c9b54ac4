//! The lines of the local socket, as a client sees them: requests that it writes, answers that it reads.
//!
//! Promises to ignore members that it doesn't know, so a newer daemon still serves an older client. Outcome
//! records are kept as the bytes that came, so what `--json` prints is what every sink gets. Knows no socket.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::outcome::Metadata;

/// One request line.
#[derive(Debug, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request<'a> {
    Submit(&'a Submission),
    #[serde(rename_all = "camelCase")]
    Show {
        pin_id: &'a str,
    },
    #[serde(rename_all = "camelCase")]
    Cancel {
        pin_id: &'a str,
    },
    List {
        limit: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<&'a str>,
    },
    /// Outcome records from `from` on, or the `last` ones that there are.
    Tail {
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<i64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        last: Option<u64>,
        follow: bool,
    },
    DeadLetters {
        #[serde(skip_serializing_if = "Option::is_none")]
        sink: Option<&'a str>,
        #[serde(flatten)]
        which: Option<Which<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<&'a str>,
        limit: u64,
    },
    /// Deliver outcomes again; with `dead` only those that are dead letters.
    Replay {
        sink: &'a str,
        #[serde(flatten)]
        which: Which<'a>,
        dead: bool,
    },
    /// Give dead letters up.
    Drop {
        sink: &'a str,
        #[serde(flatten)]
        which: Which<'a>,
    },
    ForgetSink {
        sink: &'a str,
    },
    Stats,
    Nodes,
    Ping,
}

/// Which outcomes are meant.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
pub enum Which<'a> {
    #[serde(rename_all = "camelCase")]
    Pin { pin_id: &'a str },
    /// Both included.
    Range { from: i64, to: i64 },
}

impl Request<'_> {
    /// The request as it goes over the socket, with its newline.
    pub fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self)
            .expect("a struct of strings, numbers and checked JSON always serializes");
        line.push(b'\n');
        line
    }
}

/// A PIN to submit, with what goes along. Also the shape of a JSON line in a file of PINs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Submission {
    pub pin_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    /// A duration, such as `30m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

/// What the daemon says when it does not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{message} ({code})")]
pub struct Refusal {
    pub code: String,
    #[serde(default)]
    pub message: String,
}

impl Refusal {
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into() }
    }

    /// Whether it is about the daemon as it is now, and not about what was asked: worth another try.
    pub fn is_passing(&self) -> bool {
        matches!(self.code.as_str(), "shutting_down" | "store_unavailable")
    }

    pub fn is_not_found(&self) -> bool {
        self.code == "not_found"
    }
}

/// What every answer has.
#[derive(Debug, Deserialize)]
pub struct Envelope {
    pub ok: bool,
    pub error: Option<Refusal>,
}

/// Answer to `submit`, and to `cancel`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    pub pin_id: String,
    pub state: String,
    pub outcome: Option<Box<RawValue>>,
}

/// Answer to `show`.
#[derive(Debug, Deserialize)]
pub struct Shown {
    pub pin: Box<RawValue>,
}

/// A PIN's whole story.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Story {
    pub pin_id: String,
    pub state: String,
    pub submitted_at: Option<String>,
    pub deadline_at: Option<String>,
    pub polls: Option<u64>,
    pub last_answer: Option<LastAnswer>,
    pub next_poll: Option<NextPoll>,
    pub reference: Option<String>,
    pub metadata: Option<Box<RawValue>>,
    pub outcome: Option<Box<RawValue>>,
    #[serde(default)]
    pub sinks: Vec<SinkState>,
}

#[derive(Debug, Deserialize)]
pub struct LastAnswer {
    pub at: String,
    pub what: String,
}

#[derive(Debug, Deserialize)]
pub struct NextPoll {
    /// None while it is polled.
    pub at: Option<String>,
    pub why: String,
}

/// Whether a sink has the outcome.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SinkState {
    pub name: String,
    pub state: String,
    pub since: Option<String>,
    pub tries: Option<u64>,
    pub last_error: Option<String>,
}

/// Answer to `list`.
#[derive(Debug, Deserialize)]
pub struct Page {
    pub pins: Vec<Box<RawValue>>,
    /// Where the next page begins; none after the last.
    pub next: Option<String>,
}

/// A PIN in flight, in a list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    pub pin_id: String,
    pub submitted_at: Option<String>,
    pub deadline_at: Option<String>,
    pub polls: Option<u64>,
    pub last_status: Option<String>,
    pub next_poll_at: Option<String>,
}

/// Answer to `stats`.
#[derive(Debug, Deserialize)]
pub struct Numbers {
    pub stats: serde_json::Value,
}

/// Answer to `stats`, of which only the sinks are read; each by its name.
#[derive(Debug, Deserialize)]
pub struct SinksOfStats {
    pub stats: OnlySinks,
}

#[derive(Debug, Deserialize)]
pub struct OnlySinks {
    pub sinks: serde_json::Map<String, serde_json::Value>,
}

/// How one sink is.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SinkNumbers {
    pub configured: Option<bool>,
    pub cursor: Option<i64>,
    pub behind: Option<i64>,
    pub retrying: Option<i64>,
    pub dead_letters: Option<i64>,
    pub trouble: Option<Trouble>,
}

/// What stops a sink, and since when.
#[derive(Debug, Deserialize)]
pub struct Trouble {
    pub since: String,
    pub what: String,
}

/// Answer to `nodes`.
#[derive(Debug, Deserialize)]
pub struct Nodes {
    /// Whether the store is one that several nodes can share.
    pub shared: bool,
    pub nodes: Vec<serde_json::Value>,
    /// Slots that no living node holds.
    #[serde(default)]
    pub free: u64,
}

/// How one node is.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    pub name: String,
    /// Whether it is the one that was asked.
    #[serde(rename = "self")]
    pub this: bool,
    pub alive: bool,
    pub slots: Option<u64>,
    pub lease_left_ms: Option<u64>,
    pub version: Option<String>,
    pub in_flight: Option<u64>,
    pub due: Option<u64>,
    pub rate: Option<f64>,
    pub brake: Option<String>,
}

/// Answer to `dead_letters`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterPage {
    pub dead_letters: Vec<Box<RawValue>>,
    /// Where the next page begins; none after the last.
    pub next: Option<String>,
}

/// An outcome that a sink did not take, and is not tried with any more.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    pub sink: String,
    pub seq: i64,
    pub pin_id: String,
    pub tries: u64,
    pub since: Option<String>,
    pub last_try_at: Option<String>,
    pub error: Option<String>,
    pub outcome: Option<Box<RawValue>>,
}

/// Answer to `replay`, `drop` and `forget_sink`.
#[derive(Debug, Deserialize)]
pub struct Counted {
    pub count: u64,
}

/// Answer to `ping`.
#[derive(Debug, Deserialize)]
pub struct Pong {
    pub version: String,
}

/// What a client needs of an outcome record.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub seq: i64,
    pub pin_id: String,
    pub outcome: String,
    pub status: Option<String>,
    pub description: Option<String>,
    pub delivered: Option<bool>,
    pub error: Option<String>,
    pub reference: Option<String>,
    pub submitted_at: Option<String>,
    pub finished_at: Option<String>,
    pub polls: Option<u64>,
}

/// One line of a tail: an outcome record, or the end of those that there are.
#[derive(Debug, PartialEq)]
pub enum Tailed {
    Record(Box<Record>),
    End { next: i64 },
}

impl Tailed {
    /// Reads a line of a tail; inside, why there are no more of them.
    pub fn parse(line: &[u8]) -> serde_json::Result<Result<Self, Refusal>> {
        /// A record has no `ok`; and its own `error` is a string, so that is not read here.
        #[derive(Deserialize)]
        struct Kind {
            ok: Option<bool>,
        }
        #[derive(Deserialize)]
        struct End {
            next: i64,
        }
        #[derive(Deserialize)]
        struct Refused {
            error: Refusal,
        }
        Ok(match serde_json::from_slice::<Kind>(line)?.ok {
            None => Ok(Self::Record(serde_json::from_slice(line)?)),
            Some(true) => Ok(Self::End { next: serde_json::from_slice::<End>(line)?.next }),
            Some(false) => Err(serde_json::from_slice::<Refused>(line)?.error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(request: &Request<'_>) -> String {
        String::from_utf8(request.line()).unwrap()
    }

    #[test]
    fn requests_are_the_ones_of_the_contract() {
        let mut submission = Submission { pin_id: "9C81".into(), ..Submission::default() };
        assert_eq!(line(&Request::Submit(&submission)), "{\"op\":\"submit\",\"pinId\":\"9C81\"}\n");
        submission.reference = Some("order-42".into());
        submission.metadata = Some(serde_json::from_str("{\"a\":\n1.50}").unwrap());
        submission.deadline = Some("30m".into());
        submission.again = true;
        assert_eq!(
            line(&Request::Submit(&submission)),
            "{\"op\":\"submit\",\"pinId\":\"9C81\",\"reference\":\"order-42\",\"metadata\":{\"a\":1.50},\"deadline\":\"30m\",\"again\":true}\n"
        );
        assert_eq!(line(&Request::Show { pin_id: "9C81" }), "{\"op\":\"show\",\"pinId\":\"9C81\"}\n");
        assert_eq!(
            line(&Request::Tail { from: None, last: Some(10), follow: false }),
            "{\"op\":\"tail\",\"last\":10,\"follow\":false}\n"
        );
        assert_eq!(line(&Request::Stats), "{\"op\":\"stats\"}\n");
        assert_eq!(
            line(&Request::DeadLetters { sink: None, which: None, after: None, limit: 7 }),
            "{\"op\":\"dead_letters\",\"limit\":7}\n"
        );
        assert_eq!(
            line(&Request::Replay { sink: "hook", which: Which::Pin { pin_id: "9C81" }, dead: true }),
            "{\"op\":\"replay\",\"sink\":\"hook\",\"pinId\":\"9C81\",\"dead\":true}\n"
        );
        assert_eq!(
            line(&Request::Drop { sink: "hook", which: Which::Range { from: 1, to: 9 } }),
            "{\"op\":\"drop\",\"sink\":\"hook\",\"from\":1,\"to\":9}\n"
        );
    }

    #[test]
    fn a_tail_line_is_a_record_or_the_end_or_a_refusal() {
        assert_eq!(
            Tailed::parse(br#"{"ok":true,"end":true,"next":7}"#).unwrap(),
            Ok(Tailed::End { next: 7 })
        );
        let record = br#"{"seq":6,"id":"x","pinId":"9C81","outcome":"rejected","delivered":null,"error":"no","new":[1]}"#;
        let Ok(Tailed::Record(record)) = Tailed::parse(record).unwrap() else { panic!("not a record") };
        assert_eq!((record.seq, record.pin_id.as_str(), record.delivered), (6, "9C81", None));
        assert_eq!(
            Tailed::parse(br#"{"ok":false,"error":{"code":"shutting_down","message":"bye"}}"#).unwrap(),
            Err(Refusal::new("shutting_down", "bye"))
        );
        assert!(Tailed::parse(br#"{"ok":true}"#).is_err());
    }
}
