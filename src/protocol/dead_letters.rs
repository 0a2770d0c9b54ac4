//! `dead_letters`: lists outcomes that a sink refused or did not accept within its `max_age`, page by page.

use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::{Raw, Record};
use crate::pin::PinId;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// Limits the list to this sink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin_id: Option<PinId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<i64>,
    #[serde(default, skip_serializing_if = "Filter::is_empty")]
    pub filter: Filter,
    /// The `next` of the previous answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// The most dead letters in the answer: see [`super::page_limit`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Sorted by sink, then by `seq`.
    pub dead_letters: Vec<Raw<DeadLetter>>,
    /// Where the next page begins; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// An outcome that a sink did not accept and that is not delivered to it again.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    pub sink: String,
    pub seq: i64,
    pub pin_id: PinId,
    pub tries: u32,
    /// When the first delivery was tried.
    pub since: Option<String>,
    pub last_try_at: Option<String>,
    /// The sink's last error.
    pub error: Option<String>,
    pub outcome: Option<Raw<Record>>,
}
