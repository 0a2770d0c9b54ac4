//! The queries about PINs in flight that match, and about PINs and outcomes with a reference.
//!
//! Promises that PINs with a whole reference are found by an index (migration 7). Every other query looks at [`SCAN`] rows. Knows
//! nothing of how outcomes are written, except for the keys of a record.

use sqlx::{FromRow, Row};

use super::super::rows::{distinct, millis_from};
use super::super::{Found, Outcome, PAGE_BYTES, SCAN, Stretch, Unavailable, Wanted};
use super::connect::answer;
use super::read::{Reader, listed, slot_after};
use crate::clock::Steady;
use crate::pin::PinId;
use crate::text::json_line;

/// Selects the last PIN that a page examines. `$1`, `$2`: slot and ID after which the page begins. `$3`: how many PINs to skip.
/// `$4`: the reference, which only `REACHED_REFERRING` uses.
macro_rules! reached {
    ($referring:literal) => {
        concat!(
            "SELECT slot, pin_id FROM pin WHERE (slot, pin_id) > ($1, $2) AND ",
            $referring,
            " ORDER BY slot, pin_id LIMIT 1 OFFSET $3"
        )
    };
}
const REACHED: &str = reached!("($4::text IS NULL OR true)");
const REACHED_REFERRING: &str =
    reached!("hashtextextended(reference, 0) = hashtextextended($4, 0) AND reference = $4");

/// Selects the PINs of a page. `$4`: the reference or its beginning. Compares texts for equality only: LIKE has characters of its
/// own.
macro_rules! matching {
    ($referring:literal) => {
        concat!(
            "SELECT pin_id, submitted_at, deadline_at, clock_ahead, \
             CASE WHEN octet_length(reference) <= 1024 THEN reference END AS short_reference FROM pin \
             WHERE (slot, pin_id) > ($1, $2) AND (slot, pin_id) <= ($3, $5) AND ",
            $referring,
            " AND submitted_at - clock_ahead <= $6 AND submitted_at - clock_ahead > $7 \
             AND submitted_at < $8 AND submitted_at >= $9 ORDER BY slot, pin_id LIMIT $10"
        )
    };
}
const MATCHING: &str = matching!("($4::text IS NULL OR left(reference, length($4)) = $4)");
const MATCHING_REFERRING: &str =
    matching!("hashtextextended(reference, 0) = hashtextextended($4, 0) AND reference = $4");

const PINS_REFERRING: &str = "SELECT pin_id FROM pin \
     WHERE hashtextextended(reference, 0) = hashtextextended($1, 0) AND reference = $1 \
     ORDER BY submitted_at DESC, pin_id LIMIT $2";

/// The outcomes whose record has the reference `$1`, which is written as [`in_record`] writes it. The migration that makes the
/// index on these expressions explains them.
macro_rules! referring {
    () => {
        "split_part(split_part(record, '\"metadata\":', 1), '\"reference\":\"', 2) <> '' \
         AND hashtextextended(split_part(split_part(split_part(record, '\"metadata\":', 1), '\"reference\":\"', 2), '\",', 1), 0) \
             = hashtextextended(split_part($1 || '\",', '\",', 1), 0) \
         AND starts_with(split_part(split_part(record, '\"metadata\":', 1), '\"reference\":\"', 2), $1 || '\"')"
    };
}

const NEWEST_REFERRING: &str =
    concat!("SELECT pin_id FROM outcome WHERE ", referring!(), " ORDER BY seq DESC LIMIT $2");

const OUTCOMES_REFERRING: &str = concat!(
    "SELECT lane, seq, pin_id, record FROM ( \
         SELECT lane, seq, pin_id, record, \
             sum(octet_length(record)) OVER (ORDER BY seq) - octet_length(record) AS before \
         FROM (SELECT * FROM outcome WHERE ",
    referring!(),
    " AND seq > $2 ORDER BY seq LIMIT $3) AS next) AS page WHERE before < $4 ORDER BY seq"
);

/// A reference as a record has it, without its quotes.
fn in_record(reference: &str) -> String {
    let json = json_line(serde_json::Value::from(reference).to_string());
    json[1..json.len() - 1].to_owned()
}

impl Reader {
    /// As [`Reads::in_flight_matching`](super::super::Reads::in_flight_matching).
    pub async fn matching(
        &self,
        after: &str,
        wanted: &Wanted,
        limit: u32,
    ) -> Result<Option<Found>, Unavailable> {
        let Some(from_slot) = slot_after(after) else { return Ok(None) };
        if let (Some(reference), Some(prefix)) = (&wanted.reference, &wanted.reference_prefix)
            && !reference.starts_with(prefix)
        {
            return Ok(Some(Found::default()));
        }
        let (reached, pins) = match &wanted.reference {
            // If all match, `limit` bounds what is read.
            None if *wanted == Wanted::default() => (None, MATCHING),
            None => (Some(REACHED), MATCHING),
            Some(_) => (Some(REACHED_REFERRING), MATCHING_REFERRING),
        };
        let text = wanted.reference.as_deref().or(wanted.reference_prefix.as_deref());
        let reached: Option<(i16, String)> = match reached {
            None => None,
            Some(sql) => {
                let reached = sqlx::query_as(sql)
                    .bind(from_slot)
                    .bind(after)
                    .bind(i64::from(SCAN) - 1)
                    .bind(text)
                    .fetch_optional(&self.readers);
                answer(reached).await?
            }
        };
        let (to_slot, to) = reached.as_ref().map_or((i16::MAX, ""), |(slot, pin)| (*slot, pin.as_str()));
        let rows = sqlx::query(pins)
            .bind(from_slot)
            .bind(after)
            .bind(to_slot)
            .bind(text)
            .bind(to)
            .bind(wanted.steady_until.map_or(i64::MAX, Steady::millis))
            .bind(wanted.steady_after.map_or(i64::MIN, Steady::millis))
            .bind(wanted.wall_before.map_or(i64::MAX, millis_from))
            .bind(wanted.wall_since.map_or(i64::MIN, millis_from))
            .bind(i64::from(limit))
            .fetch_all(&self.readers);
        let pins = answer(rows).await?.iter().map(listed).collect::<Result<_, sqlx::Error>>()?;
        Ok(Some(Found::new(pins, limit, reached.map(|(_, pin)| pin))))
    }

    /// As [`Reads::pins_with_reference`](super::super::Reads::pins_with_reference).
    pub async fn pins_referring(&self, reference: &str, limit: u32) -> Result<Vec<PinId>, Unavailable> {
        // The PINs in flight first: one that ends meanwhile is found among the finished ones.
        let in_flight = sqlx::query_scalar(PINS_REFERRING)
            .bind(reference)
            .bind(i64::from(limit))
            .fetch_all(&self.readers);
        let in_flight: Vec<String> = answer(in_flight).await?;
        let finished = sqlx::query_scalar(NEWEST_REFERRING)
            .bind(in_record(reference))
            .bind(i64::from(limit))
            .fetch_all(&self.readers);
        let finished: Vec<String> = answer(finished).await?;
        Ok(distinct(in_flight.iter().chain(&finished), limit)?)
    }

    /// As [`Reads::outcomes_with_reference`](super::super::Reads::outcomes_with_reference).
    pub async fn outcomes_referring(
        &self,
        reference: &str,
        seq: i64,
        limit: u32,
    ) -> Result<Stretch, Unavailable> {
        let rows = sqlx::query(OUTCOMES_REFERRING)
            .bind(in_record(reference))
            .bind(seq)
            .bind(i64::from(limit))
            .bind(PAGE_BYTES as i64)
            .fetch_all(&self.readers);
        let (mut stretch, mut bytes) = (Stretch::default(), 0);
        for row in answer(rows).await? {
            let outcome = Outcome::from_row(&row)?;
            bytes += outcome.record.len();
            stretch.outcomes.push((row.try_get("lane")?, outcome));
        }
        stretch.more = bytes >= PAGE_BYTES || stretch.outcomes.len() == limit as usize;
        Ok(stretch)
    }
}

#[cfg(test)]
#[path = "matching_tests.rs"]
mod tests;
