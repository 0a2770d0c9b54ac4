//! The store in a PostgreSQL that any number of nodes share.
//!
//! Promises that nothing is written by a node without a lease: every writing transaction begins by locking the
//! node's row as valid, and whoever takes something from a dead node first locks that row against it. Each node has
//! one writing connection, so within its lane of the outbox the order of `seq` is the order of commits. The
//! database's clock decides about leases. Knows which slots this node holds only from the database, and nothing of
//! who should hold which. Calls no function and uses no table of another role ([`schema`]).

mod adopt;
mod claims;
mod connect;
mod finish;
mod membership;
mod open;
mod outbox;
mod page;
mod questions;
mod read;
mod reconnect;
mod schema;
mod submit;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicUsize, Ordering};

pub use connect::trusts_anybody;
pub(super) use membership::anchors;
pub use membership::{Membership, NodeRow, Registration};
pub(super) use open::open_to_move;
pub use open::{OpenError, open};
pub use questions::{Hint, Hints, Questions};
pub(super) use submit::storable;

/// Who this node is, for all connections of this process.
#[derive(Clone, Default)]
struct Node(Arc<Registered>);

#[derive(Default)]
struct Registered {
    id: AtomicI32,
    fence: AtomicI64,
    /// PINs in flight in the whole database, about.
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
        // The fence last: with an old fence a new number is worth nothing, and so is the reverse.
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
        // It always gives a number.
        let _ = self.0.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted);
    }
}
