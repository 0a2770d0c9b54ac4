//! The questions that a store answers, and the handle by which everybody asks them.

use std::ops::{Deref, RangeInclusive};
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{AtSink, DeadLetter, Failed, InFlight, Outcome, Position, SavedBrake, Stretch, Unavailable};
use crate::clock::Steady;
use crate::outcome::Submission;
use crate::pin::PinId;

/// Outcomes and dead letters are read until their records have so many bytes together; the last may be beyond that.
pub const PAGE_BYTES: usize = 256 * 1024;

/// The largest record that a transaction hands over with [`Submitted::Finished`](super::Submitted::Finished), in bytes.
pub const SMALL_RECORD: usize = 4 * 1024;

/// Some of the PINs in flight, in an order in which those that stay do so.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// Each with its place: what a page of those behind it begins behind, whoever leaves meanwhile.
    pub pins: Vec<(InFlight, String)>,
    /// Whether there may be more.
    pub more: bool,
}

impl Page {
    /// What the next page begins behind; `None` where there is none.
    pub fn next(&self) -> Option<&str> {
        self.pins.last().filter(|_| self.more).map(|(_, place)| place.as_str())
    }
}

/// The reading side of the store. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<dyn Reads>);

impl Store {
    pub(super) fn new(reads: impl Reads + 'static) -> Self {
        Self(Arc::new(reads))
    }
}

impl Deref for Store {
    type Target = dyn Reads;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

/// What can be asked of a store. Where several nodes share one, "the outbox" is this node's part of it, and a
/// cursor is that of this node's sink; PINs, outcomes by PIN and dead letters are those of all.
#[async_trait]
pub trait Reads: Send + Sync {
    /// A page of at most `limit` PINs in flight: the first one for `""`, else the one behind a place of [`Page`] or behind a
    /// PIN that is in flight. `None` if `after` can't be one of these; where nodes share the store, the PIN may have left.
    async fn in_flight_after(&self, after: &str, limit: u32) -> Result<Option<Page>, Unavailable>;

    /// The brake as it last was.
    async fn brake(&self) -> Result<SavedBrake, Unavailable>;

    /// What the submitter gave with a PIN that is in flight, and the PIN's deadline.
    async fn submission(&self, pin: &PinId) -> Result<Option<(Submission, Timestamp)>, Unavailable>;

    /// The newest outcome of a PIN.
    async fn outcome_of(&self, pin: &PinId) -> Result<Option<Outcome>, Unavailable>;

    /// At most `limit` outcomes after `seq`, oldest first; fewer where they are large ([`PAGE_BYTES`]).
    async fn outcomes_after(&self, seq: i64, limit: u32) -> Result<Vec<Outcome>, Unavailable>;

    /// At most `limit` outcomes of all nodes behind a position, fewer where they are large ([`PAGE_BYTES`]); and what was
    /// removed there.
    async fn stretch(&self, position: &Position, limit: u32) -> Result<Stretch, Unavailable>;

    /// The position before the newest `count` outcomes of all nodes. What is committed later is behind it.
    async fn before_last(&self, count: u32) -> Result<Position, Unavailable>;

    /// The first `seq` of any outcome, whoever found it, that is not before this one.
    async fn first_seq_from(&self, seq: i64) -> Result<Option<i64>, Unavailable>;

    /// Every sink that has a cursor, with its cursor.
    async fn cursors(&self) -> Result<Vec<(String, i64)>, Unavailable>;

    /// At most `limit` outcomes after `seq` that a sink does not have although its cursor is past them, and
    /// what became of them: dead letters, or those that are to be tried again.
    async fn failed(
        &self,
        sink: &str,
        dead: bool,
        seq: i64,
        limit: u32,
    ) -> Result<Vec<(Failed, Outcome)>, Unavailable>;

    /// At most `limit` dead letters behind a sink and `seq`, in that order, of one sink or of all, of one PIN or of
    /// all; fewer where they are large ([`PAGE_BYTES`]). Gives also whether there may be more.
    async fn dead_letters(
        &self,
        sink: Option<&str>,
        pin: Option<&PinId>,
        seqs: &RangeInclusive<i64>,
        after: &(String, i64),
        limit: u32,
    ) -> Result<(Vec<DeadLetter>, bool), Unavailable>;

    /// What became of one outcome at every sink.
    async fn sinks_of(&self, seq: i64) -> Result<Vec<AtSink>, Unavailable>;

    /// How many outcomes each sink does not have although its cursor is past them: to be tried again, dead.
    async fn failed_counts(&self) -> Result<Vec<(String, i64, i64)>, Unavailable>;

    /// When the oldest PIN ended whose outcome a sink with this cursor is still to get.
    async fn oldest_undelivered(&self, sink: &str, cursor: i64) -> Result<Option<Steady>, Unavailable>;

    /// Closes the reading connections.
    async fn close(&self);
}
