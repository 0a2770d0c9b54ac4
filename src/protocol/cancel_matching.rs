//! `cancel_matching`: withdraws the PINs in flight that match a filter, a bounded part per request. The client repeats
//! it with `after` until there is no `next`, and can stop at any time; repeating a part does no harm.

use serde::{Deserialize, Serialize};

pub use super::count::Answer;
use super::fields::flag;
use super::filter::Filter;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    #[serde(default)]
    pub filter: Filter,
    /// Allows an empty filter, which matches every PIN in flight.
    #[serde(default, deserialize_with = "flag")]
    pub all: bool,
    /// The `next` of the previous answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}
