//! The queries about PINs in flight that match, and about PINs and outcomes with a reference.
//!
//! Promises that PINs with a whole reference are found by the index: those in flight by the one in memory, outcomes by
//! `outcome_by_reference` and the entries that are not in it yet. Every other query looks at [`SCAN`] rows. Knows
//! nothing of how indexes are filled.

use std::time::Duration;

use futures_util::TryStreamExt;
use tokio::time::sleep;

use super::super::rows::{distinct, millis_from};
use super::super::{
    Found, ONLY_PARTITION, Outcome, PAGE_BYTES, Position, Reads, SCAN, Stretch, Unavailable, Wanted,
};
use super::Reader;
use super::by_hash::hash;
use super::index::reference;
use super::many::{Query, json};
use super::read::{NUMBER, listed};
use crate::clock::Steady;
use crate::pin::PinId;

/// How many times, and how far apart, to look for a PIN that is neither in flight nor finished, because it is just
/// ending.
const LOOKS: u32 = 10;
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The rows that match, as SQL; see [`bound`].
macro_rules! matching {
    () => {
        // Compares bytes: LIKE and GLOB have characters of their own. A part of an empty blob is NULL.
        "(?1 IS NULL OR (reference IS NOT NULL \
             AND coalesce(substr(CAST(reference AS BLOB), 1, length(?1)), x'') = ?1)) \
         AND submitted_at - clock_ahead <= ?2 AND submitted_at - clock_ahead > ?3 \
         AND submitted_at < ?4 AND submitted_at >= ?5"
    };
}

/// The columns of a [`Listed`](super::super::Listed).
macro_rules! listed {
    () => {
        "pin_id, submitted_at, deadline_at, number, clock_ahead, \
         CASE WHEN octet_length(reference) <= 1024 THEN reference END AS short_reference"
    };
}

/// Binds the first five parameters of a statement: those of the rows that match.
fn bound<'q>(query: Query<'q>, wanted: &'q Wanted) -> Query<'q> {
    query
        .bind(wanted.reference_prefix.as_ref().map(|prefix| prefix.as_bytes()))
        .bind(wanted.steady_until.map_or(i64::MAX, Steady::millis))
        .bind(wanted.steady_after.map_or(i64::MIN, Steady::millis))
        .bind(wanted.wall_before.map_or(i64::MAX, millis_from))
        .bind(wanted.wall_since.map_or(i64::MIN, millis_from))
}

/// The PINs of these rows that match and have this reference.
const PAGE_REFERRING: &str = concat!(
    "SELECT ",
    listed!(),
    " FROM pin WHERE number IN (SELECT value FROM json_each(?6)) AND reference = ?7 AND ",
    matching!(),
    " ORDER BY number LIMIT ?8"
);

/// The PINs of these rows that have this reference, newest first.
const PINS_REFERRING: &str = "SELECT pin_id FROM pin \
     WHERE number IN (SELECT value FROM json_each(?1)) AND reference = ?2 ORDER BY number DESC";

/// The PINs of outcomes with this hash and this reference, newest first. Some of the waiting outcomes, `?1`, may be
/// gone.
const NEWEST_REFERRING: &str = concat!(
    "SELECT pin_id FROM outcome WHERE seq IN ( \
         SELECT value FROM json_each(?1) UNION ALL \
         SELECT * FROM (SELECT seq FROM outcome_by_reference WHERE reference_hash = ?2 ORDER BY seq DESC LIMIT ?4)) \
       AND ",
    reference!(),
    " = ?3 ORDER BY seq DESC LIMIT ?4"
);

/// Outcomes with this hash after a `seq`, oldest first.
const OUTCOMES_REFERRING: &str = "SELECT seq, pin_id, record FROM outcome WHERE seq IN ( \
         SELECT value FROM json_each(?1) UNION ALL \
         SELECT * FROM (SELECT seq FROM outcome_by_reference WHERE reference_hash = ?2 AND seq > ?3 \
                        ORDER BY seq LIMIT ?4)) \
     ORDER BY seq LIMIT ?4";

impl Reader {
    /// As [`Reads::in_flight_matching`].
    pub async fn matching(
        &self,
        after: &str,
        wanted: &Wanted,
        limit: u32,
    ) -> Result<Option<Found>, Unavailable> {
        let Some(after) = self.place(after).await? else { return Ok(None) };
        if let Some(reference) = &wanted.reference {
            return Ok(Some(self.referring(reference, after, wanted, limit).await?));
        }
        let reached: Option<i64> = if *wanted == Wanted::default() {
            // All match, so `limit` bounds what is read.
            None
        } else {
            sqlx::query_scalar("SELECT number FROM pin WHERE number > ?1 ORDER BY number LIMIT 1 OFFSET ?2")
                .bind(after)
                .bind(SCAN - 1)
                .fetch_optional(&self.readers)
                .await?
        };
        let rows = sqlx::query(concat!(
            "SELECT ",
            listed!(),
            " FROM pin WHERE number > ?6 AND number <= ?7 AND ",
            matching!(),
            " ORDER BY number LIMIT ?8"
        ));
        let rows = bound(rows, wanted)
            .bind(after)
            .bind(reached.unwrap_or(i64::MAX))
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
        let pins = rows.iter().map(listed).collect::<Result<_, sqlx::Error>>()?;
        Ok(Some(Found::new(pins, limit, reached.map(|number| format!("{NUMBER}{number}")))))
    }

    /// As [`Reads::pins_with_reference`].
    pub async fn pins_referring(&self, reference: &str, limit: u32) -> Result<Vec<PinId>, Unavailable> {
        let (hash, most) = (hash(reference), i64::from(limit));
        let mut looks = 0;
        loop {
            // The PINs in flight first: one that ends meanwhile is found among the finished ones.
            let numbers = self.references.newest_rows(hash, limit);
            let in_flight: Vec<String> = sqlx::query_scalar(PINS_REFERRING)
                .bind(json(&numbers))
                .bind(reference)
                .fetch_all(&self.readers)
                .await?;
            let waiting = self.waiting.references.newest_rows(hash, limit);
            let finished: Vec<String> = sqlx::query_scalar(NEWEST_REFERRING)
                .bind(json(&waiting))
                .bind(hash)
                .bind(reference)
                .bind(most)
                .fetch_all(&self.readers)
                .await?;
            let pins = distinct(in_flight.iter().chain(&finished), limit)?;
            looks += 1;
            if !pins.is_empty() {
                return Ok(pins);
            }
            if numbers.is_empty() || looks == LOOKS {
                self.all_are_indexed().await?;
                return Ok(pins);
            }
            // It is just ending: its outcome is committed, but not in the index in memory yet.
            sleep(LOOK_AGAIN).await;
        }
    }

    /// As [`Reads::outcomes_with_reference`].
    pub async fn outcomes_referring(
        &self,
        reference: &str,
        seq: i64,
        limit: u32,
    ) -> Result<Stretch, Unavailable> {
        if seq < self.unreferenced_to().await? {
            return self.stretch(&Position::after(seq), limit).await;
        }
        let (hash, most) = (hash(reference), limit as usize);
        let (mut stretch, mut bytes, mut after) = (Stretch::default(), 0, seq);
        loop {
            // The waiting entries first: an entry that leaves them meanwhile is already in the file.
            let waiting = self.waiting.references.rows_after(hash, after, limit);
            // Up to this `seq` they are complete; `None` if no more wait.
            let end = waiting.last().filter(|_| waiting.len() == most).copied();
            let mut rows = sqlx::query_as::<_, Outcome>(OUTCOMES_REFERRING)
                .bind(json(&waiting))
                .bind(hash)
                .bind(after)
                .bind(limit)
                .fetch(&self.readers);
            while let Some(outcome) = rows.try_next().await?
                && end.is_none_or(|end| outcome.seq <= end)
            {
                bytes += outcome.record.len();
                stretch.outcomes.push((ONLY_PARTITION, outcome));
                stretch.more = bytes >= PAGE_BYTES || stretch.outcomes.len() == most;
                if stretch.more {
                    return Ok(stretch);
                }
            }
            // Some of the waiting ones were just pruned: continue after them.
            let Some(end) = end else { return Ok(stretch) };
            after = end;
        }
    }

    /// A page of the PINs in flight that match, among the next [`SCAN`] whose reference has this one's hash.
    async fn referring(
        &self,
        reference: &str,
        after: i64,
        wanted: &Wanted,
        limit: u32,
    ) -> Result<Found, sqlx::Error> {
        let numbers = self.references.rows_after(hash(reference), after, SCAN);
        let rows = bound(sqlx::query(PAGE_REFERRING), wanted)
            .bind(json(&numbers))
            .bind(reference)
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
        let pins = rows.iter().map(listed).collect::<Result<_, sqlx::Error>>()?;
        let reached = numbers.last().filter(|_| numbers.len() == SCAN as usize);
        Ok(Found::new(pins, limit, reached.map(|number| format!("{NUMBER}{number}"))))
    }

    /// The `seq` up to which outcomes may be missing in the index by reference.
    async fn unreferenced_to(&self) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar("SELECT unreferenced_to FROM history").fetch_one(&self.readers).await
    }

    /// # Errors
    /// Outcomes of an older version are not in the index by reference yet.
    async fn all_are_indexed(&self) -> Result<(), Unavailable> {
        let to = self.unreferenced_to().await?;
        if to == 0 {
            return Ok(());
        }
        let text = format!(
            "after the upgrade, the references of outcomes up to seq {to} are still being indexed: ask again in a while"
        );
        Err(Unavailable(text.into()))
    }
}

#[cfg(test)]
#[path = "matching_tests.rs"]
mod tests;
