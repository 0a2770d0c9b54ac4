//! An outcome record, as its readers need it.

use serde::Deserialize;

use crate::pin::PinId;

/// What a client needs of an outcome record; `docs/protocol.md` has all of it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub seq: i64,
    pub pin_id: PinId,
    pub outcome: String,
    pub status: Option<String>,
    pub description: Option<String>,
    pub delivered: Option<bool>,
    pub error: Option<String>,
    pub reference: Option<String>,
    pub submitted_at: Option<String>,
    pub finished_at: Option<String>,
    pub polls: Option<u64>,
}
