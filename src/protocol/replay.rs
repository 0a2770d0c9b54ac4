//! `replay`: delivers outcomes to a sink again, each with its original `id`.

use serde::{Deserialize, Serialize};

use super::fields::flag;
use crate::pin::PinId;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    pub sink: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin_id: Option<PinId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<i64>,
    /// Limits the replay to dead letters.
    #[serde(default, deserialize_with = "flag")]
    pub dead: bool,
}

/// Also the answer to `drop` and `forget_sink`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// How many outcomes were affected; for `forget_sink`, 1 if the sink was removed.
    pub count: u64,
}
