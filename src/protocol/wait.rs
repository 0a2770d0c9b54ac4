//! `wait`: answers once a PIN has its outcome.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fields::duration;
use super::{Raw, Record};
use crate::pin::PinId;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    pub pin_id: PinId,
    /// The longest wait; without it, the daemon waits as long as the PIN is in flight.
    #[serde(default, with = "duration", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    pub pin_id: PinId,
    pub outcome: Raw<Record>,
}
