//! The store in a PostgreSQL that any number of nodes share.
//!
//! Promises that a node without a lease writes nothing: every writing transaction first checks and locks the node's
//! row, and a node that takes over from a dead one first locks that row against it. Each node has one writing
//! connection, so within its partition of the outbox (the column `lane`) the order of `seq` is the order of commits.
//! Leases follow the database's clock. Calls no function and uses no table of another role ([`schema`]). Does not know
//! which node should hold which slot.

mod adopt;
mod claims;
mod columns;
mod connect;
mod done;
mod error;
mod finish;
mod indexes;
mod lease;
mod matching;
mod membership;
mod open;
mod outbox;
mod questions;
mod read;
mod reconnect;
mod schema;
mod submit;
mod view;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicUsize, Ordering};

pub(super) use columns::{column, storable};
pub use connect::trusts_anybody;
pub use error::OpenError;
pub(super) use membership::anchors;
pub use membership::{Membership, Registration, Renewal};
pub use open::open;
pub(super) use open::open_to_move;
pub use questions::{Hint, Hints, Questions, Shared};
pub use view::{Holders, NodeId, NodeReport, NodeState, View};

/// This node's registration, shared by all connections of this process.
#[derive(Clone, Default)]
struct Node(Arc<Registered>);

#[derive(Default)]
struct Registered {
    id: AtomicI32,
    fence: AtomicI64,
    /// About how many PINs are in flight in the whole database.
    in_flight: AtomicUsize,
}

impl Node {
    fn id(&self) -> i32 {
        self.0.id.load(Ordering::Acquire)
    }

    fn fence(&self) -> i64 {
        self.0.fence.load(Ordering::Acquire)
    }

    fn become_registered(&self, id: i32, fence: i64) {
        // The fence is stored last: the new number with the old fence, or the reverse, matches no row.
        self.0.id.store(id, Ordering::Release);
        self.0.fence.store(fence, Ordering::Release);
    }

    fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::Relaxed)
    }

    fn set_in_flight(&self, count: usize) {
        self.0.in_flight.store(count, Ordering::Relaxed);
    }

    fn count(&self, accepted: usize, finished: usize) {
        let counted = |count: usize| Some((count + accepted).saturating_sub(finished));
        // The closure always returns a number, so this can't fail.
        let _ = self.0.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted);
    }
}
