//! What the cluster task asks of the shared database: which nodes live, which slots each holds, and changes to that.
//!
//! Promises that every answer comes well within a third of the lease, or is an error. After an error the next round shows
//! what happened. Does not know SQL.

use super::{NodeReport, Registration, Renewal, View};
use crate::pin::PinId;
use crate::slot::Slots;
use crate::store::{InFlight, Orphan, Unavailable};

/// The shared tables, for this node.
pub trait Registry: Send + 'static {
    /// Registers this node under its name with a new fencing number, unless a lease of that name runs. Its transactions
    /// carry the new number from then on.
    fn register(&mut self) -> impl Future<Output = Result<Registration, Unavailable>> + Send;

    /// Extends the lease to its whole length from now on, by the database's clock.
    fn renew(&mut self, report: &NodeReport) -> impl Future<Output = Result<Renewal, Unavailable>> + Send;

    /// All nodes and what each holds, at one moment.
    fn look(&mut self) -> impl Future<Output = Result<View, Unavailable>> + Send;

    /// Identifies the run of the database server that answered last. A new run may be a standby that lacks the last
    /// commits.
    fn server(&self) -> Option<i64>;

    /// Takes those of these slots that no living node holds; returns the slots taken.
    fn take(&mut self, slots: &Slots) -> impl Future<Output = Result<Slots, Unavailable>> + Send;

    /// Releases these slots after everything that the writer already has queued.
    fn give(&mut self, slots: &Slots) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// One page of the PINs in flight of these slots, ordered by slot and ID and beginning after `after`. An empty page is
    /// the end.
    fn page(
        &mut self,
        slots: &Slots,
        after: Option<&PinId>,
    ) -> impl Future<Output = Result<Vec<InFlight>, Unavailable>> + Send;

    /// Asks the writer to fetch the PINs and cancels that other nodes left for the holder of these slots.
    fn claim(&mut self, slots: &Slots);

    /// Waits until all claims so far are done.
    fn settle(&mut self) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// Deliveries that dead nodes still owed to sinks that this node has too.
    fn orphans(&mut self) -> impl Future<Output = Result<Vec<Orphan>, Unavailable>> + Send;

    /// Takes over some of an orphan's outcomes and returns how many; 0 means that none are left.
    fn adopt(&mut self, orphan: &Orphan) -> impl Future<Output = Result<u64, Unavailable>> + Send;
}
