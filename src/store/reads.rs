//! The queries that every store answers, and the handle through which the daemon asks them.
//!
//! Promises that a query's result is bounded in rows and bytes. Knows nothing of the kinds of store.

use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{AtSink, DeadLetter, Failed, InFlight, Outcome, Position, SavedSchedule, Stretch, Unavailable};
use crate::clock::Steady;
use crate::outcome::Submission;
use crate::pin::PinId;

/// A page of outcomes or dead letters ends once its records have this many bytes together; its last record may exceed
/// it.
pub const PAGE_BYTES: usize = 256 * 1024;

/// The largest record, in bytes, that a transaction returns with [`Submitted::Finished`](super::Submitted::Finished).
pub const SMALL_RECORD: usize = 4 * 1024;

/// The most PINs in flight that a page with a filter examines.
pub const SCAN: u32 = 10_000;

/// Selects PINs in flight; a field that is `None` matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The whole reference.
    pub reference: Option<String>,
    /// The first bytes of the reference.
    pub reference_prefix: Option<String>,
    /// Submitted at this time or before it.
    pub steady_until: Option<Steady>,
    /// Submitted after this time.
    pub steady_after: Option<Steady>,
    /// Submitted before this time.
    pub wall_before: Option<Timestamp>,
    /// Submitted at this time or after it.
    pub wall_since: Option<Timestamp>,
}

/// A page of the PINs in flight that match. The order of PINs that stay in flight does not change.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub pins: Vec<Listed>,
    /// The page token after which the next page begins; `None` on the last page. A page without PINs can have one.
    pub next: Option<String>,
}

/// A PIN of a page.
#[derive(Debug, PartialEq, Eq)]
pub struct Listed {
    pub stored: InFlight,
    /// The reference, unless it has more than 1,024 bytes: a page of a thousand such PINs would be too large.
    pub reference: Option<String>,
    /// The page token: the page after it begins behind this PIN, even if the PIN is no longer in flight.
    pub token: String,
}

impl Found {
    /// `reached` is the token of the last row that the page examined, if more rows follow it.
    pub(super) fn new(pins: Vec<Listed>, limit: u32, reached: Option<String>) -> Self {
        let last = pins.last().filter(|_| pins.len() >= limit as usize).map(|pin| pin.token.clone());
        Self { next: last.or(reached), pins }
    }
}

/// The reading side of the store. Cheap to clone.
pub type Store = Arc<dyn Reads>;

/// The queries of a store. Where several nodes share it, "the outbox" is this node's partition and a cursor belongs to
/// this node's sink; PINs, outcomes of a PIN and dead letters are those of all nodes.
#[async_trait]
pub trait Reads: Send + Sync {
    /// A page of at most `limit` PINs in flight that match: the first page for `""`, otherwise the page after a token
    /// from [`Found`] or after a PIN in flight. `None` if `after` is neither. Where nodes share the store, the PIN may
    /// have left. Unless all match, the page is among the next [`SCAN`] PINs in flight; with a whole reference, among
    /// the next [`SCAN`] that have it.
    async fn in_flight_matching(
        &self,
        after: &str,
        wanted: &Wanted,
        limit: u32,
    ) -> Result<Option<Found>, Unavailable>;

    /// The state of the schedule as it was last saved.
    async fn schedule(&self) -> Result<SavedSchedule, Unavailable>;

    /// What the submitter sent with a PIN in flight, and the PIN's deadline.
    async fn submission(&self, pin: &PinId) -> Result<Option<(Submission, Timestamp)>, Unavailable>;

    /// At most `limit` PINs with this reference, each once: first those in flight, then the finished ones, the newest
    /// first.
    ///
    /// # Errors
    /// The store can't be read; or none is found, and outcomes of an older version are not in the index yet.
    async fn pins_with_reference(&self, reference: &str, limit: u32) -> Result<Vec<PinId>, Unavailable>;

    /// Outcomes of all nodes after `seq`, oldest first: every one with this reference up to the last one returned, and possibly
    /// others. At most `limit`; fewer if they are large ([`PAGE_BYTES`]).
    async fn outcomes_with_reference(
        &self,
        reference: &str,
        seq: i64,
        limit: u32,
    ) -> Result<Stretch, Unavailable>;

    /// The newest outcome of a PIN.
    async fn outcome_of(&self, pin: &PinId) -> Result<Option<Outcome>, Unavailable>;

    /// Returns the name of the token that the PIN of an outcome was submitted with.
    async fn submitter_of(&self, seq: i64) -> Result<Option<String>, Unavailable>;

    /// At most `limit` outcomes after `seq`, oldest first; fewer if they are large ([`PAGE_BYTES`]).
    async fn outcomes_after(&self, seq: i64, limit: u32) -> Result<Vec<Outcome>, Unavailable>;

    /// At most `limit` outcomes of all nodes after a position, fewer if they are large ([`PAGE_BYTES`]); and what
    /// retention removed after it.
    async fn stretch(&self, position: &Position, limit: u32) -> Result<Stretch, Unavailable>;

    /// The position before the newest `count` outcomes of all nodes. Every later commit is after it.
    async fn before_last(&self, count: u32) -> Result<Position, Unavailable>;

    /// The first `seq` of any node's outcome that is at or after this one.
    async fn first_seq_from(&self, seq: i64) -> Result<Option<i64>, Unavailable>;

    /// Every sink that has a cursor, with its cursor.
    async fn cursors(&self) -> Result<Vec<(String, i64)>, Unavailable>;

    /// At most `limit` outcomes after `seq` that a sink does not have although its cursor is past them, each with its
    /// failure: the dead letters, or those that will be tried again.
    async fn failed(
        &self,
        sink: &str,
        dead: bool,
        seq: i64,
        limit: u32,
    ) -> Result<Vec<(Failed, Outcome)>, Unavailable>;

    /// At most `limit` dead letters in the order of sink and `seq`, from the one after `after`; of one sink or all, of
    /// one PIN or all; fewer if they are large ([`PAGE_BYTES`]). Also returns whether more may follow.
    async fn dead_letters(
        &self,
        sink: Option<&str>,
        pin: Option<&PinId>,
        seqs: &RangeInclusive<i64>,
        after: &(String, i64),
        limit: u32,
    ) -> Result<(Vec<DeadLetter>, bool), Unavailable>;

    /// Returns which of these outcomes a sink does not have: they are still to be delivered, or are its dead letters.
    async fn lacking(&self, sink: &str, seqs: &[i64]) -> Result<Vec<i64>, Unavailable>;

    /// The state of one outcome at every sink.
    async fn sinks_of(&self, seq: i64) -> Result<Vec<AtSink>, Unavailable>;

    /// For each sink, how many outcomes it does not have although its cursor is past them: those that will be tried
    /// again, and the dead letters.
    async fn failed_counts(&self) -> Result<Vec<(String, i64, i64)>, Unavailable>;

    /// Returns when the oldest outcome ended that a sink with this cursor has not received.
    async fn oldest_undelivered(&self, sink: &str, cursor: i64) -> Result<Option<Steady>, Unavailable>;

    /// Closes the reading connections.
    async fn close(&self);
}
