//! The outbox: the sinks' progress, delivery commands, and retention.
//!
//! Promises that an outcome stays until every sink has it, and that a dead letter keeps its outcome. Knows nothing of
//! how sinks deliver.

use std::collections::BTreeMap;

use sqlx::Postgres;
use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::query::Query;

use super::super::{DeliveryCommand, Failed, Progress, SavedSchedule, Seqs};
use super::Node;
use super::columns::{column, storable};
use crate::clock::{Dated, Steady};

/// Stores the progress of all sinks at once. If an outcome occurs several times, the last occurrence counts.
pub async fn advance(
    connection: &mut PgConnection,
    node: &Node,
    progress: &[Progress],
) -> Result<(), sqlx::Error> {
    let mut cursors: BTreeMap<&str, i64> = BTreeMap::new();
    // In the order of the table's key, in which every node locks its rows.
    let mut deliveries: BTreeMap<(&str, i64), Option<&Failed>> = BTreeMap::new();
    for Progress { sink, cursor, failed, delivered } in progress {
        if let Some(cursor) = cursor {
            let known = cursors.entry(sink).or_insert(*cursor);
            *known = (*known).max(*cursor);
        }
        deliveries.extend(failed.iter().map(|failed| ((sink.as_str(), failed.seq), Some(failed))));
        deliveries.extend(delivered.iter().map(|seq| ((sink.as_str(), *seq), None)));
    }
    if !cursors.is_empty() {
        let (sinks, cursors): (Vec<&str>, Vec<i64>) = cursors.into_iter().unzip();
        sqlx::query(
            "UPDATE cursor SET cursor = came.cursor FROM unnest($2::text[], $3::bigint[]) AS came (sink, cursor) \
             WHERE cursor.lane = $1 AND cursor.sink = came.sink AND cursor.cursor < came.cursor",
        )
        .bind(node.id())
        .bind(&sinks)
        .bind(&cursors)
        .execute(&mut *connection)
        .await?;
    }
    let failed: Vec<(&str, &Failed)> =
        deliveries.iter().filter_map(|((sink, _), failed)| Some((*sink, (*failed)?))).collect();
    fail(connection, node, &failed).await?;
    let done = deliveries.iter().filter(|(_, failed)| failed.is_none());
    let (sinks, seqs): (Vec<&str>, Vec<i64>) = done.map(|((sink, seq), _)| (*sink, *seq)).unzip();
    if !seqs.is_empty() {
        sqlx::query(
            "DELETE FROM delivery USING unnest($1::text[], $2::bigint[]) AS done (sink, seq) \
             WHERE delivery.sink = done.sink AND delivery.seq = done.seq",
        )
        .bind(&sinks)
        .bind(&seqs)
        .execute(connection)
        .await?;
    }
    Ok(())
}

async fn fail(
    connection: &mut PgConnection,
    node: &Node,
    failed: &[(&str, &Failed)],
) -> Result<(), sqlx::Error> {
    if failed.is_empty() {
        return Ok(());
    }
    let millis = |date: Option<Dated>| date.map(|date| date.wall.as_millisecond());
    let ahead = |date: Option<Dated>| date.map_or(0, Dated::ahead);
    sqlx::query(
        "INSERT INTO delivery (lane, sink, seq, dead, tries, first_try_at, last_try_at, error, first_ahead, last_ahead) \
         SELECT $1, * FROM unnest($2::text[], $3::bigint[], $4::boolean[], $5::integer[], $6::bigint[], \
             $7::bigint[], $8::text[], $9::bigint[], $10::bigint[]) \
         ON CONFLICT (sink, seq) DO UPDATE SET lane = excluded.lane, dead = excluded.dead, \
             tries = excluded.tries, first_try_at = excluded.first_try_at, last_try_at = excluded.last_try_at, \
             error = excluded.error, first_ahead = excluded.first_ahead, last_ahead = excluded.last_ahead",
    )
    .bind(node.id())
    .bind(column(failed, |(sink, _)| *sink))
    .bind(column(failed, |(_, failed)| failed.seq))
    .bind(column(failed, |(_, failed)| failed.dead))
    .bind(column(failed, |(_, failed)| i32::try_from(failed.tries).unwrap_or(i32::MAX)))
    .bind(column(failed, |(_, failed)| millis(failed.first_try_at)))
    .bind(column(failed, |(_, failed)| millis(failed.last_try_at)))
    .bind(column(failed, |(_, failed)| failed.error.as_deref().map(storable)))
    .bind(column(failed, |(_, failed)| ahead(failed.first_try_at)))
    .bind(column(failed, |(_, failed)| ahead(failed.last_try_at)))
    .execute(connection)
    .await?;
    Ok(())
}

/// A statement around its condition on `seq`. Those of a list are looked up one by one: they may be far apart.
macro_rules! chosen {
    ($seqs:expr, $before:literal, $after:literal) => {
        match $seqs {
            Seqs::Range(..) => concat!($before, "BETWEEN $2 AND $3", $after),
            Seqs::Each(_) => concat!($before, "= ANY($2::bigint[]) AND $3::bigint IS NULL", $after),
        }
    };
}

/// Carries out a delivery command on any node's outcomes; this node delivers what is to be delivered again. Returns how
/// many outcomes it affected.
pub async fn carry_out(
    connection: &mut PgConnection,
    node: &Node,
    command: &DeliveryCommand,
) -> Result<u64, sqlx::Error> {
    let done = match command {
        DeliveryCommand::Replay { sink, seqs, only_dead: false } => {
            // Outcomes after the cursor of their partition will be delivered anyway.
            let sql = chosen!(
                seqs,
                "INSERT INTO delivery (sink, seq, lane, dead, tries) \
                 SELECT $1, o.seq, $4, false, 0 FROM outcome o WHERE o.seq ",
                " AND EXISTS (SELECT 1 FROM cursor c WHERE c.lane = $4 AND c.sink = $1) \
                   AND NOT EXISTS ( \
                       SELECT 1 FROM cursor c WHERE c.lane = o.lane AND c.sink = $1 AND c.cursor < o.seq) \
                 ORDER BY o.seq FOR KEY SHARE OF o \
                 ON CONFLICT (sink, seq) DO UPDATE SET lane = excluded.lane, dead = false, tries = 0, \
                     first_try_at = NULL, last_try_at = NULL, error = NULL"
            );
            let replayed = over(sql, sink, seqs).bind(node.id()).execute(&mut *connection).await?;
            let sql = chosen!(
                seqs,
                "DELETE FROM dropped x USING delivery d WHERE x.sink = $1 AND d.sink = x.sink AND d.seq = x.seq AND x.seq ",
                ""
            );
            over(sql, sink, seqs).execute(connection).await?;
            replayed
        }
        DeliveryCommand::Replay { sink, seqs, only_dead: true } => {
            let sql = chosen!(
                seqs,
                "UPDATE delivery SET lane = $4, dead = false, tries = 0, first_try_at = NULL, last_try_at = NULL \
                 WHERE sink = $1 AND dead AND seq ",
                ""
            );
            over(sql, sink, seqs).bind(node.id()).execute(connection).await?
        }
        DeliveryCommand::Drop { sink, seqs, at } => {
            let sql = chosen!(
                seqs,
                "WITH given_up AS (DELETE FROM delivery WHERE sink = $1 AND dead AND seq ",
                " RETURNING seq) \
                 INSERT INTO dropped (seq, sink, dropped_at) SELECT seq, $1, $4 FROM given_up \
                 ON CONFLICT (seq, sink) DO UPDATE SET dropped_at = excluded.dropped_at"
            );
            over(sql, sink, seqs).bind(at.as_millisecond()).execute(connection).await?
        }
        DeliveryCommand::Unregister { sink } => {
            let sql = "DELETE FROM cursor WHERE lane = $2 AND sink = $1";
            sqlx::query(sql).bind(sink).bind(node.id()).execute(connection).await?
        }
        DeliveryCommand::Forget { sink } => return forget(connection, node, sink).await,
    };
    Ok(done.rows_affected())
}

/// Binds the first three parameters of a statement of `chosen!`.
fn over<'q>(sql: &'static str, sink: &'q str, seqs: &'q Seqs) -> Query<'q, Postgres, PgArguments> {
    let query = sqlx::query(sql).bind(sink);
    match seqs {
        Seqs::Range(from, to) => query.bind(from).bind(to),
        Seqs::Each(seqs) => query.bind(&seqs[..]).bind(None::<i64>),
    }
}

/// Forgets a sink, except for the cursors and deliveries of other live nodes: they may still have the sink. Returns 1
/// if it had a cursor to remove, else 0.
async fn forget(connection: &mut PgConnection, node: &Node, sink: &str) -> Result<u64, sqlx::Error> {
    sqlx::query(
        "DELETE FROM delivery WHERE sink = $1 AND lane NOT IN ( \
             SELECT id FROM node WHERE id <> $2 AND lease_until > clock_timestamp())",
    )
    .bind(sink)
    .bind(node.id())
    .execute(&mut *connection)
    .await?;
    let done = sqlx::query(
        "DELETE FROM cursor WHERE sink = $1 AND lane NOT IN ( \
             SELECT id FROM node WHERE id <> $2 AND lease_until > clock_timestamp())",
    )
    .bind(sink)
    .bind(node.id())
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM dropped WHERE sink = $1 AND NOT EXISTS (SELECT 1 FROM cursor WHERE sink = $1)")
        .bind(sink)
        .execute(connection)
        .await?;
    Ok(done.rows_affected().min(1))
}

/// Outcomes that one transaction removes. It bounds the transaction, so that nobody waits long for it.
const PRUNE_AT_ONCE: i64 = 2000;

/// Removes outcomes of all nodes that are old enough and that every sink has; a dead letter keeps its outcome. Returns
/// how many.
pub async fn prune(connection: &mut PgConnection, before: Steady) -> Result<u64, sqlx::Error> {
    // Skips partitions from which another node is removing outcomes, so that no node waits for another.
    let removed: Vec<i64> = sqlx::query_scalar(
        "WITH mine AS MATERIALIZED (SELECT lane FROM pruned ORDER BY lane FOR UPDATE SKIP LOCKED), \
         gone AS ( \
             DELETE FROM outcome WHERE seq = ANY(ARRAY( \
                 SELECT o.seq FROM outcome o WHERE o.finished_at < $1 AND o.lane IN (SELECT lane FROM mine) \
                   AND NOT EXISTS (SELECT 1 FROM cursor c WHERE c.lane = o.lane AND c.cursor < o.seq) \
                   AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.seq = o.seq) \
                 ORDER BY o.finished_at LIMIT $2 FOR UPDATE OF o SKIP LOCKED)) \
             RETURNING seq, lane), \
         noted AS ( \
             UPDATE pruned SET seq = greatest(pruned.seq, newest.seq) \
             FROM (SELECT lane, max(seq) AS seq FROM gone GROUP BY lane) AS newest WHERE pruned.lane = newest.lane) \
         SELECT seq FROM gone",
    )
    .bind(before.millis())
    .bind(PRUNE_AT_ONCE)
    .fetch_all(&mut *connection)
    .await?;
    if !removed.is_empty() {
        sqlx::query("DELETE FROM dropped WHERE seq = ANY($1)").bind(&removed).execute(connection).await?;
    }
    Ok(removed.len() as u64)
}

/// Saves the state of this node's schedule; each node has its own.
pub async fn save_schedule(
    connection: &mut PgConnection,
    node: &Node,
    SavedSchedule { reason, until, rate, learned }: &SavedSchedule,
) -> Result<(), sqlx::Error> {
    let sql = "UPDATE node SET brake_reason = $2, brake_until = $3, brake_rate = $4, \
               learned = coalesce($5, learned) WHERE id = $1";
    sqlx::query(sql)
        .bind(node.id())
        .bind(reason)
        .bind(until.map(Steady::millis))
        .bind(rate)
        .bind(learned)
        .execute(connection)
        .await?;
    Ok(())
}
