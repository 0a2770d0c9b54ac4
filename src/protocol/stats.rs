//! `stats`: the daemon's numbers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::Raw;
use super::nodes::Node;
use crate::outcome::Ending;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {}

#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    pub stats: Raw<Stats>,
}

/// All but `cluster` is of the node that was asked.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Stats {
    pub version: String,
    pub in_flight: usize,
    pub due: usize,
    pub polling: usize,
    pub finishing: usize,
    /// Why all polling waits.
    pub brake: Option<Brake>,
    /// How most PINs are refused, if they are.
    pub most_refused: Option<MostRefused>,
    /// The rate in force, in polls a second; null is no limit.
    pub rate: Option<f64>,
    pub polls: Polls,
    /// By how they ended.
    pub outcomes: BTreeMap<Ending, u64>,
    pub store: Store,
    pub newest_seq: i64,
    /// Each by its name: those that are configured, then the others.
    pub sinks: IndexMap<String, Raw<Sink>>,
    pub connections: usize,
    pub log_lines_lost: u64,
    /// While no HTTP/1 connection to the API is reused, because answers came that nobody asked for.
    pub stray_answers: Option<StrayAnswers>,
    /// Of all nodes, where several share the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Cluster>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Brake {
    pub reason: Cow<'static, str>,
    pub until: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct MostRefused {
    pub answer: Cow<'static, str>,
    pub since: String,
}

/// Polls by what came of them.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Polls {
    pub total: u64,
    pub understood: u64,
    pub unreadable: u64,
    pub rejected: u64,
    pub unauthorized: u64,
    pub not_found: u64,
    pub throttled: u64,
    pub unavailable: u64,
    pub not_sent: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Store {
    /// Why it can't be written.
    pub trouble: Option<Trouble>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sink {
    /// False: only its cursor is left.
    pub configured: bool,
    /// Every outcome up to this seq is delivered, or known to have failed.
    pub cursor: i64,
    /// How many seqs the newest outcome is ahead of the cursor.
    pub behind: i64,
    pub retrying: i64,
    pub dead_letters: i64,
    /// It takes nothing more until the next start.
    pub closed: bool,
    pub trouble: Option<Trouble>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct StrayAnswers {
    /// When the last one came.
    pub since: String,
    /// Until when no connection is reused.
    pub until: String,
}

/// What does not work, and since when.
#[derive(Debug, Serialize, Deserialize)]
pub struct Trouble {
    pub since: String,
    pub what: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    pub in_flight: usize,
    pub nodes: Vec<Raw<Node>>,
}
