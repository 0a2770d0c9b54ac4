//! An outcome record as clients read it.

use serde::Deserialize;

use crate::pin::PinId;

/// The members of an outcome record that clients use; `docs/protocol.md` describes all members.
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
