//! `count`: counts the PINs in flight that match a filter, part by part; what a person sees before acting on them.

use serde::{Deserialize, Serialize};

use super::filter::Filter;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    #[serde(default)]
    pub filter: Filter,
    /// The `next` of the previous answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Also the answer to `cancel_matching`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// How many match in this part, or were withdrawn. The sum of all parts is exact.
    pub count: u64,
    /// Where the next part begins; absent after the last part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
