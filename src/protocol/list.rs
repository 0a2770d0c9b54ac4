//! `list`: lists the PINs in flight, or the finished ones if the filter asks for them, page by page.

use serde::{Deserialize, Serialize};

use super::Raw;
use super::filter::Filter;
use super::show::Pin;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The most PINs in the answer: see [`super::page_limit`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The `next` of the previous answer, or the ID of a PIN in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    #[serde(default, skip_serializing_if = "Filter::is_empty")]
    pub filter: Filter,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    pub pins: Vec<Raw<Pin>>,
    /// Where the next page begins; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
