//! `nodes`: the nodes that share the PINs.

use serde::{Deserialize, Serialize};

use super::Raw;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// Whether the store is one that several nodes can share. If not, there are no nodes and no slots.
    pub shared: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<usize>,
    /// Slots that no living node holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free: Option<usize>,
    pub nodes: Vec<Raw<Node>>,
}

/// One node. What it reports of itself is as of when it last renewed its lease: `in_flight`, `due`, `rate` and `brake`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    pub name: String,
    pub id: i32,
    /// Whether it is the one that was asked.
    #[serde(rename = "self")]
    pub is_self: bool,
    /// Whether its lease runs.
    pub alive: bool,
    pub slots: usize,
    /// Null when it is over.
    pub lease_left_ms: Option<u64>,
    pub version: String,
    pub in_flight: usize,
    pub due: usize,
    /// Polls a second that it may send; null is no limit.
    pub rate: Option<f64>,
    /// Why all its polling waits.
    pub brake: Option<String>,
}
