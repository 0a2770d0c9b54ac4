//! The transaction: the only code that changes the file while the daemon runs.
//!
//! Promises that a transaction is durable as a whole or has no effect, and that what is in memory changes only after
//! the commit. Knows nothing of who waits for it.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;

use super::super::{
    Applied, DeliveryCommand, Progress, SavedSchedule, Seqs, Transaction, Unavailable, Writes,
};
use super::by_hash::{Entry, hash};
use super::index::{EntriesOf, Index, Step, reference};
use super::many::{Query, json};
use super::pins::{Pins, Turnover};
use super::place::{Lost, Place};
use super::recent::Recent;
use crate::clock::{Anchor, Clock, Dated, Steady};
use crate::fault::fault_point;

/// The first `?2` outcomes that ended before `?1` and that every sink has: every cursor has passed them, and none is in
/// `delivery`.
macro_rules! prunable {
    () => {
        "SELECT seq FROM outcome INDEXED BY outcome_by_end \
         WHERE seq <= (SELECT coalesce(min(cursor), 0x7fffffffffffffff) FROM sink) AND finished_at < ?1 \
           AND NOT EXISTS ( \
               SELECT 1 FROM delivery INDEXED BY delivery_by_seq WHERE delivery.seq = outcome.seq) \
         LIMIT ?2"
    };
}

/// How often the time is stored while PINs are in flight and nothing else is written. Over a reboot a PIN's age lags by
/// this much at most. Storing it costs two pages.
const NOTE_TIME_EVERY: Duration = Duration::from_secs(600);

/// The only connection that writes.
pub struct WriteConnection {
    pub(super) connection: SqliteConnection,
    pub(super) place: Place,
    pub(super) pins: Pins,
    pub(super) next_seq: i64,
    pub(super) commits: i64,
    /// Whether the last transaction succeeded.
    pub(super) well: bool,
    /// Whether the log was checkpointed into the database after somebody removed it from its path.
    pub(super) saved: bool,
    pub(super) recent: Recent,
    pub(super) index: Index,
    pub(super) clock: Clock,
    /// When this process last stored the time in the file.
    pub(super) noted: Option<Steady>,
}

/// Effects of a transaction that its callers do not see.
#[derive(Default)]
struct SideEffects {
    turnover: Turnover,
    step: Step,
    pruned: EntriesOf,
}

#[async_trait]
impl Writes for WriteConnection {
    fn in_flight(&self) -> usize {
        self.pins.entries.len()
    }

    fn last_seq(&self) -> i64 {
        self.next_seq - 1
    }

    /// A lone prune that finds nothing to remove writes nothing.
    async fn apply(&mut self, work: &Transaction, max_in_flight: usize) -> Result<Applied, Unavailable> {
        // Not after a failure: then every transaction also tests whether the file can be written again.
        if let (Some(before), 1, true) = (work.prune, work.changes(), self.well) {
            let statement = concat!("SELECT EXISTS (", prunable!(), ")");
            let connection = &mut self.connection;
            let some: bool =
                sqlx::query_scalar(statement).bind(before.millis()).bind(1).fetch_one(connection).await?;
            if !some {
                return Ok(Applied::default());
            }
        }
        let applied = self.transact(work, max_in_flight).await;
        self.well = applied.is_ok();
        let (applied, SideEffects { turnover, step, pruned }) = match applied {
            Ok(applied) => applied,
            Err(error) => {
                // SQLite may already have rolled back, as it does when the disk is full; then this fails and nothing is
                // left to undo. sqlx's own transactions require a rollback that succeeds.
                let _ = sqlx::query("ROLLBACK").execute(&mut self.connection).await;
                return Err(error.into());
            }
        };
        fault_point!("committed-and-not-noted");
        self.next_seq += applied.finished.len() as i64;
        self.commits += 1;
        self.noted = Some(self.clock.steady());
        self.place.note_commits(self.commits);
        self.index.stepped(step);
        let ended = turnover.removed.iter().zip(&applied.finished);
        let ended = ended.map(|(removed, outcome)| Entry::new(removed.hash(), outcome.seq));
        self.index.add(ended, turnover.references());
        self.pins.turned_over(turnover);
        self.recent.add(&applied.finished);
        if !pruned.pins.is_empty() {
            self.index.dropped(&pruned);
            self.recent.forget();
        }
        Ok(applied)
    }

    async fn register_sink(&mut self, name: &str, from_oldest: bool) -> Result<i64, Unavailable> {
        let first = if from_oldest { 0 } else { self.last_seq() };
        sqlx::query("INSERT INTO sink (name, cursor) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
            .bind(name)
            .bind(first)
            .execute(&mut self.connection)
            .await?;
        let cursor = sqlx::query_scalar("SELECT cursor FROM sink WHERE name = ?1").bind(name);
        Ok(cursor.fetch_one(&mut self.connection).await?)
    }

    async fn index_older(&mut self) -> Result<bool, Unavailable> {
        Ok(Index::put_older(&mut self.connection).await?)
    }

    async fn in_place(&mut self) -> Result<(), Unavailable> {
        let Err(lost) = self.place.check(self.commits) else {
            self.saved = false;
            return Ok(());
        };
        let mut text = lost.to_string();
        if matches!(lost, Lost::Beside(_)) {
            if !self.saved {
                // The next start will not find the log, but SQLite still has it open.
                let busy = sqlx::query_scalar::<_, i64>("PRAGMA wal_checkpoint(FULL)");
                self.saved = busy.fetch_one(&mut self.connection).await.is_ok_and(|busy| busy == 0);
            }
            if self.saved {
                text.push_str("; what was acknowledged is in the database");
            }
        }
        Err(Unavailable(text.into()))
    }

    /// Closes the file, after writing the log into it.
    async fn close(mut self: Box<Self>) -> Result<(), Unavailable> {
        if let Err(lost) = self.in_place().await {
            // SQLite would delete whatever file now has the log's name. The process is about to end, so the connection
            // may leak.
            std::mem::forget(self.connection);
            return Err(lost);
        }
        // Steady time stands still from the last stored time to the start after a reboot. If this fails, PINs get a
        // little more time.
        let _ = self.store_time().await;
        Ok(self.connection.close().await?)
    }

    async fn note_time(&mut self) -> Result<(), Unavailable> {
        let is_long_ago = |noted| self.clock.steady().since(noted) >= NOTE_TIME_EVERY;
        if self.in_flight() > 0 && self.noted.is_none_or(is_long_ago) {
            self.store_time().await?;
        }
        Ok(())
    }
}

impl WriteConnection {
    async fn transact(
        &mut self,
        work: &Transaction,
        max_in_flight: usize,
    ) -> Result<(Applied, SideEffects), sqlx::Error> {
        let (newest, in_flight) = (self.last_seq(), self.in_flight());
        let connection = &mut self.connection;
        // Both statements in one call, to wake SQLite's thread only once.
        let anchor = self.clock.anchor();
        noting("BEGIN IMMEDIATE; UPDATE history SET steady = ?1, boot_id = ?2, boot_time = ?3, commits = commits + 1", &anchor)
            .execute(&mut *connection)
            .await?;
        let mut applied = Applied::default();
        let mut effects = SideEffects::default();
        let turnover = &mut effects.turnover;
        self.pins.finish(connection, &work.verdicts, self.next_seq, &mut applied, turnover).await?;
        let room = max_in_flight.saturating_sub(in_flight - applied.finished.len());
        let waiting = &self.index.waiting.pins;
        self.pins.submit(connection, waiting, &work.submits, room, &mut applied, turnover).await?;
        let added = turnover.removed.len() + turnover.references().len();
        effects.step = self.index.step(connection, added, newest).await?;
        for progress in &work.progress {
            advance(connection, progress).await?;
        }
        for command in &work.commands {
            applied.affected.push(carry_out(connection, command).await?);
        }
        if let Some(SavedSchedule { reason, until, rate, learned }) = &work.schedule {
            let sql = "UPDATE brake SET reason = ?1, until = ?2, rate = ?3, learned = coalesce(?4, learned)";
            sqlx::query(sql)
                .bind(reason)
                .bind(until.map(Steady::millis))
                .bind(rate)
                .bind(learned)
                .execute(&mut *connection)
                .await?;
        }
        if let Some(before) = work.prune {
            effects.pruned = prune(connection, before).await?;
            applied.pruned = effects.pruned.pins.len() as u64;
        }
        fault_point!("not-committed");
        sqlx::query("COMMIT").execute(connection).await?;
        Ok((applied, effects))
    }

    /// Stores the time.
    async fn store_time(&mut self) -> Result<(), sqlx::Error> {
        let anchor = self.clock.anchor();
        note_time(&mut self.connection, &anchor).await?;
        self.noted = Some(anchor.steady);
        Ok(())
    }
}

/// Stores this anchor.
pub async fn note_time(connection: &mut SqliteConnection, anchor: &Anchor) -> Result<(), sqlx::Error> {
    let noting = noting("UPDATE history SET steady = ?1, boot_id = ?2, boot_time = ?3", anchor);
    noting.execute(connection).await.map(|_| ())
}

/// Binds an anchor to a statement that stores it.
fn noting(sql: &'static str, Anchor { boot, steady }: &Anchor) -> Query<'static> {
    sqlx::query(sql).bind(steady.millis()).bind(boot.id.as_deref().map(str::to_owned)).bind(boot.millis())
}

/// Stores a sink's progress.
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
        let millis = |date: Option<Dated>| date.map(|date| date.wall.as_millisecond());
        let ahead = |date: Option<Dated>| date.map_or(0, Dated::ahead);
        let rows: Vec<_> = failed
            .iter()
            .map(|f| {
                let (first, last) = (f.first_try_at, f.last_try_at);
                (f.seq, f.dead, f.tries, millis(first), millis(last), &f.error, ahead(first), ahead(last))
            })
            .collect();
        sqlx::query(
            "INSERT OR REPLACE INTO delivery (sink, seq, dead, tries, first_try_at, last_try_at, error, first_ahead, last_ahead) \
             SELECT ?1, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, \
                 value ->> 6, value ->> 7 \
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

/// A statement that ends with its condition on `seq`. Those of a list are looked up one by one: they may be far apart.
macro_rules! chosen {
    ($seqs:expr, $sql:literal) => {
        match $seqs {
            Seqs::Range(..) => concat!($sql, "BETWEEN ?2 AND ?3"),
            Seqs::Each(_) => concat!($sql, "IN (SELECT value FROM json_each(?2)) AND ?3 IS NULL"),
        }
    };
}

/// Carries out a delivery command; returns how many outcomes it affected.
async fn carry_out(connection: &mut SqliteConnection, command: &DeliveryCommand) -> Result<u64, sqlx::Error> {
    let done = match command {
        DeliveryCommand::Replay { sink, seqs, only_dead: false } => {
            // Outcomes after the cursor will be delivered anyway.
            let sql = chosen!(
                seqs,
                "INSERT OR REPLACE INTO delivery (sink, seq, dead, tries) \
                 SELECT sink.name, outcome.seq, 0, 0 FROM outcome, sink \
                 WHERE sink.name = ?1 AND outcome.seq <= sink.cursor AND outcome.seq "
            );
            let replayed = over(sql, sink, seqs).execute(&mut *connection).await?;
            let sql = chosen!(
                seqs,
                "DELETE FROM dropped WHERE sink = ?1 \
                   AND EXISTS (SELECT 1 FROM delivery d WHERE d.sink = ?1 AND d.seq = dropped.seq) AND seq "
            );
            over(sql, sink, seqs).execute(connection).await?;
            replayed
        }
        DeliveryCommand::Replay { sink, seqs, only_dead: true } => {
            let sql = chosen!(
                seqs,
                "UPDATE delivery SET dead = 0, tries = 0, first_try_at = NULL, last_try_at = NULL \
                 WHERE sink = ?1 AND dead AND seq "
            );
            over(sql, sink, seqs).execute(connection).await?
        }
        DeliveryCommand::Drop { sink, seqs, at } => {
            let sql = chosen!(
                seqs,
                "INSERT OR REPLACE INTO dropped (seq, sink, dropped_at) \
                 SELECT seq, ?1, ?4 FROM delivery WHERE sink = ?1 AND dead AND seq "
            );
            over(sql, sink, seqs).bind(at.as_millisecond()).execute(&mut *connection).await?;
            let sql = chosen!(seqs, "DELETE FROM delivery WHERE sink = ?1 AND dead AND seq ");
            over(sql, sink, seqs).execute(connection).await?
        }
        DeliveryCommand::Unregister { sink } => {
            sqlx::query("DELETE FROM sink WHERE name = ?1").bind(sink).execute(connection).await?
        }
        DeliveryCommand::Forget { sink } => {
            let some = sqlx::query(
                "DELETE FROM delivery WHERE sink = ?1 AND seq IN ( \
                     SELECT seq FROM delivery WHERE sink = ?1 ORDER BY seq LIMIT ?2)",
            );
            let some = some.bind(sink).bind(FORGET_AT_ONCE).execute(&mut *connection).await?.rows_affected();
            if some == u64::from(FORGET_AT_ONCE) {
                return Ok(some);
            }
            sqlx::query("DELETE FROM dropped WHERE sink = ?1").bind(sink).execute(&mut *connection).await?;
            let done = sqlx::query("DELETE FROM sink WHERE name = ?1").bind(sink).execute(connection).await?;
            return Ok(some + done.rows_affected());
        }
    };
    Ok(done.rows_affected())
}

/// Binds a statement of `chosen!`.
fn over<'q>(sql: &'static str, sink: &'q str, seqs: &Seqs) -> Query<'q> {
    let query = sqlx::query(sql).bind(sink);
    match seqs {
        Seqs::Range(from, to) => query.bind(*from).bind(*to),
        Seqs::Each(seqs) => query.bind(json(seqs)).bind(None::<i64>),
    }
}

/// Deliveries of a sink that one transaction forgets. It bounds the transaction.
const FORGET_AT_ONCE: u32 = 10_000;

/// Outcomes that one transaction removes. It bounds the transaction, so that nobody waits long for it.
const PRUNE_AT_ONCE: i64 = 2000;

/// Removes outcomes that are old enough and that every sink has; a dead letter keeps its outcome. Returns their entries
/// in the index.
async fn prune(connection: &mut SqliteConnection, before: Steady) -> Result<EntriesOf, sqlx::Error> {
    let statement =
        concat!("DELETE FROM outcome WHERE seq IN (", prunable!(), ") RETURNING seq, pin_id, ", reference!());
    let removed: Vec<(i64, String, Option<String>)> = sqlx::query_as(statement)
        .bind(before.millis())
        .bind(PRUNE_AT_ONCE)
        .fetch_all(&mut *connection)
        .await?;
    if !removed.is_empty() {
        let seqs: Vec<i64> = removed.iter().map(|(seq, ..)| *seq).collect();
        sqlx::query("DELETE FROM dropped WHERE seq IN (SELECT value FROM json_each(?1))")
            .bind(json(&seqs))
            .execute(&mut *connection)
            .await?;
        sqlx::query("UPDATE history SET pruned_to = max(pruned_to, ?1)")
            .bind(seqs.iter().max())
            .execute(&mut *connection)
            .await?;
    }
    let mut entries = EntriesOf::default();
    for (seq, pin, reference) in &removed {
        entries.pins.push(Entry::new(hash(pin), *seq));
        entries.references.extend(reference.as_deref().map(|reference| Entry::new(hash(reference), *seq)));
    }
    Index::drop(connection, &entries).await?;
    Ok(entries)
}
