//! `forget_sink`: removes a sink that is no longer configured, and its dead letters. The store then keeps no outcomes
//! for it.

use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub sink: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// 1 if the sink was removed.
    pub count: u64,
}
