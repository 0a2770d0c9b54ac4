//! `cancel`: withdraws a PIN, whose outcome is then `cancelled`. A PIN that has finished keeps its outcome.

use serde::{Deserialize, Serialize};

/// `state` is `cancelled` or `finished`; `outcome` is always present.
pub use super::submit::{Answer, write_answer};
use crate::pin::PinId;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    pub pin_id: PinId,
}
