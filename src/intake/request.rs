//! What a client may say: one line, to one request or one refusal.
//!
//! Pure. Input is hostile: the caller bounds the line's length, this bounds its depth.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::config::YEAR;
use crate::outcome::Metadata;
use crate::pin::PinId;

/// How deep metadata may be nested: nobody who reads the outcome later should stumble over it.
const MAX_METADATA_DEPTH: usize = 32;

/// The longest deadline that a PIN can be given: as the configuration's.
const MAX_DEADLINE: Duration = YEAR;

/// What is asked for.
#[derive(Debug)]
pub enum Request {
    Submit(Submit),
    Show(PinId),
    Cancel(PinId),
    Wait { pin: PinId, timeout: Option<Duration> },
    List { limit: u32, after: String },
    Tail { start: TailStart, follow: bool },
    DeadLetters { sink: Option<String>, which: Option<Which>, after: DeadLetterToken, limit: u32 },
    Replay { sink: String, which: Which, only_dead: bool },
    Drop { sink: String, which: Which },
    ForgetSink { sink: String },
    Stats,
    Nodes,
    Ping,
}

/// A PIN to wait for.
#[derive(Debug)]
pub struct Submit {
    pub pin: PinId,
    pub reference: Option<String>,
    pub metadata: Option<Metadata>,
    /// Its own time to live, instead of `schedule.deadline`.
    pub deadline: Option<Duration>,
    pub again: bool,
}

/// Where a tail begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailStart {
    /// At this `seq`.
    From(i64),
    /// At the newest so many.
    Last(u32),
}

/// Which outcomes are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The newest of this PIN; of its dead letters, all.
    Pin(PinId),
    /// From one `seq` to another, both included.
    Range(i64, i64),
}

/// Where a list of dead letters goes on: behind this sink and `seq`.
pub type DeadLetterToken = (String, i64);

/// Why a request is refused: the code is for programs, the message for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    pub message: Cow<'static, str>,
}

/// The error codes of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    InvalidJson,
    InvalidRequest,
    InvalidPinId,
    LineTooLong,
    UnknownOp,
    NotFound,
    AtCapacity,
    ShuttingDown,
    StoreUnavailable,
    Timeout,
}

impl Code {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::InvalidRequest => "invalid_request",
            Self::InvalidPinId => "invalid_pin_id",
            Self::LineTooLong => "line_too_long",
            Self::UnknownOp => "unknown_op",
            Self::NotFound => "not_found",
            Self::AtCapacity => "at_capacity",
            Self::ShuttingDown => "shutting_down",
            Self::StoreUnavailable => "store_unavailable",
            Self::Timeout => "timeout",
        }
    }

    /// A refusal with this code.
    pub fn because(self, message: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { code: self, message: message.into() }
    }
}

/// Every field that an op may have; which it may is checked after.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wire<'a> {
    #[serde(borrow)]
    op: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pin_id: Option<Cow<'a, str>>,
    reference: Option<String>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    deadline: Option<Cow<'a, str>>,
    again: Option<bool>,
    #[serde(borrow)]
    timeout: Option<Cow<'a, str>>,
    limit: Option<u32>,
    after: Option<String>,
    from: Option<i64>,
    to: Option<i64>,
    dead: Option<bool>,
    #[serde(borrow)]
    sink: Option<Cow<'a, str>>,
    last: Option<u32>,
    follow: Option<bool>,
}

/// Reads one line, without its newline: a bare PIN ID, or a JSON object with `op`.
pub fn parse(line: &[u8]) -> Result<Request, Refusal> {
    let line = line.trim_ascii();
    if line.first() == Some(&b'{') {
        return parse_object(line);
    }
    if line.is_empty() {
        return Err(
            Code::InvalidRequest.because("an empty line: send a PIN ID, or a JSON object with \"op\"")
        );
    }
    if matches!(line[0], b'[' | b'"') {
        return Err(Code::InvalidRequest
            .because("JSON, but not an object: send a bare PIN ID, or an object such as {\"op\":\"ping\"}"));
    }
    let text = std::str::from_utf8(line)
        .map_err(|_| Code::InvalidPinId.because("a PIN ID is ASCII, and this line is not even UTF-8"))?;
    let pin = pin_id(text)?;
    Ok(Request::Submit(Submit { pin, reference: None, metadata: None, deadline: None, again: false }))
}

fn parse_object(line: &[u8]) -> Result<Request, Refusal> {
    let text = std::str::from_utf8(line).map_err(|_| Code::InvalidJson.because("the line is not UTF-8"))?;
    let wire: Wire = serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Data => Code::InvalidRequest.because(error.to_string()),
        Category::Io | Category::Syntax | Category::Eof => Code::InvalidJson.because(error.to_string()),
    })?;
    let Some(op) = wire.op.as_deref() else {
        return Err(Code::InvalidRequest.because("\"op\" is missing"));
    };
    let request = match op {
        "submit" => Request::Submit(Submit {
            pin: wire.pin()?,
            reference: wire.reference.clone(),
            metadata: wire.metadata.map(metadata).transpose()?.flatten(),
            deadline: wire.deadline.as_deref().map(deadline).transpose()?,
            again: wire.again.unwrap_or(false),
        }),
        "show" => Request::Show(wire.pin()?),
        "cancel" => Request::Cancel(wire.pin()?),
        "wait" => Request::Wait {
            pin: wire.pin()?,
            timeout: wire.timeout.as_deref().map(|text| duration("timeout", text)).transpose()?,
        },
        "list" => Request::List { limit: wire.limit(), after: wire.after.clone().unwrap_or_default() },
        "tail" => Request::Tail {
            start: match (wire.from, wire.last) {
                (Some(_), Some(_)) => {
                    return Err(Code::InvalidRequest.because("\"from\" and \"last\" exclude each other"));
                }
                (Some(from), None) => TailStart::From(from),
                (None, last) => TailStart::Last(last.unwrap_or(0)),
            },
            follow: wire.follow.unwrap_or(false),
        },
        "dead_letters" => Request::DeadLetters {
            sink: wire.sink.as_deref().map(str::to_owned),
            which: if wire.says_which() { Some(wire.which()?) } else { None },
            after: wire.after.as_deref().map(dead_letter_token).transpose()?.unwrap_or_default(),
            limit: wire.limit(),
        },
        "replay" => Request::Replay {
            sink: wire.sink()?,
            which: wire.which()?,
            only_dead: wire.dead.unwrap_or(false),
        },
        "drop" => Request::Drop { sink: wire.sink()?, which: wire.which()? },
        "forget_sink" => Request::ForgetSink { sink: wire.sink()? },
        "stats" => Request::Stats,
        "nodes" => Request::Nodes,
        "ping" => Request::Ping,
        other => {
            let known = "submit, show, cancel, list, wait, tail, stats, nodes, ping, dead_letters, replay, drop, forget_sink";
            let other: String = other.chars().take(40).collect();
            return Err(Code::UnknownOp.because(format!("there is no op {other:?}; there are {known}")));
        }
    };
    wire.only_fields_of(op)?;
    Ok(request)
}

impl Wire<'_> {
    fn pin(&self) -> Result<PinId, Refusal> {
        match &self.pin_id {
            Some(text) => pin_id(text),
            None => Err(Code::InvalidRequest.because("\"pinId\" is missing")),
        }
    }

    fn limit(&self) -> u32 {
        self.limit.unwrap_or(100).clamp(1, 1000)
    }

    fn sink(&self) -> Result<String, Refusal> {
        let missing =
            || Code::InvalidRequest.because("\"sink\" is missing: the name of the sink that is meant");
        self.sink.as_deref().map(str::to_owned).ok_or_else(missing)
    }

    fn says_which(&self) -> bool {
        self.pin_id.is_some() || self.from.is_some() || self.to.is_some()
    }

    fn which(&self) -> Result<Which, Refusal> {
        match (self.pin_id.is_some(), self.from, self.to) {
            (true, None, None) => Ok(Which::Pin(self.pin()?)),
            (false, Some(from), Some(to)) if from <= to => Ok(Which::Range(from, to)),
            _ => Err(Code::InvalidRequest
                .because("say which outcomes: \"pinId\", or \"from\" and \"to\", two seqs in their order")),
        }
    }

    /// A field that means nothing to this op is a misunderstanding; better to say so than to ignore it.
    fn only_fields_of(&self, op: &str) -> Result<(), Refusal> {
        const PIN_OPS: &[&str] = &["submit", "show", "cancel", "wait", "dead_letters", "replay", "drop"];
        let given = [
            ("pinId", self.pin_id.is_some(), PIN_OPS),
            ("reference", self.reference.is_some(), &["submit"]),
            ("metadata", self.metadata.is_some(), &["submit"]),
            ("deadline", self.deadline.is_some(), &["submit"]),
            ("again", self.again.is_some(), &["submit"]),
            ("timeout", self.timeout.is_some(), &["wait"]),
            ("limit", self.limit.is_some(), &["list", "dead_letters"]),
            ("after", self.after.is_some(), &["list", "dead_letters"]),
            ("from", self.from.is_some(), &["tail", "dead_letters", "replay", "drop"]),
            ("to", self.to.is_some(), &["dead_letters", "replay", "drop"]),
            ("dead", self.dead.is_some(), &["replay"]),
            ("sink", self.sink.is_some(), &["dead_letters", "replay", "drop", "forget_sink"]),
            ("last", self.last.is_some(), &["tail"]),
            ("follow", self.follow.is_some(), &["tail"]),
        ];
        match given.iter().find(|(_, is_given, ops)| *is_given && !ops.contains(&op)) {
            Some((field, ..)) => {
                Err(Code::InvalidRequest.because(format!("{op:?} has no field \"{field}\"")))
            }
            None => Ok(()),
        }
    }
}

/// `SINK/SEQ`, as the answer before gave it.
fn dead_letter_token(text: &str) -> Result<DeadLetterToken, Refusal> {
    let parts = text.rsplit_once('/').and_then(|(sink, seq)| Some((sink.to_owned(), seq.parse().ok()?)));
    parts.ok_or_else(|| Code::InvalidRequest.because("\"after\" is not what an answer gave as \"next\""))
}

fn pin_id(text: &str) -> Result<PinId, Refusal> {
    text.parse().map_err(|error: crate::pin::InvalidPinId| Code::InvalidPinId.because(error.to_string()))
}

fn duration(field: &str, text: &str) -> Result<Duration, Refusal> {
    humantime::parse_duration(text).map_err(|_| {
        Code::InvalidRequest
            .because(format!("\"{field}\" is a time with its unit, such as \"90s\" or \"15m\""))
    })
}

fn deadline(text: &str) -> Result<Duration, Refusal> {
    let deadline = duration("deadline", text)?;
    if deadline.is_zero() || deadline > MAX_DEADLINE {
        return Err(
            Code::InvalidRequest.because("\"deadline\" is more than 0 and at most 1year (365.25 days)")
        );
    }
    Ok(deadline)
}

/// Metadata that isn't nested too deep; `null` is none.
fn metadata(raw: &RawValue) -> Result<Option<Metadata>, Refusal> {
    let text = raw.get();
    if text == "null" {
        return Ok(None);
    }
    if depth(text) > MAX_METADATA_DEPTH {
        return Err(Code::InvalidRequest
            .because(format!("\"metadata\" is nested more than {MAX_METADATA_DEPTH} deep")));
    }
    Ok(Some(raw.to_owned().into()))
}

/// How deep valid JSON is nested.
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
#[path = "request_tests.rs"]
mod tests;
