//! What a client may say: one line, to one request or one refusal.
//!
//! Pure. Input is hostile: the caller bounds the line's length, this bounds its depth.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::pin::PinId;

/// How deep metadata may be nested: nobody who reads the outcome later should stumble over it.
const MAX_METADATA_DEPTH: usize = 32;

/// The longest deadline that a PIN can be given.
const MAX_DEADLINE: Duration = Duration::from_secs(365 * 86_400);

/// What is asked for.
#[derive(Debug)]
pub enum Request {
    Submit(Submit),
    Show(PinId),
    Cancel(PinId),
    Wait { pin: PinId, timeout: Option<Duration> },
    List { limit: u32, after: String },
    Tail { start: TailStart, follow: bool },
    Stats,
    Ping,
}

/// A PIN to wait for.
#[derive(Debug)]
pub struct Submit {
    pub pin: PinId,
    pub reference: Option<String>,
    pub metadata: Option<Box<RawValue>>,
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
        "list" => Request::List {
            limit: wire.limit.unwrap_or(100).clamp(1, 1000),
            after: wire.after.clone().unwrap_or_default(),
        },
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
        "stats" => Request::Stats,
        "ping" => Request::Ping,
        other => {
            let known = "submit, show, cancel, list, wait, tail, stats, ping";
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

    /// A field that means nothing to this op is a misunderstanding; better to say so than to ignore it.
    fn only_fields_of(&self, op: &str) -> Result<(), Refusal> {
        let given = [
            ("pinId", self.pin_id.is_some(), &["submit", "show", "cancel", "wait"][..]),
            ("reference", self.reference.is_some(), &["submit"]),
            ("metadata", self.metadata.is_some(), &["submit"]),
            ("deadline", self.deadline.is_some(), &["submit"]),
            ("again", self.again.is_some(), &["submit"]),
            ("timeout", self.timeout.is_some(), &["wait"]),
            ("limit", self.limit.is_some(), &["list"]),
            ("after", self.after.is_some(), &["list"]),
            ("from", self.from.is_some(), &["tail"]),
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
        return Err(Code::InvalidRequest.because("\"deadline\" is more than 0 and at most a year"));
    }
    Ok(deadline)
}

/// Metadata as it came, if it isn't nested too deep; `null` is none.
fn metadata(raw: &RawValue) -> Result<Option<Box<RawValue>>, Refusal> {
    let text = raw.get();
    if text == "null" {
        return Ok(None);
    }
    if depth(text) > MAX_METADATA_DEPTH {
        return Err(Code::InvalidRequest
            .because(format!("\"metadata\" is nested more than {MAX_METADATA_DEPTH} deep")));
    }
    Ok(Some(raw.to_owned()))
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(line: impl AsRef<[u8]>) -> &'static str {
        match parse(line.as_ref()) {
            Ok(_) => "ok",
            Err(refusal) => refusal.code.as_str(),
        }
    }

    #[test]
    fn a_bare_pin_id_is_a_submit() {
        for line in ["9C817C6F8AF3D48F9FE553282AFA2B67", " 9C81 ", "9C81\r"] {
            assert!(matches!(parse(line.as_bytes()), Ok(Request::Submit(_))), "{line:?}");
        }
    }

    #[test]
    fn every_op_is_understood() {
        for line in [
            r#"{"op":"submit","pinId":"A","reference":"r","metadata":{"a":[1]},"deadline":"15m","again":true}"#,
            r#"{"op":"show","pinId":"A"}"#,
            r#"{"op":"cancel","pinId":"A"}"#,
            r#"{"op":"list"}"#,
            r#"{"op":"list","limit":5,"after":"A"}"#,
            r#"{"op":"wait","pinId":"A","timeout":"5s"}"#,
            r#"{"op":"tail","from":7,"follow":true}"#,
            r#"{"op":"tail","last":7}"#,
            r#"{"op":"stats"}"#,
            r#" { "op" : "ping" } "#,
        ] {
            assert_eq!(code(line), "ok", "{line}");
        }
    }

    #[test]
    fn each_bad_line_has_its_code() {
        let deep = format!(
            r#"{{"op":"submit","pinId":"A","metadata":{}{}}}"#,
            "[".repeat(20_000),
            "]".repeat(20_000)
        );
        let deeper = format!("{{\"op\":{}", "[".repeat(30_000));
        for (line, expected) in [
            (&b""[..], "invalid_request"),
            (b"   ", "invalid_request"),
            (b"[\"A\"]", "invalid_request"),
            (b"\"A\"", "invalid_request"),
            (b"a b", "invalid_pin_id"),
            (b"a\0b", "invalid_pin_id"),
            (b"..", "invalid_pin_id"),
            (b"\xff\xfe", "invalid_pin_id"),
            (b"{\"op\":\"ping\"", "invalid_json"),
            (b"{op:ping}", "invalid_json"),
            (b"{\"op\":\"ping\"} x", "invalid_json"),
            (b"{\"op\":\"\xff\"}", "invalid_json"),
            (b"{\"op\":\"pi\0ng\"}", "invalid_json"),
            (b"{}", "invalid_request"),
            (b"{\"op\":7}", "invalid_request"),
            (b"{\"op\":\"fly\"}", "unknown_op"),
            (b"{\"op\":\"show\"}", "invalid_request"),
            (b"{\"op\":\"show\",\"pinId\":\"a/b\"}", "invalid_pin_id"),
            (b"{\"op\":\"show\",\"pinId\":\"a\",\"again\":true}", "invalid_request"),
            (b"{\"op\":\"submit\",\"pinId\":\"a\",\"colour\":1}", "invalid_request"),
            (b"{\"op\":\"submit\",\"pinId\":\"a\",\"deadline\":\"15\"}", "invalid_request"),
            (b"{\"op\":\"submit\",\"pinId\":\"a\",\"deadline\":\"0s\"}", "invalid_request"),
            (b"{\"op\":\"submit\",\"pinId\":\"a\",\"deadline\":\"400d\"}", "invalid_request"),
            (b"{\"op\":\"tail\",\"from\":1,\"last\":1}", "invalid_request"),
            (deep.as_bytes(), "invalid_request"),
            (deeper.as_bytes(), "invalid_request"),
        ] {
            let shown = String::from_utf8_lossy(&line[..line.len().min(60)]);
            assert_eq!(code(line), expected, "{shown}");
        }
    }

    #[test]
    fn metadata_is_kept_to_the_letter_and_its_strings_do_not_count_as_depth() {
        let line =
            format!(r#"{{"op":"submit","pinId":"A","metadata":{{"x":"{}\"[","n":1.50}}}}"#, "[".repeat(99));
        let Ok(Request::Submit(submit)) = parse(line.as_bytes()) else { panic!("refused: {line}") };
        assert!(line.contains(submit.metadata.unwrap().get()));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(line: Vec<u8>) {
            let _ = parse(&line);
        }

        #[test]
        fn no_text_that_looks_like_a_request_panics(line in r#"\{"op":"(submit|tail|wait)"(,"[a-zA-Z]{1,9}":("[^"]{0,9}"|[0-9e.-]{1,20}|\{|\[|null)){0,4}\}?"#) {
            let _ = parse(line.as_bytes());
        }
    }
}
