//! `nodes`: lists the nodes that share the PINs.

use serde::{Deserialize, Serialize};

use super::Raw;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// Whether several nodes can share the store. If false, there are no nodes and no slots.
    pub shared: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<usize>,
    /// The number of slots that no live node holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free: Option<usize>,
    pub nodes: Vec<Raw<Node>>,
}

/// One node. `in_flight`, `due`, `rate` and `brake` are as the node reported them when it last renewed its lease.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    pub name: String,
    pub id: i32,
    /// Whether this is the node that answers.
    #[serde(rename = "self")]
    pub is_self: bool,
    /// Whether its lease is valid.
    pub alive: bool,
    pub slots: usize,
    /// The rest of its lease, in milliseconds; null if the lease has expired.
    pub lease_left_ms: Option<u64>,
    pub version: String,
    pub in_flight: usize,
    pub due: usize,
    /// The most polls per second that it may send; null if there is no limit.
    pub rate: Option<f64>,
    /// Why the node pauses all polling; null if it does not.
    pub brake: Option<String>,
}
