//! `stats`: reports the daemon's counts and states.

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

/// Everything except `cluster` describes only the node that answers.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Stats {
    pub version: String,
    pub build: Build,
    /// How the daemon is doing, in words.
    pub verdict: Verdict,
    pub in_flight: usize,
    /// The same PINs by their age, each band as in `polls_by_age`.
    pub in_flight_by_age: IndexMap<Cow<'static, str>, u64>,
    pub due: usize,
    pub polling: usize,
    pub finishing: usize,
    /// Why all polling is paused; null if it is not.
    pub brake: Option<Brake>,
    /// How the API refuses most PINs; null if it does not.
    pub most_refused: Option<MostRefused>,
    /// The rate limit in force, in polls per second; null if there is no limit.
    pub rate: Option<f64>,
    pub polls: Polls,
    /// PINs that ended, by how they ended.
    pub outcomes: BTreeMap<Ending, u64>,
    /// The average number of polls of a PIN that ended; null before the first one ends.
    pub polls_per_pin: Option<f64>,
    /// Of the PINs that became final or reached their deadline, the share (0 to 1) that reached the deadline.
    pub never_final: Option<f64>,
    /// The polls by the PIN's age when they were sent.
    pub polls_by_age: IndexMap<Cow<'static, str>, u64>,
    /// How many PINs became final, by age: each PIN counts at the smallest limit that its age does not exceed.
    pub time_to_final: IndexMap<String, u64>,
    /// The average estimated time in seconds from a PIN becoming final to the poll that reported it; null before the first.
    pub final_notice_delay: Option<f64>,
    /// The state of the learned schedule; null with `schedule.adapt = "off"`.
    pub learned: Option<Learned>,
    pub store: Store,
    pub newest_seq: i64,
    /// All sinks by name: first the configured ones, then the others.
    pub sinks: IndexMap<String, Raw<Sink>>,
    pub connections: usize,
    pub log_lines_lost: u64,
    /// Present while no HTTP/1 connection to the API is reused, because answers arrived that belong to no request.
    pub stray_answers: Option<StrayAnswers>,
    /// All nodes; absent if the store is not shared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Cluster>,
}

/// What the daemon is built from.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Build {
    /// The first 12 digits of the commit's hash; "unknown" if it was built from an archive without it.
    pub commit: Cow<'static, str>,
    /// The day of that commit, in UTC, or of `SOURCE_DATE_EPOCH`.
    pub date: Cow<'static, str>,
    pub target: Cow<'static, str>,
    /// The crate's features; "none" for a release.
    pub features: Cow<'static, str>,
    /// The version of the SQLite that it contains.
    pub sqlite: Cow<'static, str>,
}

/// How the daemon is doing, for people.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub level: Level,
    /// The state, or the worst problem: its cause, since when, what happens next by itself, and what to do.
    pub summary: String,
    /// The other problems.
    pub further: Vec<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    #[default]
    Good,
    /// PINs are accepted, but something needs attention.
    Warning,
    /// No PIN is accepted.
    Bad,
    /// One that only a newer daemon knows.
    #[serde(other)]
    Other,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Brake {
    pub reason: Cow<'static, str>,
    /// Since when polling has been paused for this reason, as far as this process knows.
    pub since: Option<String>,
    /// When the next probe is due.
    pub until: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct MostRefused {
    pub answer: Cow<'static, str>,
    pub since: String,
}

/// Polls by result.
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

/// The state of the learned schedule.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Learned {
    /// How many ended PINs the schedule has learned from.
    pub endings: u64,
    /// Whether PINs are polled by the learned schedule instead of by backoff.
    pub in_force: bool,
    /// How many PINs must end until the learned schedule, which did worse than backoff, is tried again; otherwise 0.
    pub endings_until_retry: u32,
    /// How many times in a row it did worse than backoff.
    pub relapses: u32,
    /// The cost of the PINs that ended last under the learned schedule; null before the first one ends.
    pub recent: Option<Recent>,
}

/// Averages per PIN: polls, and weighted seconds until its end is noticed. The `backoff_` members are what backoff
/// would have needed.
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
    /// Why the store can't be written; null if it can.
    pub trouble: Option<Trouble>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sink {
    /// False if only the sink's cursor is left.
    pub configured: bool,
    /// Outcomes delivered to it since the daemon's start, including repeated ones; 0 from an older daemon, which does not count
    /// them.
    #[serde(default)]
    pub delivered: u64,
    /// Every outcome up to this `seq` is delivered or recorded as failed.
    pub cursor: i64,
    /// How many seqs the cursor is behind the newest outcome.
    pub behind: i64,
    /// When the oldest outcome that the sink has not received ended; null if it has all.
    pub oldest_undelivered: Option<String>,
    pub retrying: i64,
    pub dead_letters: i64,
    /// Whether the sink accepts no more outcomes until the next start.
    pub closed: bool,
    /// When it is tried again: the next probe while its circuit breaker is open, else the next retry; null if none is scheduled.
    #[serde(default)]
    pub next_attempt: Option<String>,
    /// Since when its circuit breaker is open; null if it is closed.
    #[serde(default)]
    pub open_since: Option<String>,
    pub trouble: Option<Trouble>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct StrayAnswers {
    /// When the first stray answer arrived, of those that followed each other within an hour.
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
