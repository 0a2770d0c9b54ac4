//! Durable storage: PINs in flight, the outbox of outcomes, and each sink's cursor.
//!
//! Promises that every change it acknowledges is durable, and that one transaction removes a PIN and adds its outcome.
//! One [`Writer`] makes all changes and commits those that wait as one transaction; a [`Store`] reads. Does not know when
//! PINs are polled or how sinks deliver, and sees only the polls that end a PIN: disk work grows with the number of PINs,
//! not of polls.

mod cluster_work;
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

pub use cluster_work::{ClusterApplied, ClusterWork, Orphan};
pub use counted::{FailedCount, FailedCounts};
pub use position::{InvalidPosition, ONLY_PARTITION, Position, Stretch};
pub use reads::{Found, Listed, PAGE_BYTES, Reads, SCAN, SMALL_RECORD, Store, Wanted};
pub use sqlite::backup;
pub use sqlite::{OpenError, Unloaded, open as open_sqlite};
pub use transaction::{Applied, Transaction, Writes};
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
    /// The name of the token it was submitted with; `None` if it came over the socket.
    pub submitter: Option<Arc<str>>,
    /// Poll the PIN again even if it has an outcome.
    pub again: bool,
}

impl NewPin {
    /// How much it adds to a transaction, measured in PINs without metadata and reference.
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

/// The result of a submit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// The PIN is in flight now, durably.
    Accepted,
    /// The PIN was already in flight.
    Duplicate,
    /// The PIN already has this outcome. `None` if the record is larger than [`SMALL_RECORD`].
    Finished(Option<Record>),
    /// `intake.max_in_flight` PINs are already in flight.
    AtCapacity,
}

/// An outcome in the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub seq: i64,
    pub pin: PinId,
    pub record: Record,
}

/// The state of a PIN, whichever node polls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinState {
    /// The PIN waits for its outcome, on any node.
    InFlight,
    /// The PIN ended; this is its newest outcome.
    Finished(Outcome),
    /// The PIN is not in flight and has no outcome.
    Unknown,
}

/// One step of a sink's progress; all of it becomes durable together.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    pub sink: String,
    /// Every outcome up to this `seq` is delivered, or in `failed` of this or an earlier step.
    pub cursor: Option<i64>,
    /// Outcomes that the sink does not have.
    pub failed: Vec<Failed>,
    /// Outcomes that failed before and that the sink has now.
    pub delivered: Vec<i64>,
}

/// An outcome, at or before a sink's cursor, that the sink does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    pub seq: i64,
    /// Whether it is a dead letter: it is tried again only if somebody requests it.
    pub dead: bool,
    /// The number of tries; 0 if a replay was requested and not tried yet.
    pub tries: u32,
    pub first_try_at: Option<Dated>,
    pub last_try_at: Option<Dated>,
    pub error: Option<String>,
}

/// The state of one outcome at one sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtSink {
    pub sink: String,
    pub cursor: i64,
    /// Why the sink does not have the outcome although its cursor is past it.
    pub failed: Option<Failed>,
    /// When somebody dropped the outcome for this sink.
    pub dropped_at: Option<Timestamp>,
}

/// A dead letter: its sink, why delivery failed, and the outcome.
pub type DeadLetter = (String, Failed, Outcome);

/// A delivery command: what somebody requests for a sink's outcomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryCommand {
    /// Deliver outcomes again; with `only_dead`, only the dead letters among them.
    Replay { sink: String, seqs: Seqs, only_dead: bool },
    /// Drop the dead letters among these outcomes. Each drop stays recorded until the outcome is removed.
    Drop { sink: String, seqs: Seqs, at: Timestamp },
    /// Forget a sink that is no longer configured, with its dead letters. Each command removes some of them: repeat it
    /// until it affects nothing.
    Forget { sink: String },
    /// Remove the cursor that this process created for a sink which never ran. What other nodes, alive or dead, have
    /// for a sink of this name stays.
    Unregister { sink: String },
}

/// Which outcomes a delivery command is about, by their `seq`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seqs {
    /// From the first to the last, both included.
    Range(i64, i64),
    Each(Vec<i64>),
}

/// The largest accepted state of a learned schedule, in bytes; it takes some three kilobytes.
const MAX_LEARNED: i64 = 65_536;

/// What the schedule saves for the next start: why polling was stopped, the rate learned from 429 answers, and when PINs
/// become final.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SavedSchedule {
    /// The name of the reason; `None` if polling was not stopped.
    pub reason: Option<String>,
    pub until: Option<Steady>,
    /// Polls per second.
    pub rate: Option<f64>,
    /// When PINs become final, as the schedule keeps it; `None` leaves what is saved.
    pub learned: Option<Vec<u8>>,
}

/// What a transaction made durable, for the tasks that act on it.
#[derive(Debug)]
pub enum Committed {
    /// These PINs are in flight now.
    Accepted(Vec<InFlight>),
    /// These PINs ended with these outcomes and are no longer in flight.
    Finished(Vec<Outcome>),
    /// Withdraw these PINs of this node; another node was asked to.
    Cancel(Vec<PinId>),
    /// This node submitted verdicts for these PINs, but they belong to another node now, which continues with them.
    Gone(Vec<PinId>),
}

impl Committed {
    /// Whether it concerns no PIN.
    fn is_empty(&self) -> bool {
        match self {
            Self::Accepted(pins) => pins.is_empty(),
            Self::Finished(outcomes) => outcomes.is_empty(),
            Self::Cancel(pins) | Self::Gone(pins) => pins.is_empty(),
        }
    }
}

/// The store can't be read or written now. The request was not carried out, or nobody can know whether it was; it is
/// safe to repeat.
#[derive(Debug, Clone, Error)]
#[error("the store can't be used now: {0}")]
pub struct Unavailable(pub Arc<str>);

impl Unavailable {
    /// The writer has ended, because the daemon is stopping.
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
            // The server ended a session that was idle in a transaction: this process slept, or lost its connection.
            sqlx::Error::Database(error) if error.code().as_deref() == Some("25P03") => Self(
                "this node stood still within a transaction, so the database ended it: nothing of it was written"
                    .into(),
            ),
            // sqlx appends the place in the server's source to the server's message; only the message is useful.
            sqlx::Error::Database(error) => Self(error.message().into()),
            error => Self(error.to_string().into()),
        }
    }
}

#[cfg(test)]
mod tests;
