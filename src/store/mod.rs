//! What outlives the process: PINs in flight, the outbox of outcomes, and how far each sink is.
//!
//! Promises that what it has answered is durable, and that a PIN leaves and its outcome enters in one
//! transaction. One [`Writer`] makes every change and commits whatever waits together; a [`Store`] reads.
//! Knows nothing of polls or sinks, and sees no poll that did not end a PIN: disk work grows with PINs.

mod counted;
pub mod migrate;
mod position;
pub mod postgres;
mod reads;
mod rows;
mod sqlite;
mod transaction;
mod writer;

use std::sync::Arc;

use jiff::Timestamp;
use thiserror::Error;

pub use counted::{FailedCount, FailedCounts};
pub use position::{InvalidPosition, ONLY_LANE, Position, Stretch};
pub use reads::{PAGE_BYTES, Page, Reads, SMALL_RECORD, Store};
pub use sqlite::backup;
pub use sqlite::{OpenError, Unloaded, open as open_sqlite};
pub use transaction::{Applied, ClusterApplied, ClusterWork, Orphan, Transaction, Writes};
pub use writer::{Writer, WriterTask};

use crate::clock::{Dated, Steady};
use crate::outcome::Metadata;
pub use crate::outcome::Record;
use crate::pin::PinId;

/// A PIN as it was submitted.
#[derive(Debug, Clone)]
pub struct NewPin {
    pub pin: PinId,
    pub reference: Option<String>,
    pub metadata: Option<Metadata>,
    pub submitted_at: Dated,
    pub deadline_at: Timestamp,
    /// Poll it anew although it has an outcome.
    pub again: bool,
}

impl NewPin {
    /// What it adds to a transaction, in bare PINs.
    fn weight(&self) -> usize {
        1 + self.metadata.as_ref().map_or(0, |metadata| metadata.get().len()) / 1024
            + self.reference.as_ref().map_or(0, String::len) / 1024
    }
}

/// A PIN that waits for its final status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlight {
    pub pin: PinId,
    pub submitted_at: Dated,
    pub deadline_at: Timestamp,
}

/// What became of a submit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// It is in flight now, durably.
    Accepted,
    /// It was in flight already.
    Duplicate,
    /// It has this outcome already; the record is left out where it is larger than [`SMALL_RECORD`].
    Finished(Option<Record>),
    /// `intake.max_in_flight` PINs are in flight already.
    AtCapacity,
}

/// An outcome in the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub seq: i64,
    pub pin: PinId,
    pub record: Record,
}

/// What became of a PIN, wherever it was polled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It waits for its outcome, at whatever node.
    InFlight,
    /// Its newest outcome.
    Finished(Outcome),
    /// It is neither in flight nor is there an outcome.
    Unknown,
}

/// How far a sink came, in one step: all of it becomes durable together.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    pub sink: String,
    /// Every outcome up to this `seq` is delivered, or among `failed` of this or an earlier step.
    pub cursor: Option<i64>,
    /// Outcomes that the sink does not have.
    pub failed: Vec<Failed>,
    /// Outcomes that it has now, and did not have before.
    pub delivered: Vec<i64>,
}

/// An outcome, at or before a sink's cursor, that the sink does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    pub seq: i64,
    /// A dead letter: it is not tried again unless somebody asks for it.
    pub dead: bool,
    /// 0 where somebody asked for it and it was not tried since.
    pub tries: u32,
    pub first_try_at: Option<Dated>,
    pub last_try_at: Option<Dated>,
    pub error: Option<String>,
}

/// What became of one outcome at one sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtSink {
    pub sink: String,
    pub cursor: i64,
    /// Why the sink does not have the outcome although its cursor is past it.
    pub failed: Option<Failed>,
    /// When somebody gave it up for the sink.
    pub dropped_at: Option<Timestamp>,
}

/// A sink, why it does not have an outcome and will not, and the outcome.
pub type DeadLetter = (String, Failed, Outcome);

/// What somebody asks of a sink's outcomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Deliver the outcomes from one `seq` to another, both included, again; of dead letters only those.
    Replay { sink: String, from: i64, to: i64, only_dead: bool },
    /// Give up the dead letters from one `seq` to another, both included; this is noted until their outcome goes.
    Drop { sink: String, from: i64, to: i64, at: Timestamp },
    /// Forget a sink that is not configured any more, with its dead letters: some of them at a time, so this is
    /// to be ordered again until it concerns nothing.
    Forget { sink: String },
    /// Take back the cursor that this process gave a sink which never ran. What other nodes, alive or dead, have for a
    /// sink of that name stays.
    Unregister { sink: String },
}

/// The most that the state of a learned schedule may take; it takes some three kilobytes.
const MAX_LEARNED: i64 = 65_536;

/// Why all polling stood still, what 429s had taught and what was learned of the schedule, when that last changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SavedBrake {
    /// The reason's name; `None` if polls went out.
    pub reason: Option<String>,
    pub until: Option<Steady>,
    /// Polls a second.
    pub rate: Option<f64>,
    /// When PINs become final, as the schedule keeps it; `None` leaves what is saved.
    pub learned: Option<Vec<u8>>,
}

/// What a transaction made durable, for those who act on it.
#[derive(Debug)]
pub enum Committed {
    /// These PINs are in flight now.
    Accepted(Vec<InFlight>),
    /// These PINs left, with these outcomes.
    Finished(Vec<Outcome>),
    /// Another node was asked to withdraw these PINs of this one.
    Cancel(Vec<PinId>),
    /// These PINs, of which verdicts were handed in, are another node's now and go on there.
    Gone(Vec<PinId>),
}

impl Committed {
    /// Whether it is about no PIN at all.
    fn is_empty(&self) -> bool {
        match self {
            Self::Accepted(pins) => pins.is_empty(),
            Self::Finished(outcomes) => outcomes.is_empty(),
            Self::Cancel(pins) | Self::Gone(pins) => pins.is_empty(),
        }
    }
}

/// The store can't be read or written now. What was asked did not happen and may be asked again.
#[derive(Debug, Clone, Error)]
#[error("the store can't be used now: {0}")]
pub struct Unavailable(pub Arc<str>);

impl Unavailable {
    /// The writer is gone: the daemon is stopping.
    fn stopped() -> Self {
        Self("the daemon is stopping".into())
    }
}

impl From<sqlx::Error> for Unavailable {
    fn from(error: sqlx::Error) -> Self {
        Self::from(&error)
    }
}

impl From<&sqlx::Error> for Unavailable {
    fn from(error: &sqlx::Error) -> Self {
        match error {
            // A session that was cut off while it was idle in a transaction: its process slept, or was cut off itself.
            sqlx::Error::Database(error) if error.code().as_deref() == Some("25P03") => Self(
                "this node stood still within a transaction, so the database ended it: nothing of it was written"
                    .into(),
            ),
            // sqlx puts the place in the server's source behind what the server says.
            sqlx::Error::Database(error) => Self(error.message().into()),
            error => Self(error.to_string().into()),
        }
    }
}

#[cfg(test)]
mod tests;
