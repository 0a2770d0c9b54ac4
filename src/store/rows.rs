//! Converts between database columns and Rust types, the same for both stores.
//!
//! Promises that a row which any version of pinwatch wrote can be read. Knows nothing of tables or queries.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::{Anchor, Boot, Dated, Steady};
use crate::outcome::Metadata;
use crate::pin::PinId;

/// Metadata from its column; text that is no longer valid JSON counts as none. Removes white space, which older
/// versions stored too.
pub fn metadata(text: Option<String>) -> Option<Metadata> {
    serde_json::from_str(&text?).ok()
}

/// A time from its column, in milliseconds. A time out of range, which pinwatch never writes, becomes the epoch.
pub fn timestamp(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A date from its two columns, in milliseconds: the wall time, and how far it was ahead of steady time.
pub fn dated(millis: i64, ahead: i64) -> Dated {
    Dated::with_ahead(timestamp(millis), ahead)
}

/// An anchor of steady time from its columns; times are in milliseconds.
pub fn anchor(steady: Option<i64>, boot_id: Option<String>, boot_time: Option<i64>) -> Option<Anchor> {
    let time = Duration::from_millis(u64::try_from(boot_time.unwrap_or(0)).unwrap_or(0));
    let boot = Boot { id: boot_id.map(Arc::from), time };
    Some(Anchor { boot, steady: Steady::from_millis(steady?) })
}

/// A PIN ID from its column.
///
/// # Errors
/// The text is not a PIN ID, which pinwatch never writes.
pub fn pin_id(text: &str) -> Result<PinId, sqlx::Error> {
    text.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}
