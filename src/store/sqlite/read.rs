//! The queries of the store, on the SQLite file.
//!
//! Promises the answers that [`Reads`] describes, as of the last commit. Knows nothing of nodes: the outbox has one
//! partition.

use std::ops::RangeInclusive;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};

use super::super::rows::{timestamp, undelivered};
use super::super::{
    AtSink, DeadLetter, Failed, Found, InFlight, Listed, MAX_LEARNED, ONLY_PARTITION, Outcome, PAGE_BYTES,
    Position, Reads, SavedSchedule, Stretch, Unavailable, Wanted,
};
use super::Reader;
use super::by_hash::hash;
use super::many::json;
use crate::clock::Steady;
use crate::outcome::Submission;
use crate::pin::PinId;

/// Marks a page token that is a row number; no PIN ID has this character.
pub(super) const NUMBER: char = '@';

impl Reader {
    /// The row number of a PIN in flight.
    async fn number_of(&self, pin: &str) -> Result<Option<i64>, sqlx::Error> {
        for number in self.pins.rows(hash(pin)) {
            let sql = "SELECT number FROM pin WHERE number = ?1 AND pin_id = ?2";
            let row = sqlx::query_scalar(sql).bind(number).bind(pin).fetch_optional(&self.readers).await?;
            if row.is_some() {
                return Ok(row);
            }
        }
        Ok(None)
    }

    /// The row number after which a page begins. The order is the one in which the PINs were accepted.
    pub(super) async fn place(&self, after: &str) -> Result<Option<i64>, sqlx::Error> {
        Ok(match (after.strip_prefix(NUMBER).map(str::parse), after) {
            (_, "") => Some(0),
            (Some(number), _) => number.ok(),
            (None, pin) => self.number_of(pin).await?,
        })
    }
}

/// Reads a PIN of a page.
pub(super) fn listed(row: &SqliteRow) -> Result<Listed, sqlx::Error> {
    let number: i64 = row.try_get("number")?;
    let token = format!("{NUMBER}{number}");
    Ok(Listed { stored: InFlight::from_row(row)?, reference: row.try_get("short_reference")?, token })
}

#[async_trait]
impl Reads for Reader {
    async fn in_flight_matching(
        &self,
        after: &str,
        wanted: &Wanted,
        limit: u32,
    ) -> Result<Option<Found>, Unavailable> {
        self.matching(after, wanted, limit).await
    }

    async fn pins_with_reference(&self, reference: &str, limit: u32) -> Result<Vec<PinId>, Unavailable> {
        self.pins_referring(reference, limit).await
    }

    async fn outcomes_with_reference(
        &self,
        reference: &str,
        seq: i64,
        limit: u32,
    ) -> Result<Stretch, Unavailable> {
        self.outcomes_referring(reference, seq, limit).await
    }

    async fn schedule(&self) -> Result<SavedSchedule, Unavailable> {
        let sql = "SELECT reason, until, rate, CASE WHEN length(learned) <= ?1 THEN learned END AS learned FROM brake";
        Ok(sqlx::query_as(sql).bind(MAX_LEARNED).fetch_one(&self.readers).await?)
    }

    async fn submission(&self, pin: &PinId) -> Result<Option<(Submission, Timestamp)>, Unavailable> {
        for number in self.pins.rows(hash(pin.as_str())) {
            let sql = "SELECT submitted_at, reference, metadata, submitter, deadline_at FROM pin \
                       WHERE number = ?1 AND pin_id = ?2";
            let row = sqlx::query(sql).bind(number).bind(pin.as_str()).fetch_optional(&self.readers).await?;
            let Some(row) = row else { continue };
            return Ok(Some((Submission::from_row(&row)?, timestamp(row.try_get("deadline_at")?))));
        }
        Ok(None)
    }

    async fn outcome_of(&self, pin: &PinId) -> Result<Option<Outcome>, Unavailable> {
        let hash = hash(pin.as_str());
        // Searches the waiting entries first: an entry that leaves them meanwhile is already in the file.
        for seq in self.waiting.pins.rows(hash) {
            let sql = "SELECT seq, pin_id, record FROM outcome WHERE seq = ?1 AND pin_id = ?2";
            let outcome =
                sqlx::query_as(sql).bind(seq).bind(pin.as_str()).fetch_optional(&self.readers).await?;
            if outcome.is_some() {
                return Ok(outcome);
            }
        }
        let newest = sqlx::query_as(
            "SELECT seq, pin_id, record FROM outcome_by_pin CROSS JOIN outcome USING (seq) \
             WHERE pin_hash = ?1 AND pin_id = ?2 ORDER BY seq DESC LIMIT 1",
        )
        .bind(hash)
        .bind(pin.as_str())
        .fetch_optional(&self.readers);
        Ok(newest.await?)
    }

    async fn submitter_of(&self, seq: i64) -> Result<Option<String>, Unavailable> {
        let found = sqlx::query_scalar("SELECT submitter FROM outcome WHERE seq = ?1").bind(seq);
        Ok(found.fetch_optional(&self.readers).await?.flatten())
    }

    async fn outcomes_after(&self, seq: i64, limit: u32) -> Result<Vec<Outcome>, Unavailable> {
        if let Some(outcomes) = self.recent.outcomes_after(seq, limit) {
            return Ok(outcomes);
        }
        let mut rows = sqlx::query_as::<_, Outcome>(
            "SELECT seq, pin_id, record FROM outcome WHERE seq > ?1 ORDER BY seq LIMIT ?2",
        )
        .bind(seq)
        .bind(limit)
        .fetch(&self.readers);
        let (mut outcomes, mut bytes) = (Vec::new(), 0);
        while bytes < PAGE_BYTES
            && let Some(outcome) = rows.try_next().await?
        {
            bytes += outcome.record.len();
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    async fn stretch(&self, position: &Position, limit: u32) -> Result<Stretch, Unavailable> {
        let after = position.in_partition(ONLY_PARTITION);
        let in_only_partition = |outcome| (ONLY_PARTITION, outcome);
        if let Some(outcomes) = self.recent.outcomes_after(after, limit) {
            let more = outcomes.last().is_some_and(|last| last.seq < self.recent.newest());
            let outcomes = outcomes.into_iter().map(in_only_partition).collect();
            return Ok(Stretch { outcomes, removed: Vec::new(), more });
        }
        // One statement, so that no outcome is both removed and returned.
        let mut rows = sqlx::query(
            "SELECT 0 AS kind, pruned_to AS seq, NULL AS pin_id, NULL AS record FROM history WHERE pruned_to > ?1 \
             UNION ALL \
             SELECT * FROM (SELECT 1, seq, pin_id, record FROM outcome WHERE seq > ?1 ORDER BY seq LIMIT ?2) \
             ORDER BY kind, seq",
        )
        .bind(after)
        .bind(limit)
        .fetch(&self.readers);
        let (mut stretch, mut bytes) = (Stretch::default(), 0);
        while let Some(row) = rows.try_next().await? {
            if row.try_get::<i64, _>("kind")? == 0 {
                stretch.removed.push((ONLY_PARTITION, row.try_get("seq")?));
                continue;
            }
            let outcome = Outcome::from_row(&row)?;
            bytes += outcome.record.len();
            stretch.outcomes.push(in_only_partition(outcome));
            if bytes >= PAGE_BYTES {
                stretch.more = true;
                return Ok(stretch);
            }
        }
        stretch.more = stretch.outcomes.len() == limit as usize;
        Ok(stretch)
    }

    async fn before_last(&self, count: u32) -> Result<Position, Unavailable> {
        // Not from the file, because retention may have removed the newest outcome.
        if count == 0 {
            return Ok(Position::after(self.recent.newest()));
        }
        let seq: Option<i64> =
            sqlx::query_scalar("SELECT seq FROM outcome ORDER BY seq DESC LIMIT 1 OFFSET ?1")
                .bind(count)
                .fetch_optional(&self.readers)
                .await?;
        Ok(Position::after(seq.unwrap_or(0)))
    }

    async fn first_seq_from(&self, seq: i64) -> Result<Option<i64>, Unavailable> {
        let first = sqlx::query_scalar("SELECT min(seq) FROM outcome WHERE seq >= ?1");
        Ok(first.bind(seq).fetch_one(&self.readers).await?)
    }

    async fn cursors(&self) -> Result<Vec<(String, i64)>, Unavailable> {
        let sql = "SELECT name, cursor FROM sink ORDER BY name";
        Ok(sqlx::query_as(sql).fetch_all(&self.readers).await?)
    }

    async fn failed(
        &self,
        sink: &str,
        dead: bool,
        seq: i64,
        limit: u32,
    ) -> Result<Vec<(Failed, Outcome)>, Unavailable> {
        let rows = sqlx::query(
            "SELECT seq, pin_id, record, dead, tries, first_try_at, last_try_at, error, first_ahead, last_ahead \
             FROM delivery JOIN outcome USING (seq) \
             WHERE sink = ?1 AND dead = ?2 AND seq > ?3 ORDER BY seq LIMIT ?4",
        )
        .bind(sink)
        .bind(dead)
        .bind(seq)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        Ok(rows.iter().map(undelivered).collect::<Result<_, _>>()?)
    }

    async fn dead_letters(
        &self,
        sink: Option<&str>,
        pin: Option<&PinId>,
        seqs: &RangeInclusive<i64>,
        (after_sink, after_seq): &(String, i64),
        limit: u32,
    ) -> Result<(Vec<DeadLetter>, bool), Unavailable> {
        let mut rows = sqlx::query(
            "SELECT seq, pin_id, record, dead, tries, first_try_at, last_try_at, error, first_ahead, last_ahead, sink \
             FROM delivery JOIN outcome USING (seq) \
             WHERE dead AND (?1 IS NULL OR sink = ?1) AND (?5 IS NULL OR pin_id = ?5) \
               AND seq BETWEEN ?6 AND ?7 AND (sink, seq) > (?2, ?3) ORDER BY sink, seq LIMIT ?4",
        )
        .bind(sink)
        .bind(after_sink)
        .bind(after_seq)
        .bind(limit)
        .bind(pin.map(PinId::as_str))
        .bind(seqs.start())
        .bind(seqs.end())
        .fetch(&self.readers);
        let (mut letters, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.try_next().await? {
            let (failed, outcome) = undelivered(&row)?;
            bytes += outcome.record.len() + failed.error.as_ref().map_or(0, String::len);
            letters.push((row.try_get("sink")?, failed, outcome));
            if bytes >= PAGE_BYTES {
                return Ok((letters, true));
            }
        }
        let full = letters.len() == limit as usize;
        Ok((letters, full))
    }

    async fn lacking(&self, sink: &str, seqs: &[i64]) -> Result<Vec<i64>, Unavailable> {
        let lacking = sqlx::query_scalar(
            "SELECT value FROM json_each(?2) WHERE value > (SELECT cursor FROM sink WHERE name = ?1) \
                 OR EXISTS (SELECT 1 FROM delivery WHERE sink = ?1 AND seq = value)",
        )
        .bind(sink)
        .bind(json(&seqs))
        .fetch_all(&self.readers);
        Ok(lacking.await?)
    }

    async fn sinks_of(&self, seq: i64) -> Result<Vec<AtSink>, Unavailable> {
        let sinks = sqlx::query_as(
            "SELECT d.seq, name AS sink, cursor, dead, tries, first_try_at, last_try_at, error, \
             first_ahead, last_ahead, dropped_at FROM sink \
             LEFT JOIN delivery d ON d.sink = name AND d.seq = ?1 \
             LEFT JOIN dropped x ON x.sink = name AND x.seq = ?1 ORDER BY name",
        )
        .bind(seq)
        .fetch_all(&self.readers);
        Ok(sinks.await?)
    }

    async fn failed_counts(&self) -> Result<Vec<(String, i64, i64)>, Unavailable> {
        let sql = "SELECT sink, count(*) FILTER (WHERE NOT dead), count(*) FILTER (WHERE dead) \
                   FROM delivery GROUP BY sink";
        Ok(sqlx::query_as(sql).fetch_all(&self.readers).await?)
    }

    async fn oldest_undelivered(&self, sink: &str, cursor: i64) -> Result<Option<Steady>, Unavailable> {
        // The outcome with the lowest `seq` is the oldest, so each half reads one row. There is no need to search by
        // the time of the end.
        let millis: Option<i64> = sqlx::query_scalar(
            "SELECT min(finished_at) FROM ( \
                 SELECT * FROM (SELECT finished_at FROM outcome WHERE seq > ?2 ORDER BY seq LIMIT 1) \
                 UNION ALL \
                 SELECT * FROM (SELECT finished_at FROM delivery JOIN outcome USING (seq) \
                                WHERE sink = ?1 AND NOT dead ORDER BY seq LIMIT 1))",
        )
        .bind(sink)
        .bind(cursor)
        .fetch_one(&self.readers)
        .await?;
        Ok(millis.map(Steady::from_millis))
    }

    async fn close(&self) {
        self.readers.close().await;
    }
}
