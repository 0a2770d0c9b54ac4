//! Converts database columns into Rust types, the same for both stores.
//!
//! Promises that a row which any version of pinwatch wrote can be read. Finds columns by their names. Knows nothing of
//! tables or queries.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};

use super::{AtSink, Failed, InFlight, Outcome, SavedSchedule};
use crate::clock::{Anchor, Boot, Dated, Steady};
use crate::outcome::{Metadata, Submission};
use crate::pin::PinId;

/// Reads these types from both kinds of row.
macro_rules! from_rows {
    ($($row:ty),*) => { $(
        /// Reads `pin_id, submitted_at, clock_ahead, deadline_at`.
        impl FromRow<'_, $row> for InFlight {
            fn from_row(row: &$row) -> Result<Self, sqlx::Error> {
                Ok(Self {
                    pin: pin_id(row.try_get("pin_id")?)?,
                    submitted_at: dated(row.try_get("submitted_at")?, row.try_get("clock_ahead")?),
                    deadline_at: timestamp(row.try_get("deadline_at")?),
                })
            }
        }

        /// Reads `submitted_at, reference, metadata, submitter`.
        impl FromRow<'_, $row> for Submission {
            fn from_row(row: &$row) -> Result<Self, sqlx::Error> {
                Ok(Self {
                    submitted_at: timestamp(row.try_get("submitted_at")?),
                    reference: row.try_get("reference")?,
                    metadata: metadata(row.try_get("metadata")?),
                    submitter: row.try_get("submitter")?,
                })
            }
        }

        /// Reads `seq, pin_id, record`.
        impl FromRow<'_, $row> for Outcome {
            fn from_row(row: &$row) -> Result<Self, sqlx::Error> {
                let record: &str = row.try_get("record")?;
                Ok(Self { seq: row.try_get("seq")?, pin: pin_id(row.try_get("pin_id")?)?, record: record.into() })
            }
        }

        /// Reads `seq` and the columns of `delivery` that say how it failed.
        impl FromRow<'_, $row> for Failed {
            fn from_row(row: &$row) -> Result<Self, sqlx::Error> {
                let date = |at, ahead| {
                    let millis: Option<i64> = row.try_get(at)?;
                    let ahead = row.try_get(ahead)?;
                    Ok::<_, sqlx::Error>(millis.map(|millis| dated(millis, ahead)))
                };
                Ok(Self {
                    seq: row.try_get("seq")?,
                    dead: row.try_get("dead")?,
                    tries: u32::try_from(row.try_get::<i32, _>("tries")?).unwrap_or(0),
                    first_try_at: date("first_try_at", "first_ahead")?,
                    last_try_at: date("last_try_at", "last_ahead")?,
                    error: row.try_get("error")?,
                })
            }
        }

        /// Reads `sink, cursor, dropped_at`; and a [`Failed`] if it has a `seq`.
        impl FromRow<'_, $row> for AtSink {
            fn from_row(row: &$row) -> Result<Self, sqlx::Error> {
                let known: Option<i64> = row.try_get("seq")?;
                let dropped_at: Option<i64> = row.try_get("dropped_at")?;
                Ok(Self {
                    sink: row.try_get("sink")?,
                    cursor: row.try_get("cursor")?,
                    failed: known.map(|_| Failed::from_row(row)).transpose()?,
                    dropped_at: dropped_at.map(timestamp),
                })
            }
        }

        /// Reads `reason, until, rate, learned`.
        impl FromRow<'_, $row> for SavedSchedule {
            fn from_row(row: &$row) -> Result<Self, sqlx::Error> {
                let until: Option<i64> = row.try_get("until")?;
                Ok(Self {
                    reason: row.try_get("reason")?,
                    until: until.map(Steady::from_millis),
                    rate: row.try_get("rate")?,
                    learned: row.try_get("learned")?,
                })
            }
        }
    )* };
}

from_rows!(PgRow, SqliteRow);

/// Reads a failed delivery and its outcome.
pub fn undelivered<'r, R: Row>(row: &'r R) -> Result<(Failed, Outcome), sqlx::Error>
where
    Failed: FromRow<'r, R>,
    Outcome: FromRow<'r, R>,
{
    Ok((Failed::from_row(row)?, Outcome::from_row(row)?))
}

/// Metadata from its column; text that is no longer valid JSON counts as none. Removes white space, which older
/// versions stored too.
pub fn metadata(text: Option<String>) -> Option<Metadata> {
    serde_json::from_str(&text?).ok()
}

/// The first `limit` different PINs among these.
pub fn distinct<'a>(ids: impl Iterator<Item = &'a String>, limit: u32) -> Result<Vec<PinId>, sqlx::Error> {
    let mut seen = HashSet::new();
    let ids = ids.filter(|id| seen.insert(id.as_str())).take(limit as usize);
    ids.map(|id| pin_id(id)).collect()
}

/// The reference in a record, if it has one.
pub fn reference_of(record: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Referring {
        reference: Option<String>,
    }
    serde_json::from_str::<Referring>(record).ok()?.reference
}

/// A time from its column, in milliseconds. A time out of range, which pinwatch never writes, becomes the epoch.
pub fn timestamp(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The first whole millisecond that is not before this time, as a column has it.
pub fn millis_from(time: Timestamp) -> i64 {
    let millis = time.as_millisecond();
    // A time before the epoch is rounded up already.
    millis + i64::from(time.subsec_nanosecond() % 1_000_000 > 0)
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
