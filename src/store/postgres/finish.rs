//! Removes PINs and inserts their outcomes.
//!
//! Promises that a node finishes only PINs of its own slots, and each one once. Knows nothing of sinks.

use std::collections::HashMap;

use sqlx::postgres::PgConnection;
use sqlx::{FromRow, Row};
use uuid::Uuid;

use super::super::{Outcome, Record};
use super::Node;
use super::columns::{column, keys};
use super::done::Done;
use crate::outcome::{self, Submission, Verdict};

/// Removes PINs of this node's slots and inserts their outcomes. Drops a verdict of any other PIN: that PIN already has
/// an outcome, or another node polls it now.
pub async fn finish(
    connection: &mut PgConnection,
    node: &Node,
    verdicts: &[&Verdict],
    done: &mut Done,
) -> Result<(), sqlx::Error> {
    if verdicts.is_empty() {
        return Ok(());
    }
    let (slots, pins) = keys(verdicts.iter().map(|verdict| &verdict.pin));
    let rows = sqlx::query(
        "DELETE FROM pin USING slot, unnest($2::smallint[], $3::text[]) AS asked (slot, pin_id) \
         WHERE slot.slot = asked.slot AND slot.node = $1 AND pin.slot = asked.slot AND pin.pin_id = asked.pin_id \
         RETURNING pin.pin_id, pin.submitted_at, pin.reference, pin.metadata, pin.submitter, \
             nextval('outcome_seq') AS seq",
    )
    .bind(node.id())
    .bind(&slots)
    .bind(&pins)
    .fetch_all(&mut *connection)
    .await?;
    let mut submissions = HashMap::with_capacity(rows.len());
    for row in rows {
        let (pin, seq): (String, i64) = (row.try_get("pin_id")?, row.try_get("seq")?);
        submissions.insert(pin, (seq, Submission::from_row(&row)?));
    }

    let mut finished = Vec::with_capacity(submissions.len());
    let mut missing = Vec::new();
    for verdict in verdicts {
        let Some((seq, submission)) = submissions.remove(verdict.pin.as_str()) else {
            missing.push(*verdict);
            continue;
        };
        let record: Record = outcome::record(seq, Uuid::now_v7(), verdict, &submission);
        let outcome = Outcome { seq, pin: verdict.pin.clone(), record };
        finished.push((outcome, verdict.finished_at.steady.millis(), submission.submitter));
    }
    finished.sort_unstable_by_key(|(outcome, ..)| outcome.seq);
    insert(connection, node, &finished).await?;
    if !finished.is_empty() {
        done.hints.push("outcome".into());
    }
    done.applied.finished.extend(finished.into_iter().map(|(outcome, ..)| outcome));
    look_for(connection, &missing, done).await
}

async fn insert(
    connection: &mut PgConnection,
    node: &Node,
    finished: &[(Outcome, i64, Option<String>)],
) -> Result<(), sqlx::Error> {
    if finished.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO outcome (lane, seq, pin_id, finished_at, record, submitter) \
         SELECT $1, * FROM unnest($2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::text[])",
    )
    .bind(node.id())
    .bind(column(finished, |(outcome, ..)| outcome.seq))
    .bind(column(finished, |(outcome, ..)| outcome.pin.as_str()))
    .bind(column(finished, |(_, end, _)| *end))
    .bind(column(finished, |(outcome, ..)| &*outcome.record))
    .bind(column(finished, |(.., submitter)| submitter.as_deref()))
    .execute(connection)
    .await?;
    Ok(())
}

/// Finds out the state of PINs that this node can't finish. A PIN in flight belongs to another node, even if it has an
/// outcome from an earlier submit.
async fn look_for(
    connection: &mut PgConnection,
    missing: &[&Verdict],
    done: &mut Done,
) -> Result<(), sqlx::Error> {
    if missing.is_empty() {
        return Ok(());
    }
    let (slots, pins) = keys(missing.iter().map(|verdict| &verdict.pin));
    let rows = sqlx::query(
        "SELECT asked.pin_id, newest.seq, newest.record \
         FROM unnest($1::smallint[], $2::text[]) AS asked (slot, pin_id) CROSS JOIN LATERAL \
         (SELECT seq, record FROM outcome WHERE outcome.pin_id = asked.pin_id ORDER BY seq DESC LIMIT 1) AS newest \
         WHERE NOT EXISTS (SELECT 1 FROM pin WHERE pin.slot = asked.slot AND pin.pin_id = asked.pin_id)",
    )
    .bind(&slots)
    .bind(&pins)
    .fetch_all(connection)
    .await?;
    let mut known: HashMap<String, (i64, Record)> = HashMap::with_capacity(rows.len());
    for row in rows {
        known.insert(row.try_get(0)?, (row.try_get(1)?, row.try_get::<&str, _>(2)?.into()));
    }
    for verdict in missing {
        let pin = verdict.pin.clone();
        match known.remove(pin.as_str()) {
            Some((seq, record)) => done.applied.cluster.known.push(Outcome { seq, pin, record }),
            None => done.applied.cluster.gone.push(pin),
        }
    }
    Ok(())
}
