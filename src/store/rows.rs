//! What stands in a column of either store, and what it is outside.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::{Anchor, Boot, Dated, Steady};
use crate::outcome::Metadata;
use crate::pin::PinId;

/// Metadata as it is stored; a column that is no JSON any more counts as none. Older versions stored the submitter's
/// white space too.
pub fn metadata(text: Option<String>) -> Option<Metadata> {
    serde_json::from_str(&text?).ok()
}

/// A time as it is stored; one out of range, which nothing of ours writes, is the epoch.
pub fn timestamp(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A date as it is stored: its wall-clock time, and by how much that was ahead of the steady axis.
pub fn dated(millis: i64, ahead: i64) -> Dated {
    Dated::with_ahead(timestamp(millis), ahead)
}

/// A note of the time as it is stored.
pub fn anchor(steady: Option<i64>, boot_id: Option<String>, boot_time: Option<i64>) -> Option<Anchor> {
    let time = Duration::from_millis(u64::try_from(boot_time.unwrap_or(0)).unwrap_or(0));
    let boot = Boot { id: boot_id.map(Arc::from), time };
    Some(Anchor { boot, steady: Steady::from_millis(steady?) })
}

/// A PIN ID as it is stored; every one was valid when it went in.
pub fn pin_id(text: &str) -> Result<PinId, sqlx::Error> {
    text.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}
