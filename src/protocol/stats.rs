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
    /// Of a PIN that ended, on average; null before any has.
    pub polls_per_pin: Option<f64>,
    /// The share of PINs that reached their deadline, among those and the ones that became final.
    pub never_final: Option<f64>,
    /// The polls by the PIN's age when they were sent.
    pub polls_by_age: IndexMap<Cow<'static, str>, u64>,
    /// How many PINs became final within each of these times from their submission, and not within the one before.
    pub time_to_final: IndexMap<String, u64>,
    /// Seconds from the moment a PIN became final to the poll that told it, by estimate, on average; null before any.
    pub final_notice_delay: Option<f64>,
    /// What the schedule learned; null with `schedule.adapt = "off"`.
    pub learned: Option<Learned>,
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

/// How the learned schedule does.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Learned {
    /// PINs from whose end something was learned.
    pub endings: u64,
    /// Whether PINs are polled by what was learned, and not by backoff.
    pub in_force: bool,
    /// So many are to end until the learned schedule, which did worse than backoff, is tried again; else 0.
    pub endings_until_retry: u32,
    /// How often in a row it did worse.
    pub relapses: u32,
    /// Of the PINs that ended last under the learned schedule; null before any has.
    pub recent: Option<Recent>,
}

/// Polls of a PIN and weighted seconds until its end is noticed, on average; and what backoff would have needed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recent {
    pub endings: usize,
    pub polls: f64,
    pub delay: f64,
    pub backoff_polls: f64,
    pub backoff_delay: f64,
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
