//! `show`: reports everything that the daemon knows about a PIN, or about the newest PIN with a reference.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Raw, Record, State};
use crate::outcome::Metadata;
use crate::pin::PinId;

/// How many further PINs with the same reference an answer names at most.
pub const OTHERS: u32 = 100;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub enum Request {
    Pin(PinId),
    /// The newest PIN with this reference.
    Reference(String),
}

/// A request as it is written: it has exactly one of these.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fields {
    #[serde(skip_serializing_if = "Option::is_none")]
    pin_id: Option<PinId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
}

impl TryFrom<Fields> for Request {
    type Error = &'static str;

    fn try_from(fields: Fields) -> Result<Self, Self::Error> {
        match (fields.pin_id, fields.reference) {
            (Some(pin), None) => Ok(Self::Pin(pin)),
            (None, Some(reference)) => Ok(Self::Reference(reference)),
            _ => Err("give \"pinId\" or \"reference\", and not both"),
        }
    }
}

impl From<Request> for Fields {
    fn from(request: Request) -> Self {
        match request {
            Request::Pin(pin) => Self { pin_id: Some(pin), reference: None },
            Request::Reference(reference) => Self { pin_id: None, reference: Some(reference) },
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    pub pin: Raw<Pin>,
    /// Further PINs with the reference that was asked for, at most [`OTHERS`]: those in flight before the finished ones,
    /// the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<PinId>,
}

/// A value that only the node polling the PIN knows: null if another node polls it, and absent if nothing is known.
pub type Local<T> = Option<Option<T>>;

/// A PIN, also as an item of `list`. A PIN in flight has no `outcome` and no `sinks`; a finished PIN has few other
/// members.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pin {
    /// The node that polls the PIN, if it is not the one that answers; null while no node does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Local<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submitted_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_at: Option<String>,
    /// Polls by this process since it accepted or loaded the PIN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub polls: Local<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_status: Local<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_answer: Local<LastAnswer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_poll_at: Local<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_poll: Local<NextPoll>,
    pub pin_id: PinId,
    /// `in_flight` or `finished`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    /// The name of the token it was submitted with over HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submitted_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Raw<Record>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sinks: Option<Vec<SinkState>>,
}

impl Pin {
    /// Returns a PIN of which only the ID is known.
    pub fn of(pin_id: PinId) -> Self {
        Self {
            node: None,
            submitted_at: None,
            deadline_at: None,
            polls: None,
            last_status: None,
            last_answer: None,
            next_poll_at: None,
            next_poll: None,
            pin_id,
            state: None,
            reference: None,
            metadata: None,
            submitted_by: None,
            outcome: None,
            sinks: None,
        }
    }

    /// Returns a PIN that another node polls, or that no node polls now.
    pub fn of_node(pin_id: PinId, node: Option<&str>) -> Self {
        Self {
            node: Some(node.map(str::to_owned)),
            polls: Some(None),
            last_status: Some(None),
            last_answer: Some(None),
            next_poll_at: Some(None),
            next_poll: Some(None),
            ..Self::of(pin_id)
        }
    }
}

/// The API's last answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct LastAnswer {
    pub at: String,
    pub what: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct NextPoll {
    /// Null while a poll is running or the outcome is being written.
    pub at: Option<String>,
    pub why: String,
}

/// Whether a sink has the outcome.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SinkState {
    pub name: String,
    /// `delivered`, `pending`, `retrying`, `dead_letter` or `dropped`.
    pub state: Cow<'static, str>,
    /// When the outcome was delivered, first tried or dropped; for a pending one, since when the sink has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}
