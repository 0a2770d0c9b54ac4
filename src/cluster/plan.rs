//! Who should take and give which slots: pure, from one look at who lives and who holds what.
//!
//! Promises that nodes which see the same want the same, that nothing moves where no node has two slots more than
//! another, and that nobody asks for a slot of a living node. What a node wants it may not get: the database
//! decides, and the next look is another plan.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::slot::{SLOTS, Slots};

/// A node's number in the database.
pub type NodeId = i32;

/// The holder of each slot; `None` is nobody.
pub type Holders = [Option<NodeId>; SLOTS];

/// What one node should do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Plan {
    /// Slots that nobody alive holds.
    pub take: Slots,
    /// Slots that this node holds.
    pub give: Slots,
}

/// What `me` should do, of the nodes that are alive.
pub fn plan(me: NodeId, live: &[NodeId], holders: &Holders) -> Plan {
    let mut counts: BTreeMap<NodeId, usize> = live.iter().map(|node| (*node, 0)).collect();
    let (mut mine, mut free) = (Vec::new(), Vec::new());
    for (slot, holder) in (0..=u8::MAX).zip(holders) {
        match holder.and_then(|node| counts.get_mut(&node)) {
            Some(count) => *count += 1,
            None => free.push(slot),
        }
        if *holder == Some(me) {
            mine.push(slot);
        }
    }
    if !counts.contains_key(&me) {
        return Plan::default();
    }
    // Where the shares can't be equal, the larger ones are of those that have most already: nothing moves for it.
    let (share, larger) = (SLOTS / counts.len(), SLOTS % counts.len());
    let mut nodes: Vec<(NodeId, usize)> = counts.into_iter().collect();
    nodes.sort_by_key(|(node, count)| (Reverse(*count), *node));
    // Each takes behind those before it, so that they don't reach for the same.
    let mut free = free.into_iter();
    for (place, (node, count)) in nodes.into_iter().enumerate() {
        let share = share + usize::from(place < larger);
        let take: Slots = free.by_ref().take(share.saturating_sub(count)).collect();
        if node == me {
            return Plan { take, give: mine.into_iter().skip(share).collect() };
        }
    }
    Plan::default()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
