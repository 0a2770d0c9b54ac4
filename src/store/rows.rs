//! What stands in a column of either store, and what it is outside.

use jiff::Timestamp;
use serde_json::value::RawValue;

use crate::pin::PinId;

/// Metadata as it was checked at the intake; a column that is no JSON any more counts as none.
pub fn raw(text: Option<String>) -> Option<Box<RawValue>> {
    text.and_then(|text| RawValue::from_string(text).ok())
}

/// A time as it is stored; one out of range, which nothing of ours writes, is the epoch.
pub fn timestamp(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A PIN ID as it is stored; every one was valid when it went in.
pub fn pin_id(text: &str) -> Result<PinId, sqlx::Error> {
    text.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}
