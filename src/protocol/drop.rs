//! `drop`: discards dead letters; the sink never receives them.

use serde::{Deserialize, Serialize};

pub use super::replay::Answer;
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
}
