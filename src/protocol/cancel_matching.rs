//! `cancel_matching`: withdraws the PINs in flight that match a filter, a bounded part per request. The client repeats
//! it with `after` until there is no `next`, and can stop at any time; repeating a part does no harm.

use std::num::NonZeroU32;

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
    /// Withdraw at most this many, even if more match: a PIN's status changes, so more can match than were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<NonZeroU32>,
    /// The `next` of the previous answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}
