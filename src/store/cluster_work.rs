//! What a transaction changes for other nodes, and its result; only where several nodes share the store.
//!
//! Plain data. Knows nothing of SQL, nor of which node should hold which slot.

use super::Outcome;
use crate::pin::PinId;
use crate::slot::Slots;

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
    /// The number of changes.
    pub fn changes(&self) -> usize {
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
