//! `dead_letters`: outcomes that a sink refused, or did not take within its `max_age`; page by page.

use serde::{Deserialize, Serialize};

use super::{Raw, Record};
use crate::pin::PinId;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// Only those of this sink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin_id: Option<PinId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<i64>,
    /// What an answer gave as `next`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How many at most: see [`super::page_limit`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// In the order of sink and `seq`.
    pub dead_letters: Vec<Raw<DeadLetter>>,
    /// Where the next page begins; not there after the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// An outcome that a sink did not take and is not tried with any more.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    pub sink: String,
    pub seq: i64,
    pub pin_id: PinId,
    pub tries: u32,
    /// When it was tried first.
    pub since: Option<String>,
    pub last_try_at: Option<String>,
    /// What the sink said last.
    pub error: Option<String>,
    pub outcome: Option<Raw<Record>>,
}
