//! One transaction: everything that changes the file.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;

use jiff::Timestamp;
use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use tracing::error;
use uuid::Uuid;

use super::super::{
    Applied, InFlight, NewPin, Order, Outcome, Progress, Record, SavedBrake, Submitted, Transaction,
};
use super::by_pin::{Entry, Index, Step, Waiting, hash};
use super::many::Many;
use super::recent::Recent;
use super::rows::{json, raw, timestamp};
use crate::fault::fault_point;
use crate::outcome::{self, Submission, Verdict};

/// The first `?2` outcomes that are older than `?1`, that every sink has and that are no dead letter.
macro_rules! prunable {
    () => {
        "SELECT seq FROM outcome INDEXED BY outcome_by_end \
         WHERE seq <= (SELECT coalesce(min(cursor), 0x7fffffffffffffff) FROM sink) AND finished_at < ?1 \
           AND NOT EXISTS ( \
               SELECT 1 FROM delivery INDEXED BY delivery_by_seq WHERE delivery.seq = outcome.seq) \
         LIMIT ?2"
    };
}

/// The only connection that writes.
pub struct WriteConnection {
    pub(super) connection: SqliteConnection,
    /// Held for the life of the daemon; also keeps the number of commits, see [`note_commits`].
    pub(super) lock: File,
    pub(super) in_flight: usize,
    pub(super) next_seq: i64,
    pub(super) commits: i64,
    /// Whether the last transaction went well.
    pub(super) well: bool,
    pub(super) recent: Recent,
    pub(super) index: Index,
}

/// What a transaction does beside what its callers hear of.
struct Beside {
    step: Step,
    pruned: Vec<Entry>,
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

    /// Does all of it, durably, or none; where there is nothing to remove, a prune alone writes nothing. At most
    /// `max_in_flight` PINs are in flight afterwards, unless more were before.
    pub async fn apply(&mut self, work: &Transaction, max_in_flight: usize) -> Result<Applied, sqlx::Error> {
        // Not after a failure: then every transaction is also the question whether the file can be written again.
        if let (Some(before), 1, true) = (work.prune, work.changes(), self.well) {
            let statement = concat!("SELECT EXISTS (", prunable!(), ")");
            let connection = &mut self.connection;
            let some: bool = sqlx::query_scalar(statement)
                .bind(before.as_millisecond())
                .bind(1)
                .fetch_one(connection)
                .await?;
            if !some {
                return Ok(Applied::default());
            }
        }
        let applied = self.transact(work, max_in_flight).await;
        self.well = applied.is_ok();
        let (applied, Beside { step, pruned }) = match applied {
            Ok(applied) => applied,
            Err(error) => {
                // SQLite may have rolled back already, as it does when the disk is full: then this fails, and
                // nothing is left to undo. sqlx's own transactions count on a rollback that succeeds.
                let _ = sqlx::query("ROLLBACK").execute(&mut self.connection).await;
                return Err(error);
            }
        };
        fault_point!("committed-and-not-noted");
        self.in_flight = self.in_flight.saturating_sub(applied.finished.len()) + applied.accepted.len();
        self.next_seq += applied.finished.len() as i64;
        self.commits += 1;
        note_commits(&self.lock, self.commits);
        self.index.stepped(step);
        self.index.add(applied.finished.iter().map(|outcome| (hash(outcome.pin.as_str()), outcome.seq)));
        self.recent.add(&applied.finished);
        if !pruned.is_empty() {
            self.index.dropped(&pruned);
            self.recent.forget();
        }
        Ok(applied)
    }

    async fn transact(
        &mut self,
        work: &Transaction,
        max_in_flight: usize,
    ) -> Result<(Applied, Beside), sqlx::Error> {
        let newest = self.last_seq();
        let connection = &mut self.connection;
        // Two statements, but one way to SQLite's thread.
        sqlx::query("BEGIN IMMEDIATE; UPDATE history SET commits = commits + 1")
            .execute(&mut *connection)
            .await?;
        let mut applied = Applied::default();
        finish(connection, &work.verdicts, self.next_seq, &mut applied).await?;
        let in_flight = self.in_flight.saturating_sub(applied.finished.len());
        let room = max_in_flight.saturating_sub(in_flight);
        submit(connection, &self.index.waiting, &work.submits, room, &mut applied).await?;
        let step = self.index.step(connection, applied.finished.len(), newest).await?;
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
        let mut pruned = Vec::new();
        if let Some(before) = work.prune {
            pruned = prune(connection, before).await?;
            applied.pruned = pruned.len() as u64;
        }
        fault_point!("not-committed");
        sqlx::query("COMMIT").execute(connection).await?;
        Ok((applied, Beside { step, pruned }))
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

/// The PINs of these IDs, with what their submitters gave.
static LEAVING: Many = Many::new(
    "SELECT json_group_array(json_array(pin_id, submitted_at, reference, metadata)) FROM pin WHERE pin_id IN (",
    "?",
    ")",
);
static LEAVE: Many = Many::new("DELETE FROM pin WHERE pin_id IN (", "?", ")");
static END: Many = Many::new(
    "INSERT INTO outcome (seq, pin_id, finished_at, record) SELECT * FROM (VALUES ",
    "(?, ?, ?, ?)",
    ") WHERE column1 IS NOT NULL",
);

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
    let leaving: Vec<(String, i64, Option<String>, Option<String>)> = LEAVING.ask(connection, &ids).await?;
    let mut submissions = HashMap::with_capacity(leaving.len());
    for (pin, submitted_at, reference, metadata) in leaving {
        let submitted_at = timestamp(submitted_at);
        submissions.insert(pin, Submission { submitted_at, reference, metadata: raw(metadata) });
    }
    LEAVE.execute(connection, &ids, |query, id| query.bind(*id)).await?;

    let mut seq = first_seq;
    let mut inserts: Vec<(i64, &Verdict, Record)> = Vec::with_capacity(submissions.len());
    for verdict in verdicts {
        let Some(submission) = submissions.remove(verdict.pin.as_str()) else {
            error!(pin_id = %verdict.pin, "a PIN that is not in flight got a verdict; it was dropped. This is a bug");
            continue;
        };
        let record: Record = outcome::record(seq, Uuid::now_v7(), verdict, &submission).into();
        inserts.push((seq, verdict, record.clone()));
        applied.finished.push(Outcome { seq, pin: verdict.pin.clone(), record });
        seq += 1;
    }
    END.execute(connection, &inserts, |query, (seq, verdict, record)| {
        let finished_at = verdict.finished_at.as_millisecond();
        query.bind(*seq).bind(verdict.pin.as_str()).bind(finished_at).bind(record.as_ref())
    })
    .await
}

static IN_FLIGHT: Many = Many::new("SELECT json_group_array(pin_id) FROM pin WHERE pin_id IN (", "?", ")");
static FINISHED: Many = Many::new(
    "SELECT json_group_array(json_array(seq, pin_id, record)) FROM outcome WHERE seq IN ( \
         SELECT max(seq) FROM outcome_by_pin CROSS JOIN outcome USING (seq) WHERE pin_hash IN (",
    "?",
    ") GROUP BY pin_id)",
);
static FINISHED_AND_WAITING: Many = Many::new(
    "SELECT json_group_array(json_array(seq, pin_id, record)) FROM outcome WHERE seq IN ( \
         SELECT max(seq) FROM outcome WHERE seq IN (",
    "?",
    ") GROUP BY pin_id)",
);
static ENTER: Many = Many::new(
    "INSERT INTO pin (pin_id, submitted_at, deadline_at, reference, metadata) SELECT * FROM (VALUES ",
    "(?, ?, ?, ?, ?)",
    ") WHERE column1 IS NOT NULL",
);

/// Takes PINs in, as far as there is room. One that stands twice among them is dealt with in the order given.
async fn submit(
    connection: &mut SqliteConnection,
    waiting: &Waiting,
    submits: &[NewPin],
    mut room: usize,
    applied: &mut Applied,
) -> Result<(), sqlx::Error> {
    if submits.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = submits.iter().map(|new| new.pin.as_str()).collect();
    let in_flight: HashSet<String> = IN_FLIGHT.ask(connection, &ids).await?.into_iter().collect();
    let finished = finished_among(connection, waiting, submits, &applied.finished).await?;

    let mut taken = HashSet::with_capacity(submits.len());
    let mut accepted = Vec::with_capacity(submits.len());
    for new in submits {
        let id = new.pin.as_str();
        applied.submitted.push(if in_flight.contains(id) || taken.contains(id) {
            Submitted::Duplicate
        } else if let Some((_, record)) = finished.get(id).filter(|_| !new.again) {
            Submitted::Finished(record.clone())
        } else if room == 0 {
            Submitted::AtCapacity
        } else {
            room -= 1;
            taken.insert(id);
            accepted.push(new);
            let NewPin { pin, submitted_at, deadline_at, .. } = new;
            let (submitted_at, deadline_at) = (*submitted_at, *deadline_at);
            applied.accepted.push(InFlight { pin: pin.clone(), submitted_at, deadline_at });
            Submitted::Accepted
        });
    }
    ENTER
        .execute(connection, &accepted, |query, new| {
            let (submitted, deadline) = (new.submitted_at.as_millisecond(), new.deadline_at.as_millisecond());
            let query = query.bind(new.pin.as_str()).bind(submitted).bind(deadline);
            query.bind(new.reference.as_deref()).bind(new.metadata.as_ref().map(|metadata| metadata.get()))
        })
        .await
}

/// The newest outcomes of these PINs, by ID, with those of this transaction.
async fn finished_among(
    connection: &mut SqliteConnection,
    waiting: &Waiting,
    submits: &[NewPin],
    just_now: &[Outcome],
) -> Result<HashMap<String, (i64, Record)>, sqlx::Error> {
    let asked = submits.iter().filter(|new| !new.again);
    let hashes: Vec<i64> = asked.map(|new| hash(new.pin.as_str())).collect();
    let seqs: Vec<i64> = hashes.iter().flat_map(|hash| waiting.seqs(*hash)).collect();
    let mut found: Vec<(i64, String, Record)> = FINISHED.ask(connection, &hashes).await?;
    found.extend(FINISHED_AND_WAITING.ask(connection, &seqs).await?);
    let mut finished: HashMap<String, (i64, Record)> = HashMap::with_capacity(found.len() + just_now.len());
    for (seq, pin, record) in found {
        let newest = finished.entry(pin).or_insert_with(|| (seq, record.clone()));
        if newest.0 < seq {
            *newest = (seq, record);
        }
    }
    for Outcome { seq, pin, record } in just_now {
        finished.insert(pin.as_str().to_owned(), (*seq, record.clone()));
    }
    Ok(finished)
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
        Order::Unregister { sink } => {
            sqlx::query("DELETE FROM sink WHERE name = ?1").bind(sink).execute(connection).await?
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

/// Removes outcomes that are old enough and that every sink has; a dead letter keeps its outcome. Gives what
/// they had in the index.
async fn prune(connection: &mut SqliteConnection, before: Timestamp) -> Result<Vec<Entry>, sqlx::Error> {
    let removed: Vec<(i64, String)> =
        sqlx::query_as(concat!("DELETE FROM outcome WHERE seq IN (", prunable!(), ") RETURNING seq, pin_id"))
            .bind(before.as_millisecond())
            .bind(PRUNE_AT_ONCE)
            .fetch_all(&mut *connection)
            .await?;
    let mut entries: Vec<Entry> = removed.iter().map(|(seq, pin)| (hash(pin), *seq)).collect();
    // In the order of the index, so that each of its pages is looked for once.
    entries.sort_unstable();
    Index::drop(connection, &entries).await?;
    Ok(entries)
}
