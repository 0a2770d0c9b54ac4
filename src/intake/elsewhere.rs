//! Answers about PINs that another node polls, and about the nodes.
//!
//! Promises that a question has the same answer at every node, but for what only the node that polls a PIN knows.
//! Where one machine has its own store, there are no other nodes, and nothing here is asked of anybody.

use tokio::time::timeout;

use super::connection::{Ended, STORE_PATIENCE};
use super::request::Code;
use super::{Services, answer};
use crate::cluster::{Cluster, NodeId, NodeReport, NodeState, View};
use crate::pin::PinId;
use crate::schedule::Stopping;
use crate::slot::SLOTS;
use crate::store::{Fate, Record};

/// Who shares the PINs.
pub async fn nodes(services: &Services) -> Result<String, Ended> {
    match &services.cluster {
        None => Ok(one_machine()),
        Some(cluster) => {
            let view = cluster.shared.look().await?;
            Ok(told(&view, cluster.state.borrow().id))
        }
    }
}

/// What stats tell of all nodes, where there are several.
pub async fn numbers(services: &Services) -> Result<Option<serde_json::Value>, Ended> {
    let Some(cluster) = &services.cluster else { return Ok(None) };
    let view = cluster.shared.look().await?;
    let live = view.nodes.iter().filter(|node| node.lease_left.is_some());
    let in_flight: usize = live.map(|node| node.report.in_flight).sum();
    let nodes = node_list(&view, cluster.state.borrow().id);
    Ok(Some(serde_json::json!({"inFlight": in_flight, "nodes": nodes})))
}

/// The name of the node that holds this PIN's slot; `None` where nobody does now.
pub fn holder<'v>(view: &'v View, pin: &PinId) -> Option<&'v str> {
    view.nodes.iter().find(|node| node.slots.holds(pin)).map(|node| node.name.as_str())
}

/// Shows a PIN in flight that the schedule here does not know; `None` if it is not in flight at all.
pub async fn show(services: &Services, pin: &PinId) -> Result<Option<String>, Ended> {
    let Some(cluster) = &services.cluster else { return Ok(None) };
    let Some(stored) = services.store.submission(pin).await? else { return Ok(None) };
    let view = cluster.shared.look().await?;
    Ok(Some(answer::in_flight(pin, Err(holder(&view, pin)), Some(&stored))))
}

/// Has the node that polls this PIN withdraw it, and waits until that is written.
pub async fn cancel(services: &Services, cluster: &Cluster, pin: &PinId) -> Result<Record, Ended> {
    match cluster.fate(pin).await? {
        Fate::InFlight => services.writer.cancel_elsewhere(pin.clone()).await?,
        fate => return record(fate, pin),
    }
    let ended = timeout(STORE_PATIENCE, cluster.ended(pin.clone())).await;
    let fate = ended.map_err(|_| {
        Code::StoreUnavailable.because(
            "the withdrawal is noted, and the node that polls the PIN has not carried it out yet: ask again",
        )
    })?;
    record(fate.map_err(|_| Stopping)?, pin)
}

/// The outcome, or the refusal that there is none.
pub fn record(fate: Fate, pin: &PinId) -> Result<Record, Ended> {
    match fate {
        Fate::Finished(outcome) => Ok(outcome.record),
        Fate::InFlight | Fate::Unknown => Err(Code::NotFound.because(super::connection::unknown(pin)).into()),
    }
}

/// A PIN in flight at another node: what only that node knows is null.
pub fn held_by(node: Option<&str>) -> serde_json::Map<String, serde_json::Value> {
    let mut shown = serde_json::Map::new();
    shown.insert("node".into(), node.into());
    for unknown in ["polls", "lastStatus", "lastAnswer", "nextPollAt", "nextPoll"] {
        shown.insert(unknown.into(), serde_json::Value::Null);
    }
    shown
}

/// The answer to nodes where the store is one machine's own.
fn one_machine() -> String {
    answer::line(&serde_json::json!({"ok": true, "shared": false, "nodes": []}))
}

/// The answer to nodes; `this` is the one that was asked.
fn told(view: &View, this: NodeId) -> String {
    let (nodes, live) = (node_list(view, this), view.live());
    let free = view.holders().iter().filter(|holder| holder.is_none_or(|node| !live.contains(&node))).count();
    answer::line(
        &serde_json::json!({"ok": true, "shared": true, "slots": SLOTS, "free": free, "nodes": nodes}),
    )
}

/// All nodes, as `nodes` and `stats` tell them.
fn node_list(view: &View, this: NodeId) -> Vec<serde_json::Value> {
    let tell = |node: &NodeState| {
        let NodeReport { in_flight, due, rate, brake } = &node.report;
        serde_json::json!({
            "name": node.name,
            "id": node.id,
            "self": node.id == this,
            "alive": node.lease_left.is_some(),
            "slots": view.slots_of(node.id).len(),
            "leaseLeftMs": node.lease_left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            "version": node.version,
            "inFlight": in_flight,
            "due": due,
            "rate": rate,
            "brake": brake,
        })
    };
    view.nodes.iter().map(tell).collect()
}
