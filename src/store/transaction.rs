//! A transaction, its result, and the connection that carries it out, the same for every store.
//!
//! Promises that a transaction is carried out as a whole or not. Knows nothing of SQL, nor of who waits for the result.

use async_trait::async_trait;

use super::{DeliveryCommand, InFlight, NewPin, Outcome, Progress, SavedBrake, Submitted, Unavailable};
use crate::clock::Steady;
use crate::outcome::Verdict;
use crate::pin::PinId;
use crate::slot::Slots;

/// The changes of one transaction. SQLite makes them in the order of the fields, PostgreSQL in an order that avoids
/// deadlocks.
#[derive(Default)]
pub struct Transaction {
    pub verdicts: Vec<Verdict>,
    pub submits: Vec<NewPin>,
    pub progress: Vec<Progress>,
    pub orders: Vec<DeliveryCommand>,
    pub brake: Option<SavedBrake>,
    /// Remove some of the outcomes that ended before this time and that every sink has.
    pub prune: Option<Steady>,
    /// Changes that only exist where several nodes share the store.
    pub cluster: ClusterWork,
}

/// The changes of one transaction that concern other nodes.
#[derive(Default)]
pub struct ClusterWork {
    /// Fetch what other nodes left for these slots: PINs that they accepted, and requests to withdraw PINs.
    pub claim: Option<Slots>,
    /// Ask the nodes that hold these PINs' slots to withdraw them.
    pub cancels: Vec<PinId>,
    /// Release these slots.
    pub release: Slots,
    /// Take over the outcomes that a dead node did not deliver.
    pub adopt: Vec<Orphan>,
}

impl ClusterWork {
    fn changes(&self) -> usize {
        let Self { claim, cancels, release, adopt } = self;
        usize::from(claim.is_some()) + cancels.len() + release.len() + adopt.len()
    }
}

/// The outcomes that a dead node did not deliver to one sink.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Orphan {
    /// The dead node's number, which is also the number of its partition of the outbox.
    pub node: i32,
    pub sink: String,
}

impl Transaction {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        let Self { verdicts, submits, progress, orders, brake, prune, cluster } = self;
        verdicts.is_empty()
            && submits.is_empty()
            && progress.is_empty()
            && orders.is_empty()
            && brake.is_none()
            && prune.is_none()
            && cluster.changes() == 0
    }

    /// Whether its only change is to fetch what other nodes left.
    pub fn is_only_claim(&self) -> bool {
        self.cluster.claim.is_some() && self.changes() == 1
    }

    /// The number of changes.
    pub fn changes(&self) -> usize {
        let Self { verdicts, submits, progress, orders, brake, prune, cluster } = self;
        let moves = progress.iter().map(|one| 1 + one.failed.len() + one.delivered.len()).sum::<usize>();
        let others = usize::from(brake.is_some()) + usize::from(prune.is_some());
        verdicts.len() + submits.len() + moves + orders.len() + others + cluster.changes()
    }
}

/// The result of a committed transaction.
#[derive(Default)]
pub struct Applied {
    /// One result for each submit, in the order of the submits.
    pub submitted: Vec<Submitted>,
    pub accepted: Vec<InFlight>,
    pub finished: Vec<Outcome>,
    /// How many outcomes each delivery command affected, in the order of the commands.
    pub ordered: Vec<u64>,
    pub pruned: u64,
    pub cluster: ClusterApplied,
}

/// The part of the result that concerns other nodes.
#[derive(Default)]
pub struct ClusterApplied {
    /// PINs of this node that another node was asked to withdraw.
    pub cancels: Vec<PinId>,
    /// Outcomes that already existed, in any node's partition, for PINs that have a verdict in this transaction.
    pub known: Vec<Outcome>,
    /// PINs that have a verdict in this transaction, but belong to another node now and have no outcome.
    pub gone: Vec<PinId>,
    /// How many outcomes were taken over for each of [`ClusterWork::adopt`], in the same order; 0 if none is left.
    pub adopted: Vec<u64>,
}

/// The only connection of this process that writes.
#[async_trait]
pub trait Writes: Send {
    /// The number of PINs in flight as of the last commit.
    fn in_flight(&self) -> usize;

    /// The highest `seq` that was ever assigned in this process' partition of the outbox.
    fn last_seq(&self) -> i64;

    /// Makes all changes durable, or none. Afterwards at most `max_in_flight` PINs are in flight, unless there were
    /// more before.
    ///
    /// # Errors
    /// Nothing was done, or nobody can know whether it was. In both cases it is safe to repeat.
    async fn apply(&mut self, work: &Transaction, max_in_flight: usize) -> Result<Applied, Unavailable>;

    /// Creates a cursor for a sink that has none; returns the sink's cursor.
    async fn register_sink(&mut self, name: &str, from_oldest: bool) -> Result<i64, Unavailable>;

    /// Checks that the files which are written are those that the next start will find.
    ///
    /// # Errors
    /// They are not: write nothing and acknowledge nothing.
    async fn in_place(&mut self) -> Result<(), Unavailable> {
        Ok(())
    }

    /// Stores the current time if the stored one is old, so that PINs in flight age even if nothing else is written.
    async fn note_time(&mut self) -> Result<(), Unavailable> {
        Ok(())
    }

    /// Closes the connection cleanly.
    async fn close(self: Box<Self>) -> Result<(), Unavailable>;
}
