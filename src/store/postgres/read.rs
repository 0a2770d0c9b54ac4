//! The queries that every store answers, on PostgreSQL.
//!
//! Promises the answers that [`Reads`] describes; the outbox and cursors are those of this node. Knows nothing of
//! leases.

use std::ops::RangeInclusive;

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{FromRow, Row};

use super::super::rows::{timestamp, undelivered};
use super::super::{
    AtSink, DeadLetter, Failed, Found, InFlight, Listed, MAX_LEARNED, Outcome, PAGE_BYTES, Position, Reads,
    SavedSchedule, Stretch, Unavailable, Wanted,
};
use super::Node;
use super::connect::answer;
use crate::clock::Steady;
use crate::outcome::Submission;
use crate::pin::PinId;
use crate::slot::slot_of;

/// The reading side.
pub struct Reader {
    pub(super) readers: PgPool,
    pub(super) node: Node,
}

fn slot(pin: &PinId) -> i16 {
    i16::from(slot_of(pin))
}

/// Returns the slot of the PIN after which a page begins, because the order is by slot first; -1 for the first page.
/// `None` if `after` is not a PIN ID.
pub(super) fn slot_after(after: &str) -> Option<i16> {
    match after.parse() {
        Ok(pin) => Some(slot(&pin)),
        Err(_) => after.is_empty().then_some(-1),
    }
}

/// Reads a PIN of a page.
pub(super) fn listed(row: &PgRow) -> Result<Listed, sqlx::Error> {
    let stored = InFlight::from_row(row)?;
    let token = stored.pin.to_string();
    Ok(Listed { stored, reference: row.try_get("short_reference")?, token })
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
        let sql = "SELECT brake_reason AS reason, brake_until AS until, brake_rate AS rate, \
                   CASE WHEN length(learned) <= $2 THEN learned END AS learned FROM node WHERE id = $1";
        answer(sqlx::query_as(sql).bind(self.node.id()).bind(MAX_LEARNED).fetch_one(&self.readers)).await
    }

    async fn submission(&self, pin: &PinId) -> Result<Option<(Submission, Timestamp)>, Unavailable> {
        let row = sqlx::query(
            "SELECT submitted_at, reference, metadata, submitter, deadline_at FROM pin WHERE slot = $1 AND pin_id = $2",
        )
        .bind(slot(pin))
        .bind(pin.as_str())
        .fetch_optional(&self.readers);
        let Some(row) = answer(row).await? else { return Ok(None) };
        Ok(Some((Submission::from_row(&row)?, timestamp(row.try_get("deadline_at")?))))
    }

    async fn outcome_of(&self, pin: &PinId) -> Result<Option<Outcome>, Unavailable> {
        let sql = "SELECT seq, pin_id, record FROM outcome WHERE pin_id = $1 ORDER BY seq DESC LIMIT 1";
        answer(sqlx::query_as(sql).bind(pin.as_str()).fetch_optional(&self.readers)).await
    }

    async fn submitter_of(&self, seq: i64) -> Result<Option<String>, Unavailable> {
        let found = sqlx::query_scalar("SELECT submitter FROM outcome WHERE seq = $1").bind(seq);
        Ok(answer(found.fetch_optional(&self.readers)).await?.flatten())
    }

    async fn outcomes_after(&self, seq: i64, limit: u32) -> Result<Vec<Outcome>, Unavailable> {
        let outcomes = sqlx::query_as(
            "SELECT seq, pin_id, record FROM ( \
                 SELECT seq, pin_id, record, \
                     sum(octet_length(record)) OVER (ORDER BY seq) - octet_length(record) AS before \
                 FROM (SELECT * FROM outcome WHERE lane = $1 AND seq > $2 ORDER BY seq LIMIT $3) AS next) AS page \
             WHERE before < $4 ORDER BY seq",
        )
        .bind(self.node.id())
        .bind(seq)
        .bind(i64::from(limit))
        .bind(PAGE_BYTES as i64)
        .fetch_all(&self.readers);
        answer(outcomes).await
    }

    async fn stretch(&self, position: &Position, limit: u32) -> Result<Stretch, Unavailable> {
        let (partitions, seqs) = position.partitions();
        // One statement, so that no outcome is both removed and returned.
        let rows = sqlx::query(
            "WITH lane AS ( \
                 SELECT node.id, coalesce(place.seq, $3) AS seq, pruned.seq AS pruned_to FROM node \
                 LEFT JOIN unnest($1::integer[], $2::bigint[]) AS place (lane, seq) ON place.lane = node.id \
                 LEFT JOIN pruned ON pruned.lane = node.id), \
             page AS ( \
                 SELECT lane.id, next.seq, next.pin_id, next.record, \
                     sum(octet_length(next.record)) OVER (ORDER BY next.seq) - octet_length(next.record) AS before \
                 FROM lane CROSS JOIN LATERAL ( \
                     SELECT seq, pin_id, record FROM outcome \
                     WHERE outcome.lane = lane.id AND outcome.seq > lane.seq ORDER BY seq LIMIT $4) AS next \
                 ORDER BY next.seq LIMIT $4) \
             SELECT 0 AS kind, id, pruned_to AS seq, NULL AS pin_id, NULL AS record FROM lane WHERE pruned_to > seq \
             UNION ALL SELECT 1, id, seq, pin_id, record FROM page WHERE before < $5 ORDER BY kind, seq",
        )
        .bind(partitions)
        .bind(seqs)
        .bind(position.others())
        .bind(i64::from(limit))
        .bind(PAGE_BYTES as i64)
        .fetch_all(&self.readers);
        let (mut stretch, mut bytes) = (Stretch::default(), 0);
        for row in answer(rows).await? {
            let partition = row.try_get("id")?;
            if row.try_get::<i32, _>("kind")? == 0 {
                stretch.removed.push((partition, row.try_get("seq")?));
                continue;
            }
            let outcome = Outcome::from_row(&row)?;
            bytes += outcome.record.len();
            stretch.outcomes.push((partition, outcome));
        }
        stretch.more = bytes >= PAGE_BYTES || stretch.outcomes.len() == limit as usize;
        Ok(stretch)
    }

    async fn before_last(&self, count: u32) -> Result<Position, Unavailable> {
        // If retention removed the newest outcome of a partition before the start, the position is after that one.
        let rows = sqlx::query_as(
            "WITH start AS (SELECT CASE WHEN $1 = 0 THEN 9223372036854775807 \
                 ELSE coalesce((SELECT seq FROM outcome ORDER BY seq DESC LIMIT 1 OFFSET $1), 0) END AS seq) \
             SELECT node.id, greatest(0, \
                 (SELECT max(outcome.seq) FROM outcome WHERE outcome.lane = node.id AND outcome.seq <= start.seq), \
                 (SELECT pruned.seq FROM pruned WHERE pruned.lane = node.id AND pruned.seq <= start.seq)) \
             FROM node CROSS JOIN start ORDER BY node.id",
        )
        .bind(i64::from(count))
        .fetch_all(&self.readers);
        let partitions: Vec<(i32, i64)> = answer(rows).await?;
        Ok(Position::of(partitions))
    }

    async fn first_seq_from(&self, seq: i64) -> Result<Option<i64>, Unavailable> {
        let sql = "SELECT seq FROM outcome WHERE seq >= $1 ORDER BY seq LIMIT 1";
        answer(sqlx::query_scalar(sql).bind(seq).fetch_optional(&self.readers)).await
    }

    async fn cursors(&self) -> Result<Vec<(String, i64)>, Unavailable> {
        let sql = "SELECT sink, cursor FROM cursor WHERE lane = $1 ORDER BY sink";
        answer(sqlx::query_as(sql).bind(self.node.id()).fetch_all(&self.readers)).await
    }

    async fn failed(
        &self,
        sink: &str,
        dead: bool,
        seq: i64,
        limit: u32,
    ) -> Result<Vec<(Failed, Outcome)>, Unavailable> {
        // Dead letters have no owner; every node lists them.
        let rows = sqlx::query(
            "SELECT seq, pin_id, record, dead, tries, first_try_at, last_try_at, error, first_ahead, last_ahead \
             FROM delivery JOIN outcome USING (seq) \
             WHERE sink = $1 AND dead = $2 AND (dead OR delivery.lane = $5) AND seq > $3 ORDER BY seq LIMIT $4",
        )
        .bind(sink)
        .bind(dead)
        .bind(seq)
        .bind(i64::from(limit))
        .bind(self.node.id())
        .fetch_all(&self.readers);
        let rows = answer(rows).await?;
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
        let rows = sqlx::query(
            "SELECT seq, pin_id, record, dead, tries, first_try_at, last_try_at, error, first_ahead, last_ahead, sink, \
                 of_all FROM ( \
                 SELECT *, count(*) OVER () AS of_all, \
                     sum(octet_length(record)) OVER (ORDER BY sink, seq) - octet_length(record) AS before \
                 FROM (SELECT seq, pin_id, record, dead, tries, first_try_at, last_try_at, error, first_ahead, \
                           last_ahead, sink \
                       FROM delivery JOIN outcome USING (seq) \
                       WHERE dead AND ($1::text IS NULL OR sink = $1) AND ($5::text IS NULL OR pin_id = $5) \
                         AND seq BETWEEN $6 AND $7 AND (sink, seq) > ($2, $3) \
                       ORDER BY sink, seq LIMIT $4) AS next) AS page \
             WHERE before < $8 ORDER BY sink, seq",
        )
        .bind(sink)
        .bind(after_sink)
        .bind(after_seq)
        .bind(i64::from(limit))
        .bind(pin.map(PinId::as_str))
        .bind(seqs.start())
        .bind(seqs.end())
        .bind(PAGE_BYTES as i64)
        .fetch_all(&self.readers);
        let rows = answer(rows).await?;
        let letter = |row: &PgRow| {
            let (failed, outcome) = undelivered(row)?;
            Ok((row.try_get("sink")?, failed, outcome))
        };
        let letters: Vec<DeadLetter> = rows.iter().map(letter).collect::<Result<_, sqlx::Error>>()?;
        let of_all: i64 = rows.first().map(|row| row.try_get("of_all")).transpose()?.unwrap_or(0);
        let more = of_all == i64::from(limit) || letters.len() < of_all as usize;
        Ok((letters, more))
    }

    async fn lacking(&self, sink: &str, seqs: &[i64]) -> Result<Vec<i64>, Unavailable> {
        // An outcome goes to the sinks of the node that wrote it, and to those of a node that took it over.
        let lacking = sqlx::query_scalar(
            "SELECT seq FROM outcome o WHERE seq = ANY($2) AND ( \
                 EXISTS (SELECT 1 FROM cursor c WHERE c.lane = o.lane AND c.sink = $1 AND c.cursor < o.seq) \
                 OR EXISTS (SELECT 1 FROM delivery d WHERE d.sink = $1 AND d.seq = o.seq))",
        )
        .bind(sink)
        .bind(seqs)
        .fetch_all(&self.readers);
        answer(lacking).await
    }

    async fn sinks_of(&self, seq: i64) -> Result<Vec<AtSink>, Unavailable> {
        // An outcome goes to the sinks of the node that wrote it, and to those of a node that took it over.
        let sinks = sqlx::query_as(
            "SELECT d.seq, sink, coalesce(cursor, $1) AS cursor, dead, tries, first_try_at, last_try_at, error, \
                 first_ahead, last_ahead, dropped_at \
             FROM (SELECT sink, cursor FROM cursor WHERE lane = (SELECT lane FROM outcome WHERE seq = $1)) AS c \
             FULL JOIN (SELECT * FROM delivery WHERE seq = $1) AS d USING (sink) \
             FULL JOIN (SELECT sink, dropped_at FROM dropped WHERE seq = $1) AS x USING (sink) ORDER BY sink",
        )
        .bind(seq)
        .fetch_all(&self.readers);
        answer(sinks).await
    }

    async fn failed_counts(&self) -> Result<Vec<(String, i64, i64)>, Unavailable> {
        let sql = "SELECT sink, count(*) FILTER (WHERE NOT dead AND lane = $1), count(*) FILTER (WHERE dead) \
                   FROM delivery GROUP BY sink ORDER BY sink";
        answer(sqlx::query_as(sql).bind(self.node.id()).fetch_all(&self.readers)).await
    }

    async fn oldest_undelivered(&self, sink: &str, cursor: i64) -> Result<Option<Steady>, Unavailable> {
        let millis = sqlx::query_scalar(
            "SELECT least( \
                 (SELECT finished_at FROM outcome WHERE lane = $1 AND seq > $3 ORDER BY seq LIMIT 1), \
                 (SELECT finished_at FROM delivery d JOIN outcome USING (seq) \
                  WHERE d.lane = $1 AND sink = $2 AND NOT dead ORDER BY seq LIMIT 1))",
        )
        .bind(self.node.id())
        .bind(sink)
        .bind(cursor)
        .fetch_one(&self.readers);
        let millis: Option<i64> = answer(millis).await?;
        Ok(millis.map(Steady::from_millis))
    }

    async fn close(&self) {
        self.readers.close().await;
    }
}
