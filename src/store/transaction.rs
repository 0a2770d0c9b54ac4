//! What one transaction is to do, what it did, and the connection that does it: the same for every store.

use async_trait::async_trait;

use super::{InFlight, NewPin, Order, Outcome, Progress, SavedBrake, Submitted, Unavailable};
use crate::clock::Steady;
use crate::outcome::Verdict;
use crate::pin::PinId;
use crate::slot::Slots;

/// What one transaction is to do. The order of the fields is the order in which it is done.
#[derive(Default)]
pub struct Transaction {
    pub verdicts: Vec<Verdict>,
    pub submits: Vec<NewPin>,
    pub progress: Vec<Progress>,
    pub orders: Vec<Order>,
    pub brake: Option<SavedBrake>,
    /// Remove some of the outcomes that ended before this and that every sink has.
    pub prune: Option<Steady>,
    /// What only a node of several is ever asked.
    pub cluster: ClusterWork,
}

/// What one transaction is to do where several nodes share the store.
#[derive(Default)]
pub struct ClusterWork {
    /// Hear of the PINs that other nodes took in for these slots, and of the withdrawals that they were asked for.
    pub claim: Option<Slots>,
    /// Tell whoever holds these PINs' slots that they are withdrawn.
    pub cancels: Vec<PinId>,
    /// Give these slots back.
    pub release: Slots,
    /// Take over what a dead node did not deliver.
    pub adopt: Vec<Orphan>,
}

impl ClusterWork {
    fn changes(&self) -> usize {
        let Self { claim, cancels, release, adopt } = self;
        usize::from(claim.is_some()) + cancels.len() + release.len() + adopt.len()
    }
}

/// What a dead node had still to deliver to one sink.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Orphan {
    /// The dead node's number, which is that of its part of the outbox.
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

    /// Whether all there is to do is to look whether other nodes left anything.
    pub fn is_only_claim(&self) -> bool {
        self.cluster.claim.is_some() && self.changes() == 1
    }

    /// How many changes it makes.
    pub fn changes(&self) -> usize {
        let Self { verdicts, submits, progress, orders, brake, prune, cluster } = self;
        let moves = progress.iter().map(|one| 1 + one.failed.len() + one.delivered.len()).sum::<usize>();
        let others = usize::from(brake.is_some()) + usize::from(prune.is_some());
        verdicts.len() + submits.len() + moves + orders.len() + others + cluster.changes()
    }
}

/// What a committed transaction did.
#[derive(Default)]
pub struct Applied {
    /// As many as there were submits, in their order.
    pub submitted: Vec<Submitted>,
    pub accepted: Vec<InFlight>,
    pub finished: Vec<Outcome>,
    /// How many outcomes each order concerned, in the order of the orders.
    pub ordered: Vec<u64>,
    pub pruned: u64,
    pub cluster: ClusterApplied,
}

/// What a committed transaction did where several nodes share the store.
#[derive(Default)]
pub struct ClusterApplied {
    /// PINs of this node that are withdrawn: another node was asked for it.
    pub cancels: Vec<PinId>,
    /// What had ended before, in whatever node's part of the outbox, when a verdict of it was to be written.
    pub known: Vec<Outcome>,
    /// PINs with a verdict that are not this node's any more, and have no outcome.
    pub gone: Vec<PinId>,
    /// How many outcomes were taken over for each of [`ClusterWork::adopt`], in their order; 0 if nothing is left.
    pub adopted: Vec<u64>,
}

/// The only connection of this process that writes.
#[async_trait]
pub trait Writes: Send {
    /// The PINs in flight, as of the last commit.
    fn in_flight(&self) -> usize;

    /// The newest `seq` that was ever given to an outcome of this process' part of the outbox.
    fn last_seq(&self) -> i64;

    /// Does all of it, durably, or none. At most `max_in_flight` PINs are in flight afterwards, unless more
    /// were before.
    ///
    /// # Errors
    /// Nothing was done, or nobody can tell now whether it was: then it may be asked again all the same.
    async fn apply(&mut self, work: &Transaction, max_in_flight: usize) -> Result<Applied, Unavailable>;

    /// Registers a sink, if it is new, with its first cursor; gives its cursor.
    async fn register_sink(&mut self, name: &str, from_oldest: bool) -> Result<i64, Unavailable>;

    /// Checks that what is written is where the next start looks for it.
    ///
    /// # Errors
    /// It is not: then nothing is to be written, and nothing that was is to be acknowledged.
    async fn in_place(&mut self) -> Result<(), Unavailable> {
        Ok(())
    }

    /// Notes what time it is, where that is long ago, so that PINs in flight age although nothing else is written.
    async fn note_time(&mut self) -> Result<(), Unavailable> {
        Ok(())
    }

    /// Ends the connection in good order.
    async fn close(self: Box<Self>) -> Result<(), Unavailable>;
}
