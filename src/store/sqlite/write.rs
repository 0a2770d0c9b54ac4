//! One transaction: everything that changes the file.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;

use jiff::Timestamp;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Row};
use tracing::error;
use uuid::Uuid;

use super::super::{
    Applied, InFlight, NewPin, Order, Outcome, Progress, Record, SavedBrake, Submitted, Transaction,
};
use super::rows::{json, raw, timestamp};
use crate::fault::fault_point;
use crate::outcome::{self, Submission, Verdict};

/// The only connection that writes.
pub struct WriteConnection {
    pub(super) connection: SqliteConnection,
    /// Held for the life of the daemon; also keeps the number of commits, see [`note_commits`].
    pub(super) lock: File,
    pub(super) in_flight: usize,
    pub(super) next_seq: i64,
    pub(super) commits: i64,
}

impl WriteConnection {
    /// The PINs in flight, as of the last commit.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The newest `seq` that was ever given.
    pub fn last_seq(&self) -> i64 {
        self.next_seq - 1
    }

    /// Does all of it, durably, or none. At most `max_in_flight` PINs are in flight afterwards, unless more
    /// were before.
    pub async fn apply(&mut self, work: &Transaction, max_in_flight: usize) -> Result<Applied, sqlx::Error> {
        let applied = self.transact(work, max_in_flight).await;
        let Ok(applied) = applied else {
            // SQLite may have rolled back already, as it does when the disk is full: then this fails, and
            // nothing is left to undo. sqlx's own transactions count on a rollback that succeeds.
            let _ = sqlx::query("ROLLBACK").execute(&mut self.connection).await;
            return applied;
        };
        fault_point!("committed-and-not-noted");
        self.in_flight = self.in_flight.saturating_sub(applied.finished.len()) + applied.accepted.len();
        self.next_seq += applied.finished.len() as i64;
        self.commits += 1;
        note_commits(&self.lock, self.commits);
        Ok(applied)
    }

    async fn transact(&mut self, work: &Transaction, max_in_flight: usize) -> Result<Applied, sqlx::Error> {
        let connection = &mut self.connection;
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
        let mut applied = Applied::default();
        finish(connection, &work.verdicts, self.next_seq, &mut applied).await?;
        let in_flight = self.in_flight.saturating_sub(applied.finished.len());
        let room = max_in_flight.saturating_sub(in_flight);
        submit(connection, &work.submits, room, &mut applied).await?;
        for progress in &work.progress {
            advance(connection, progress).await?;
        }
        for order in &work.orders {
            applied.ordered.push(carry_out(connection, order).await?);
        }
        if let Some(SavedBrake { reason, until, rate }) = &work.brake {
            sqlx::query("UPDATE brake SET reason = ?1, until = ?2, rate = ?3")
                .bind(reason)
                .bind(until.map(Timestamp::as_millisecond))
                .bind(rate)
                .execute(&mut *connection)
                .await?;
        }
        if let Some(before) = work.prune {
            applied.pruned = prune(connection, before).await?;
        }
        sqlx::query("UPDATE history SET commits = commits + 1").execute(&mut *connection).await?;
        fault_point!("not-committed");
        sqlx::query("COMMIT").execute(connection).await?;
        Ok(applied)
    }

    /// Registers a sink, if it is new, with its first cursor; gives its cursor.
    pub async fn register_sink(&mut self, name: &str, from_oldest: bool) -> Result<i64, sqlx::Error> {
        let first = if from_oldest { 0 } else { self.last_seq() };
        sqlx::query("INSERT INTO sink (name, cursor) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
            .bind(name)
            .bind(first)
            .execute(&mut self.connection)
            .await?;
        sqlx::query_scalar("SELECT cursor FROM sink WHERE name = ?1")
            .bind(name)
            .fetch_one(&mut self.connection)
            .await
    }

    /// Closes the file: the write-ahead log is folded into it.
    pub async fn close(self) -> Result<(), sqlx::Error> {
        self.connection.close().await
    }
}

/// Notes the number of commits beside the database, after the fact and without a sync: it can lag behind the
/// database but never lead it, unless the database lost commits. So a write-ahead log that was cut or
/// removed, which SQLite itself takes for a clean end, is noticed at start-up.
pub(super) fn note_commits(lock: &File, commits: i64) {
    // A note that can't be written makes the check weaker, not wrong.
    let _ = lock.write_all_at(format!("{commits:020}\n").as_bytes(), 0);
}

/// Takes PINs out and puts their outcomes in. A verdict of a PIN that is not in flight is dropped: it
/// already has its outcome.
async fn finish(
    connection: &mut SqliteConnection,
    verdicts: &[Verdict],
    first_seq: i64,
    applied: &mut Applied,
) -> Result<(), sqlx::Error> {
    if verdicts.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = verdicts.iter().map(|verdict| verdict.pin.as_str()).collect();
    let rows = sqlx::query(
        "DELETE FROM pin WHERE pin_id IN (SELECT value FROM json_each(?1)) \
         RETURNING pin_id, submitted_at, reference, metadata",
    )
    .bind(json(&ids))
    .fetch_all(&mut *connection)
    .await?;
    let mut submissions = HashMap::with_capacity(rows.len());
    for row in rows {
        let submission = Submission {
            submitted_at: timestamp(row.try_get(1)?),
            reference: row.try_get(2)?,
            metadata: raw(row.try_get(3)?),
        };
        submissions.insert(row.try_get::<String, _>(0)?, submission);
    }

    let mut seq = first_seq;
    let mut inserts: Vec<(i64, &str, i64, Record)> = Vec::with_capacity(submissions.len());
    for verdict in verdicts {
        let Some(submission) = submissions.remove(verdict.pin.as_str()) else {
            error!(pin_id = %verdict.pin, "a PIN that is not in flight got a verdict; it was dropped. This is a bug");
            continue;
        };
        let record: Record = outcome::record(seq, Uuid::now_v7(), verdict, &submission).into();
        inserts.push((seq, verdict.pin.as_str(), verdict.finished_at.as_millisecond(), record.clone()));
        applied.finished.push(Outcome { seq, pin: verdict.pin.clone(), record });
        seq += 1;
    }
    sqlx::query(
        "INSERT INTO outcome (seq, pin_id, finished_at, record) \
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?1)",
    )
    .bind(json(&inserts))
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes PINs in. A PIN that stands twice among them is dealt with in the order given, so the submits are
/// cut into runs without repetition.
async fn submit(
    connection: &mut SqliteConnection,
    submits: &[NewPin],
    mut room: usize,
    applied: &mut Applied,
) -> Result<(), sqlx::Error> {
    let mut rest = submits;
    while !rest.is_empty() {
        let mut seen = HashSet::with_capacity(rest.len());
        let end = rest.iter().position(|new| !seen.insert(&new.pin)).unwrap_or(rest.len());
        let (run, later) = rest.split_at(end);
        let accepted = submit_distinct(connection, run, room, applied).await?;
        room = room.saturating_sub(accepted);
        rest = later;
    }
    Ok(())
}

/// Takes in PINs that are all different; gives how many were accepted.
async fn submit_distinct(
    connection: &mut SqliteConnection,
    submits: &[NewPin],
    room: usize,
    applied: &mut Applied,
) -> Result<usize, sqlx::Error> {
    let mut finished = finished_before(connection, submits).await?;
    let candidates: Vec<&NewPin> =
        submits.iter().filter(|new| !finished.contains_key(new.pin.as_str())).collect();
    let (fitting, excess) = candidates.split_at(candidates.len().min(room));
    let inserted = insert(connection, fitting).await?;
    let known = in_flight_among(connection, excess).await?;

    let before = applied.accepted.len();
    let mut candidate = 0;
    for new in submits {
        let id = new.pin.as_str();
        if let Some(record) = finished.remove(id) {
            applied.submitted.push(Submitted::Finished(record));
            continue;
        }
        let excess = candidate >= fitting.len();
        candidate += 1;
        applied.submitted.push(if inserted.contains(id) {
            let NewPin { pin, submitted_at, deadline_at, .. } = new;
            applied.accepted.push(InFlight {
                pin: pin.clone(),
                submitted_at: *submitted_at,
                deadline_at: *deadline_at,
            });
            Submitted::Accepted
        } else if excess && !known.contains(id) {
            Submitted::AtCapacity
        } else {
            Submitted::Duplicate
        });
    }
    Ok(applied.accepted.len() - before)
}

/// Of these PINs, those with an outcome that are not to be polled again and are not in flight.
async fn finished_before(
    connection: &mut SqliteConnection,
    submits: &[NewPin],
) -> Result<HashMap<String, Record>, sqlx::Error> {
    let ids: Vec<&str> = submits.iter().filter(|new| !new.again).map(|new| new.pin.as_str()).collect();
    let rows = sqlx::query(
        "SELECT asked.value, (SELECT record FROM outcome WHERE pin_id = asked.value ORDER BY seq DESC LIMIT 1) \
         FROM json_each(?1) asked \
         WHERE EXISTS (SELECT 1 FROM outcome WHERE pin_id = asked.value) \
           AND NOT EXISTS (SELECT 1 FROM pin WHERE pin_id = asked.value)",
    )
    .bind(json(&ids))
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get::<&str, _>(1)?.into()))).collect()
}

type Ids = HashSet<String>;

/// Inserts those that are not in flight yet; gives which.
async fn insert(connection: &mut SqliteConnection, submits: &[&NewPin]) -> Result<Ids, sqlx::Error> {
    if submits.is_empty() {
        return Ok(Ids::new());
    }
    let rows: Vec<_> = submits
        .iter()
        .map(|new| {
            let (submitted, deadline) = (new.submitted_at.as_millisecond(), new.deadline_at.as_millisecond());
            (new.pin.as_str(), submitted, deadline, &new.reference, new.metadata.as_ref().map(|m| m.get()))
        })
        .collect();
    let inserted = sqlx::query_scalar(
        "INSERT INTO pin (pin_id, submitted_at, deadline_at, reference, metadata) \
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?1) \
         WHERE true ON CONFLICT DO NOTHING RETURNING pin_id",
    )
    .bind(json(&rows))
    .fetch_all(connection)
    .await?;
    Ok(inserted.into_iter().collect())
}

/// Which of these are in flight.
async fn in_flight_among(connection: &mut SqliteConnection, submits: &[&NewPin]) -> Result<Ids, sqlx::Error> {
    if submits.is_empty() {
        return Ok(Ids::new());
    }
    let ids: Vec<&str> = submits.iter().map(|new| new.pin.as_str()).collect();
    let known =
        sqlx::query_scalar("SELECT pin_id FROM pin WHERE pin_id IN (SELECT value FROM json_each(?1))")
            .bind(json(&ids))
            .fetch_all(connection)
            .await?;
    Ok(known.into_iter().collect())
}

/// Notes how far a sink came.
async fn advance(connection: &mut SqliteConnection, progress: &Progress) -> Result<(), sqlx::Error> {
    let Progress { sink, cursor, failed, delivered } = progress;
    if let Some(cursor) = cursor {
        sqlx::query("UPDATE sink SET cursor = ?2 WHERE name = ?1 AND cursor < ?2")
            .bind(sink)
            .bind(cursor)
            .execute(&mut *connection)
            .await?;
    }
    if !failed.is_empty() {
        let millis = |time: Option<Timestamp>| time.map(Timestamp::as_millisecond);
        let rows: Vec<_> = failed
            .iter()
            .map(|f| (f.seq, f.dead, f.tries, millis(f.first_try_at), millis(f.last_try_at), &f.error))
            .collect();
        sqlx::query(
            "INSERT OR REPLACE INTO delivery (sink, seq, dead, tries, first_try_at, last_try_at, error) \
             SELECT ?1, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 \
             FROM json_each(?2)",
        )
        .bind(sink)
        .bind(json(&rows))
        .execute(&mut *connection)
        .await?;
    }
    if !delivered.is_empty() {
        sqlx::query("DELETE FROM delivery WHERE sink = ?1 AND seq IN (SELECT value FROM json_each(?2))")
            .bind(sink)
            .bind(json(&delivered))
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Does what somebody asked of a sink's outcomes; gives how many it concerned.
async fn carry_out(connection: &mut SqliteConnection, order: &Order) -> Result<u64, sqlx::Error> {
    let done = match order {
        Order::Replay { sink, from, to, only_dead: false } => {
            // Those after the cursor are on their way anyway.
            let sql = "INSERT OR REPLACE INTO delivery (sink, seq, dead, tries) \
                 SELECT sink.name, outcome.seq, 0, 0 FROM outcome, sink \
                 WHERE sink.name = ?1 AND outcome.seq BETWEEN ?2 AND min(?3, sink.cursor)";
            sqlx::query(sql).bind(sink).bind(from).bind(to).execute(connection).await?
        }
        Order::Replay { sink, from, to, only_dead: true } => {
            let sql = "UPDATE delivery SET dead = 0, tries = 0, first_try_at = NULL, last_try_at = NULL \
                 WHERE sink = ?1 AND seq BETWEEN ?2 AND ?3 AND dead";
            sqlx::query(sql).bind(sink).bind(from).bind(to).execute(connection).await?
        }
        Order::Drop { sink, from, to } => {
            let sql = "DELETE FROM delivery WHERE sink = ?1 AND seq BETWEEN ?2 AND ?3 AND dead";
            sqlx::query(sql).bind(sink).bind(from).bind(to).execute(connection).await?
        }
        Order::Forget { sink } => {
            let some = sqlx::query(
                "DELETE FROM delivery WHERE sink = ?1 AND seq IN ( \
                     SELECT seq FROM delivery WHERE sink = ?1 ORDER BY seq LIMIT ?2)",
            );
            let some = some.bind(sink).bind(FORGET_AT_ONCE).execute(&mut *connection).await?.rows_affected();
            if some == u64::from(FORGET_AT_ONCE) {
                return Ok(some);
            }
            let done = sqlx::query("DELETE FROM sink WHERE name = ?1").bind(sink).execute(connection).await?;
            return Ok(some + done.rows_affected());
        }
    };
    Ok(done.rows_affected())
}

/// Deliveries of a sink that are forgotten at once: bounds the transaction.
const FORGET_AT_ONCE: u32 = 10_000;

/// Outcomes that are removed at once: bounds the transaction, so that nobody waits long for it.
const PRUNE_AT_ONCE: i64 = 2000;

/// Removes outcomes that are old enough and that every sink has; a dead letter keeps its outcome.
async fn prune(connection: &mut SqliteConnection, before: Timestamp) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "DELETE FROM outcome WHERE seq IN ( \
             SELECT seq FROM outcome INDEXED BY outcome_by_end \
             WHERE seq <= (SELECT coalesce(min(cursor), 0x7fffffffffffffff) FROM sink) AND finished_at < ?1 \
               AND NOT EXISTS ( \
                   SELECT 1 FROM delivery INDEXED BY delivery_by_seq WHERE delivery.seq = outcome.seq) \
             LIMIT ?2)",
    )
    .bind(before.as_millisecond())
    .bind(PRUNE_AT_ONCE)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
