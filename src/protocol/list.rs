//! `list`: the PINs in flight, page by page.

use serde::{Deserialize, Serialize};

use super::Raw;
use super::show::Pin;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// How many at most: see [`super::page_limit`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// What an answer gave as `next`, or a PIN in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    pub pins: Vec<Raw<Pin>>,
    /// Where the next page begins; not there after the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
