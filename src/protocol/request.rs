//! Reads one line of a client as a request, or refuses it.
//!
//! Guarantees that no line causes a panic or deep recursion: the caller limits the line's length, and nothing here
//! recurses into the input. Must not know what answers a request.

use std::borrow::Cow;
use std::fmt;
use std::vec::IntoIter;

use serde::de::value::{MapAccessDeserializer, MapDeserializer};
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::error::Category;
use serde_json::value::RawValue;
use serde_path_to_error::Track;

use super::error::{Code, Refusal};
use super::{
    cancel, cancel_matching, count, dead_letters, drop, forget_sink, list, nodes, ping, replay, schedule,
    show, stats, submit, tail, wait,
};
use crate::pin::{InvalidPinId, PinId};

/// A request type: the name of its operation and the type of its answer.
pub trait Operation: Serialize + DeserializeOwned {
    const NAME: &'static str;
    type Answer: Serialize + DeserializeOwned;
}

macro_rules! operations {
    ($($name:literal: $Name:ident($module:ident)),+ $(,)?) => {
        /// A request of any operation.
        #[derive(Debug)]
        pub enum Request {
            $($Name($module::Request)),+
        }

        /// The names of all operations.
        pub const OPERATIONS: &[&str] = &[$($name),+];

        $(impl Operation for $module::Request {
            const NAME: &'static str = $name;
            type Answer = $module::Answer;
        })+

        impl Request {
            /// Reads the fields of the operation `op`.
            fn read<'de, D: Deserializer<'de>>(op: &str, fields: D) -> Result<Self, D::Error> {
                match op {
                    $($name => $module::Request::deserialize(fields).map(Self::$Name),)+
                    _ => Err(D::Error::custom("no operation has this name")),
                }
            }
        }
    };
}

operations! {
    "submit": Submit(submit),
    "show": Show(show),
    "cancel": Cancel(cancel),
    "cancel_matching": CancelMatching(cancel_matching),
    "count": Count(count),
    "list": List(list),
    "wait": Wait(wait),
    "tail": Tail(tail),
    "stats": Stats(stats),
    "schedule": Schedule(schedule),
    "nodes": Nodes(nodes),
    "ping": Ping(ping),
    "dead_letters": DeadLetters(dead_letters),
    "replay": Replay(replay),
    "drop": Drop(drop),
    "forget_sink": ForgetSink(forget_sink),
}

/// Reads one line without its newline: a bare PIN ID, or a JSON object with `op`.
pub fn parse(line: &[u8]) -> Result<Request, Refusal> {
    let line = line.trim_ascii();
    match line.first() {
        Some(b'{') => {
            let text =
                str::from_utf8(line).map_err(|_| Code::InvalidJson.because("the line is not UTF-8"))?;
            match serde_json::from_str(text) {
                Ok(OpFirst(request)) => Ok(request),
                Err(_) => parse_slowly(text),
            }
        }
        Some(b'[' | b'"') => Err(Code::InvalidRequest
            .because("JSON, but not an object: send a bare PIN ID, or an object such as {\"op\":\"ping\"}")),
        None => {
            Err(Code::InvalidRequest.because("an empty line: send a PIN ID, or a JSON object with \"op\""))
        }
        Some(_) => {
            let text = str::from_utf8(line).map_err(|_| {
                Code::InvalidPinId.because("a PIN ID is ASCII, and this line is not even UTF-8")
            })?;
            parse_pin_id(text).map(|pin| Request::Submit(submit::Request::of(pin)))
        }
    }
}

/// A request whose first member is `op`, as most clients write it. Its other members are then read in one pass.
struct OpFirst(Request);

impl<'de> Deserialize<'de> for OpFirst {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = OpFirst;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with \"op\"")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<OpFirst, A::Error> {
                match members.next_key()? {
                    Some(Text(key)) if key == "op" => {
                        let Text(op) = members.next_value()?;
                        Request::read(&op, MapAccessDeserializer::new(members)).map(OpFirst)
                    }
                    _ => Err(A::Error::custom("\"op\" is not the first member")),
                }
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// Reads an object whose `op` is at any position, or explains what is wrong with it.
fn parse_slowly(text: &str) -> Result<Request, Refusal> {
    let Members(mut members) = serde_json::from_str(text).map_err(|error| invalid_json(&error))?;
    let Some(at) = members.iter().position(|(name, _)| name == "op") else {
        return Err(Code::InvalidRequest.because("\"op\" is missing"));
    };
    let (_, op) = members.remove(at);
    if members.iter().any(|(name, _)| name == "op") {
        return Err(Code::InvalidRequest.because("\"op\" is given twice"));
    }
    let Text(op) = serde_json::from_str(op.get()).map_err(|error| match error.classify() {
        Category::Data => Code::InvalidRequest.because("\"op\" is a string"),
        _ => invalid_json(&error),
    })?;
    if !OPERATIONS.contains(&&*op) {
        let (op, known): (String, _) = (op.chars().take(40).collect(), OPERATIONS.join(", "));
        return Err(Code::UnknownOp.because(format!("there is no op {op:?}; there are {known}")));
    }
    read_members(&op, &members, |fields| Request::read(&op, fields))
}

/// Reads the fields of a request whose operation is known: an object without `op`.
pub fn parse_fields<R: Operation>(json: &str) -> Result<R, Refusal> {
    parse_object(R::NAME, json)
}

/// Reads an object, which messages call `name`.
pub fn parse_object<R: DeserializeOwned>(name: &str, json: &str) -> Result<R, Refusal> {
    serde_json::from_str(json).or_else(|_| {
        let Members(members) = serde_json::from_str(json).map_err(|error| invalid_json(&error))?;
        read_members(name, &members, |fields| R::deserialize(fields))
    })
}

/// Reads a bare PIN ID.
pub fn parse_pin_id(text: &str) -> Result<PinId, Refusal> {
    text.parse().map_err(|error: InvalidPinId| Code::InvalidPinId.because(error.to_string()))
}

type Fields<'de> = MapDeserializer<'de, IntoIter<(&'de str, &'de RawValue)>, serde_json::Error>;

/// Reads the members of a request, or names the member that is wrong.
fn read_members<'de, R>(
    op: &str,
    members: &'de [Member<'de>],
    read: impl FnOnce(serde_path_to_error::Deserializer<Fields<'de>>) -> serde_json::Result<R>,
) -> Result<R, Refusal> {
    let mut track = Track::new();
    let fields: Vec<_> = members.iter().map(|(name, value)| (&**name, *value)).collect();
    let fields = MapDeserializer::new(fields.into_iter());
    read(serde_path_to_error::Deserializer::new(fields, &mut track)).map_err(|error| {
        let field = track.path().to_string();
        let member = field.split('.').next().unwrap_or_default();
        let given = members.iter().find(|(name, _)| *name == member).map(|(_, value)| value.get());
        if let ("pinId", Some(Ok(Text(id)))) = (&*field, given.map(serde_json::from_str))
            && let Err(refusal) = parse_pin_id(&id)
        {
            return refusal;
        }
        // Removes the line and column: they are relative to the member's value, not to the client's line.
        let problem = error.to_string();
        let problem = problem.split_once(" at line ").map_or(&*problem, |(problem, _)| problem);
        let place = if given.is_some() { format!("\"{field}\"") } else { op.to_owned() };
        // serde_json calls the wrong type of some values a mistake in the syntax.
        let is_json = given.is_none_or(|given| serde_json::from_str::<Value>(given).is_ok());
        let code = if error.is_data() || is_json { Code::InvalidRequest } else { Code::InvalidJson };
        code.because(format!("{place}: {problem}"))
    })
}

fn invalid_json(error: &serde_json::Error) -> Refusal {
    let code = if error.is_data() { Code::InvalidRequest } else { Code::InvalidJson };
    code.because(error.to_string())
}

/// A string, borrowed from the line if it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

type Member<'a> = (Cow<'a, str>, &'a RawValue);

/// The members of an object in their order, duplicates included.
struct Members<'a>(Vec<Member<'a>>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Members<'de>, A::Error> {
                let mut all = Vec::new();
                while let Some((Text(name), value)) = members.next_entry()? {
                    all.push((name, value));
                }
                Ok(Members(all))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
