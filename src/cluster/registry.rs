//! What a node asks of the database that it shares: who lives, who holds what, and to change that.
//!
//! Every answer is bounded in time, well under a third of the lease. Whatever is refused or unknown is an error,
//! and the next look tells what became of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Holders, NodeId};
use crate::pin::PinId;
use crate::slot::Slots;
use crate::store::{InFlight, Orphan, Unavailable};

/// The shared tables, for this node.
pub trait Registry: Send + 'static {
    /// Enters this node under its name, with a new fence, once no lease of that name runs. From then on its
    /// transactions are by the new fence.
    fn register(&mut self) -> impl Future<Output = Result<Registered, Unavailable>> + Send;

    /// Makes the lease run for its whole length from now on, by the database's clock.
    fn renew(&mut self, report: &Report) -> impl Future<Output = Result<Renewed, Unavailable>> + Send;

    /// Who is there, and who holds what, at one moment.
    fn look(&mut self) -> impl Future<Output = Result<View, Unavailable>> + Send;

    /// Which run of which server the last answer is of. Another one may be a standby that lacks the last commits.
    fn server(&self) -> Option<i64>;

    /// Takes those of these slots that nobody holds whose lease runs; gives which.
    fn take(&mut self, slots: &Slots) -> impl Future<Output = Result<Slots, Unavailable>> + Send;

    /// Gives these slots away, behind all that the writer was handed before.
    fn give(&mut self, slots: &Slots) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// Some PINs in flight of these slots after one, by slot and ID; none where there are no more.
    fn page(
        &mut self,
        slots: &Slots,
        after: Option<&PinId>,
    ) -> impl Future<Output = Result<Vec<InFlight>, Unavailable>> + Send;

    /// Has the writer tell soon what other nodes left for the holder of these slots: PINs, and cancels.
    fn claim(&mut self, slots: &Slots);

    /// Waits until every claim before is carried out and told.
    fn settle(&mut self) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// What dead nodes had not delivered to the sinks that this node has.
    fn orphans(&mut self) -> impl Future<Output = Result<Vec<Orphan>, Unavailable>> + Send;

    /// Takes over some of it; how many outcomes. 0: nothing is left.
    fn adopt(&mut self, orphan: &Orphan) -> impl Future<Output = Result<u64, Unavailable>> + Send;
}

/// What became of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// This node's number; its lease runs.
    As(NodeId),
    /// A lease of this name runs for so long: of a process that was killed a moment ago, or of a living one.
    Taken(Duration),
}

/// What became of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    Runs,
    /// Another process has registered this node's name since: nothing is this one's any more.
    Fenced,
}

/// What a node tells the others of itself at each renewal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    pub in_flight: usize,
    pub due: usize,
    /// Its part of `api.rate`, or what 429s left of it, in polls a second.
    pub rate: Option<f64>,
    /// Why its polling stands still.
    pub brake: Option<String>,
}

/// The tables as they were at one moment.
#[derive(Debug, Clone)]
pub struct View {
    pub nodes: Vec<Seen>,
    pub holders: Holders,
}

/// A node as another one sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub id: NodeId,
    pub name: String,
    /// How long its lease still runs, by the database's clock; `None` if it is over.
    pub lease_left: Option<Duration>,
    pub version: String,
    pub report: Report,
}

impl View {
    /// The nodes whose lease runs.
    pub fn live(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|node| node.lease_left.is_some()).map(|node| node.id).collect()
    }

    /// The slots of one node.
    pub fn slots_of(&self, node: NodeId) -> Slots {
        (0..=u8::MAX)
            .zip(&self.holders)
            .filter(|(_, holder)| **holder == Some(node))
            .map(|(s, _)| s)
            .collect()
    }
}
