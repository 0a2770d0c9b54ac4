//! `replay`: delivers outcomes to a sink again, each with its original `id`: one PIN's, a range of `seq`, or those that match a
//! filter. With a filter, each request delivers a bounded part: the client repeats it with `after` until there is no `next`, and
//! can stop at any time; repeating a part does no harm.

use serde::{Deserialize, Serialize};

pub use super::count::Answer;
use super::fields::flag;
use super::filter::Filter;
use crate::pin::PinId;

#[derive(Debug, Default, Serialize, Deserialize)]
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
    #[serde(default, skip_serializing_if = "Filter::is_empty")]
    pub filter: Filter,
    /// Allows an empty filter, which matches every outcome.
    #[serde(default, deserialize_with = "flag", skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// The `next` of the previous answer; only with `filter` or `all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}
