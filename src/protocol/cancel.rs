//! `cancel`: withdraws a PIN; its outcome is then `cancelled`. One that has finished stays as it is.

use serde::{Deserialize, Serialize};

/// `state` is `cancelled` or `finished`, and there is always an `outcome`.
pub use super::submit::{Answer, write_answer};
use crate::pin::PinId;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    pub pin_id: PinId,
}
