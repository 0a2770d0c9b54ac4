//! Answers questions about PINs that another node polls, and about the nodes.
//!
//! Guarantees the same answer from every node, except for what only the node polling a PIN knows. Asks nothing if the
//! store is not shared. Must not know SQL.

use jiff::Timestamp;
use tokio::time::timeout;

use super::failure::{Failure, STORE_TIMEOUT, unknown};
use crate::cluster::{Cluster, NodeId, NodeReport, NodeState, View};
use crate::outcome::Submission;
use crate::pin::PinId;
use crate::protocol::show::Pin;
use crate::protocol::{Code, Raw, nodes, stats};
use crate::schedule::Stopping;
use crate::services::Services;
use crate::slot::SLOTS;
use crate::store::{PinState, Record};

/// Returns the nodes that share the PINs.
pub async fn nodes(services: &Services) -> Result<nodes::Answer, Failure> {
    let Some(cluster) = &services.cluster else { return Ok(nodes::Answer::default()) };
    let view = cluster.shared.look().await?;
    let live = view.live();
    let free = view.holders().iter().filter(|holder| holder.is_none_or(|node| !live.contains(&node))).count();
    let nodes = node_list(&view, cluster.state.borrow().id);
    Ok(nodes::Answer { shared: true, slots: Some(SLOTS), free: Some(free), nodes })
}

/// Returns the part of `stats` that describes all nodes; `None` if the store is not shared.
pub async fn numbers(services: &Services) -> Result<Option<stats::Cluster>, Failure> {
    let Some(cluster) = &services.cluster else { return Ok(None) };
    let view = cluster.shared.look().await?;
    let live = view.nodes.iter().filter(|node| node.lease_left.is_some());
    let in_flight = live.map(|node| node.report.in_flight).sum();
    let nodes = node_list(&view, cluster.state.borrow().id);
    Ok(Some(stats::Cluster { in_flight, nodes }))
}

fn node_list(view: &View, asked: NodeId) -> Vec<Raw<nodes::Node>> {
    let node = |node: &NodeState| {
        let NodeReport { in_flight, due, rate, brake } = node.report.clone();
        Raw::new(&nodes::Node {
            name: node.name.clone(),
            id: node.id,
            is_self: node.id == asked,
            alive: node.lease_left.is_some(),
            slots: view.slots_of(node.id).len(),
            lease_left_ms: node.lease_left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            version: node.version.clone(),
            in_flight,
            due,
            rate,
            brake,
        })
    };
    view.nodes.iter().map(node).collect()
}

/// Returns the name of the node that holds this PIN's slot; `None` if no node holds it now.
pub fn holder<'v>(view: &'v View, pin: &PinId) -> Option<&'v str> {
    view.nodes.iter().find(|node| node.slots.holds(pin)).map(|node| node.name.as_str())
}

/// Returns a PIN in flight that this node's schedule does not have, with its submission and its deadline from the
/// store.
pub async fn in_flight(
    services: &Services,
    pin: &PinId,
) -> Result<Option<(Pin, (Submission, Timestamp))>, Failure> {
    let Some(cluster) = &services.cluster else { return Ok(None) };
    let Some(stored) = services.store.submission(pin).await? else { return Ok(None) };
    let view = cluster.shared.look().await?;
    Ok(Some((Pin::of_node(pin.clone(), holder(&view, pin)), stored)))
}

/// Asks the node that polls this PIN to withdraw it, and waits until its outcome is stored.
pub async fn cancel(services: &Services, cluster: &Cluster, pin: &PinId) -> Result<Record, Failure> {
    match cluster.pin_state(pin).await? {
        PinState::InFlight => services.writer.cancel_at_holder(pin.clone()).await?,
        state => return record(state, pin),
    }
    let ended = timeout(STORE_TIMEOUT, cluster.ended(pin.clone())).await;
    let state = ended.map_err(|_| {
        Code::StoreUnavailable.because(
            "the withdrawal is noted, and the node that polls the PIN has not carried it out yet: ask again",
        )
    })?;
    record(state.map_err(|_| Stopping)?, pin)
}

/// Returns the outcome's record, or refuses because there is none.
pub fn record(state: PinState, pin: &PinId) -> Result<Record, Failure> {
    match state {
        PinState::Finished(outcome) => Ok(outcome.record),
        PinState::InFlight | PinState::Unknown => Err(unknown(pin).into()),
    }
}
