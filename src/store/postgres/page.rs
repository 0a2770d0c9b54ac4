//! Reads PINs, outcomes and failed deliveries from rows of the database.
//!
//! Promises nothing beyond each function's list of columns. Knows nothing of the queries.

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::super::rows::{dated, pin_id, timestamp};
use super::super::{Failed, InFlight, Outcome, Record};

/// Reads `pin_id, submitted_at, deadline_at, clock_ahead`.
pub fn in_flight(row: &PgRow) -> Result<InFlight, sqlx::Error> {
    Ok(InFlight {
        pin: pin_id(row.try_get(0)?)?,
        submitted_at: dated(row.try_get(1)?, row.try_get(3)?),
        deadline_at: timestamp(row.try_get(2)?),
    })
}

/// Reads `seq, pin_id, record`.
pub fn outcome(row: &PgRow) -> Result<Outcome, sqlx::Error> {
    let record: &str = row.try_get(2)?;
    Ok(Outcome { seq: row.try_get(0)?, pin: pin_id(row.try_get(1)?)?, record: Record::from(record) })
}

/// Reads `seq`, and the columns of `delivery` after the first three.
pub fn failed(row: &PgRow) -> Result<Failed, sqlx::Error> {
    let date = |at, ahead| {
        let (millis, ahead): (Option<i64>, Option<i64>) = (row.try_get(at)?, row.try_get(ahead)?);
        Ok::<_, sqlx::Error>(millis.map(|millis| dated(millis, ahead.unwrap_or(0))))
    };
    Ok(Failed {
        seq: row.try_get(0)?,
        dead: row.try_get(3)?,
        tries: u32::try_from(row.try_get::<i32, _>(4)?).unwrap_or(0),
        first_try_at: date(5, 8)?,
        last_try_at: date(6, 9)?,
        error: row.try_get(7)?,
    })
}

/// Replaces NUL, which PostgreSQL's text can't hold.
pub fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
