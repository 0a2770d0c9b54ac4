//! Decides which slots this node should take and give away. Pure: works on one view of all nodes.
//!
//! Promises that nodes with the same view make plans that fit together, that slots stop moving once the nodes' shares
//! differ by at most one, and that no plan takes a slot from a living node. A plan is only a wish: the database decides, and
//! the next view leads to another plan.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{Holders, NodeId};
use crate::slot::{SLOTS, Slots};

/// What one node should do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Plan {
    /// Slots that no living node holds.
    pub take: Slots,
    /// Slots that this node holds.
    pub give: Slots,
}

/// What node `me` should do; `live` are the nodes whose lease runs.
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
    // If the shares can't be equal, the nodes that already hold most get the larger ones, so that fewer slots move.
    let (share, larger) = (SLOTS / counts.len(), SLOTS % counts.len());
    let mut nodes: Vec<(NodeId, usize)> = counts.into_iter().collect();
    nodes.sort_by_key(|(node, count)| (Reverse(*count), *node));
    // Free slots are dealt out in this order, so that no two nodes try to take the same one.
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
