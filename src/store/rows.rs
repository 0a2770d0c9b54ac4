//! What stands in a column of either store, and what it is outside.

use jiff::Timestamp;

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

/// A PIN ID as it is stored; every one was valid when it went in.
pub fn pin_id(text: &str) -> Result<PinId, sqlx::Error> {
    text.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}
