//! `forget_sink`: forgets a sink that is not configured any more, with its dead letters; no outcomes are kept for it.

use serde::{Deserialize, Serialize};

pub use super::replay::Answer;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub sink: String,
}
