//! Moves PostgreSQL to SQLite.
//!
//! Promises that every outcome keeps its `seq`. All partitions become one: each sink's cursor is set to the last
//! outcome, and `delivery` lists whatever the sink has not got of any partition. Knows nothing of nodes beyond their
//! partitions and anchors.

use std::fs::{self, File};
use std::path::Path;

use futures_util::TryStreamExt;
use secrecy::SecretString;
use sqlx::query_builder::Separated;
use sqlx::{Connection, Executor, PgConnection, QueryBuilder, Sqlite, SqliteConnection};

use super::rows::{Count, Delivery, Dropped, Outcome, PAGE, Pin, begin_alone, pages, sql};
use super::{Amount, MigrateError, Watcher};
use crate::clock::Clock;
use crate::store::postgres;
use crate::store::rows::reference_of;
use crate::store::sqlite::{self, with_suffix};

/// As [`super::migrate`].
pub async fn migrate(
    url: &SecretString,
    shown: &str,
    path: &Path,
    watch: Watcher<'_>,
) -> Result<Amount, MigrateError> {
    let mut source = postgres::open_to_move(url, shown).await?;
    begin_alone(&mut source, shown).await?;
    if path.exists() {
        return Err(MigrateError::Exists { path: path.to_owned() });
    }
    // Held to the end, so that no daemon creates the file meanwhile.
    let _lock = sqlite::lock_to_make(path).await?;
    let unfinished = with_suffix(path, ".unfinished");
    remove(&unfinished)?;
    let target = sqlite::make(&unfinished).await?;
    let all = amount(&mut source).await.map_err(sql("read", shown))?;
    let count = Count { all, moved: Amount::default(), watch };
    let mut run = Run { source, shown, target, path: &unfinished, count };
    let last = run.outcomes().await?;
    run.cursors(last).await?;
    // First, because these rows say more than a cursor that has not reached the outcome.
    run.undelivered(Delivery::ALL).await?;
    run.undelivered(BEHIND).await?;
    run.dropped().await?;
    run.pins().await?;
    run.time().await?;
    let Run { source, mut target, count, .. } = run;
    let moved = count.complete()?;
    // Writes everything into the one file that gets the name.
    let write = sql("write", &unfinished.display());
    target.execute("PRAGMA wal_checkpoint(TRUNCATE)").await.map_err(&write)?;
    target.close().await.map_err(&write)?;
    finish(&unfinished, path).map_err(|source| MigrateError::Io {
        doing: "give the finished database its name",
        path: path.to_owned(),
        source,
    })?;
    // Only now may nodes use the old store again. It was not changed.
    let _ = source.close().await;
    Ok(moved)
}

fn finish(unfinished: &Path, path: &Path) -> std::io::Result<()> {
    File::open(unfinished)?.sync_all()?;
    fs::rename(unfinished, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Removes what an interrupted move left.
fn remove(unfinished: &Path) -> Result<(), MigrateError> {
    for path in ["", "-wal", "-shm"].map(|suffix| with_suffix(unfinished, suffix)) {
        match fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(MigrateError::Io { doing: "remove", path, source });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Outcomes that a sink has not got because its cursor in their partition has not reached them.
const BEHIND: &str = "SELECT cursor.sink, outcome.seq, false AS dead, 0 AS tries, \
     NULL::bigint AS first_try_at, NULL::bigint AS last_try_at, NULL AS error, \
     0::bigint AS first_ahead, 0::bigint AS last_ahead \
     FROM cursor JOIN outcome ON outcome.lane = cursor.lane AND outcome.seq > cursor.cursor";

async fn amount(source: &mut PgConnection) -> Result<Amount, sqlx::Error> {
    let mut count = async |sql: &str| -> Result<u64, sqlx::Error> {
        let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM ({sql}) AS rows"));
        let count: i64 = sqlx::query_scalar(sql).fetch_one(&mut *source).await?;
        Ok(count.unsigned_abs())
    };
    let undelivered =
        format!("SELECT sink, seq FROM delivery UNION SELECT sink, seq FROM ({BEHIND}) AS behind");
    Ok(Amount {
        pins: count("SELECT FROM pin").await?,
        outcomes: count("SELECT FROM outcome").await?,
        undelivered: count(&undelivered).await? + count("SELECT FROM dropped").await?,
        sinks: count(SINKS).await?,
    })
}

const SINKS: &str = "SELECT sink FROM cursor UNION SELECT sink FROM delivery";

struct Run<'a> {
    source: PgConnection,
    shown: &'a str,
    target: SqliteConnection,
    path: &'a Path,
    count: Count<'a>,
}

/// The values of a row that is being inserted.
type Values<'b> = Separated<'b, Sqlite, &'static str>;

/// Inserts rows with one statement; returns how many were inserted.
async fn insert<T>(
    target: &mut SqliteConnection,
    path: &Path,
    into: &str,
    rows: &[T],
    bind: impl FnMut(Values<'_>, &T),
) -> Result<u64, MigrateError> {
    let mut query = QueryBuilder::new(into);
    query.push_values(rows, bind);
    let done = query.build().execute(target).await.map_err(sql("write", &path.display()))?;
    Ok(done.rows_affected())
}

impl Run<'_> {
    /// Returns the last `seq` that was ever assigned.
    async fn outcomes(&mut self) -> Result<i64, MigrateError> {
        let (read, write) = (sql("read", self.shown), sql("write", &self.path.display()));
        let last: i64 =
            sqlx::query_scalar("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM outcome_seq")
                .fetch_one(&mut self.source)
                .await
                .map_err(&read)?;
        let pruned_to: i64 = sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM pruned")
            .fetch_one(&mut self.source)
            .await
            .map_err(&read)?;
        let rows =
            sqlx::query_as("SELECT seq, pin_id, finished_at, record, submitter FROM outcome ORDER BY seq");
        let mut pages = pages::<Outcome>(rows.fetch(&mut self.source), read);
        while let Some(page) = pages.try_next().await? {
            let into = "INSERT INTO outcome (seq, pin_id, finished_at, record, submitter) ";
            insert(&mut self.target, self.path, into, &page, |mut values, row| {
                values.push_bind(row.seq).push_bind(row.pin_id.as_str());
                values.push_bind(row.finished_at).push_bind(row.record.as_str());
                values.push_bind(row.submitter.as_deref());
            })
            .await?;
            let into = "INSERT INTO outcome_by_pin (pin_hash, seq) ";
            insert(&mut self.target, self.path, into, &page, |mut values, row| {
                values.push_bind(sqlite::text_hash(&row.pin_id)).push_bind(row.seq);
            })
            .await?;
            let referring: Vec<(i64, String)> =
                page.iter().filter_map(|row| Some((row.seq, reference_of(&row.record)?))).collect();
            if !referring.is_empty() {
                let into = "INSERT INTO outcome_by_reference (reference_hash, seq) ";
                insert(&mut self.target, self.path, into, &referring, |mut values, (seq, reference)| {
                    values.push_bind(sqlite::text_hash(reference)).push_bind(*seq);
                })
                .await?;
            }
            self.count.add(|moved| moved.outcomes += page.len() as u64);
        }
        // No `seq` is used twice, even if retention has removed its outcome. SQLite keeps the last one in this table.
        self.target.execute("DELETE FROM sqlite_sequence WHERE name = 'outcome'").await.map_err(&write)?;
        let note = sqlx::query("INSERT INTO sqlite_sequence (name, seq) VALUES ('outcome', ?1)").bind(last);
        note.execute(&mut self.target).await.map_err(&write)?;
        let note = sqlx::query("UPDATE history SET indexed = ?1, pruned_to = ?2").bind(last).bind(pruned_to);
        note.execute(&mut self.target).await.map_err(&write)?;
        Ok(last)
    }

    async fn cursors(&mut self, last: i64) -> Result<(), MigrateError> {
        let rows = sqlx::query_scalar(SINKS).fetch_all(&mut self.source).await;
        let sinks: Vec<String> = rows.map_err(sql("read", self.shown))?;
        for sinks in sinks.chunks(PAGE) {
            let into = "INSERT INTO sink (name, cursor) ";
            insert(&mut self.target, self.path, into, sinks, |mut values, sink| {
                values.push_bind(sink.as_str()).push_bind(last);
            })
            .await?;
            self.count.add(|moved| moved.sinks += sinks.len() as u64);
        }
        Ok(())
    }

    /// Continues steady time from the nodes' anchors, so that ages in the new store continue from those in the old one.
    async fn time(&mut self) -> Result<(), MigrateError> {
        let anchors = postgres::anchors(&mut self.source).await.map_err(sql("read", self.shown))?;
        let clock = Clock::system();
        clock.go_on(&anchors);
        sqlite::note_time(&mut self.target, &clock.anchor()).await.map_err(sql("write", &self.path.display()))
    }

    /// Moves the deliveries of a query that were not moved yet.
    async fn undelivered(&mut self, query: &'static str) -> Result<(), MigrateError> {
        let rows = sqlx::query_as(query).fetch(&mut self.source);
        let mut pages = pages::<Delivery>(rows, sql("read", self.shown));
        while let Some(page) = pages.try_next().await? {
            let into = "INSERT OR IGNORE INTO delivery \
                 (sink, seq, dead, tries, first_try_at, last_try_at, error, first_ahead, last_ahead) ";
            let moved = insert(&mut self.target, self.path, into, &page, |mut values, row| {
                values
                    .push_bind(row.sink.as_str())
                    .push_bind(row.seq)
                    .push_bind(row.dead)
                    .push_bind(row.tries);
                values.push_bind(row.first_try_at).push_bind(row.last_try_at).push_bind(row.error.as_deref());
                values.push_bind(row.first_ahead).push_bind(row.last_ahead);
            });
            let moved = moved.await?;
            self.count.add(|all| all.undelivered += moved);
        }
        Ok(())
    }

    async fn dropped(&mut self) -> Result<(), MigrateError> {
        let rows = sqlx::query_as(Dropped::ALL).fetch(&mut self.source);
        let mut pages = pages::<Dropped>(rows, sql("read", self.shown));
        while let Some(page) = pages.try_next().await? {
            let into = "INSERT INTO dropped (seq, sink, dropped_at) ";
            insert(&mut self.target, self.path, into, &page, |mut values, row| {
                values.push_bind(row.seq).push_bind(row.sink.as_str()).push_bind(row.dropped_at);
            })
            .await?;
            self.count.add(|moved| moved.undelivered += page.len() as u64);
        }
        Ok(())
    }

    async fn pins(&mut self) -> Result<(), MigrateError> {
        let rows = sqlx::query_as(
            "SELECT pin_id, submitted_at, clock_ahead, deadline_at, reference, metadata, submitter FROM pin \
             ORDER BY slot, pin_id",
        );
        let mut pages = pages::<Pin>(rows.fetch(&mut self.source), sql("read", self.shown));
        while let Some(page) = pages.try_next().await? {
            let into = "INSERT INTO pin \
                 (pin_id, pin_hash, submitted_at, clock_ahead, deadline_at, reference, metadata, submitter) ";
            insert(&mut self.target, self.path, into, &page, |mut values, row| {
                values.push_bind(row.pin_id.as_str()).push_bind(sqlite::text_hash(&row.pin_id));
                values.push_bind(row.submitted_at).push_bind(row.clock_ahead).push_bind(row.deadline_at);
                values.push_bind(row.reference.as_deref()).push_bind(row.metadata.as_deref());
                values.push_bind(row.submitter.as_deref());
            })
            .await?;
            self.count.add(|moved| moved.pins += page.len() as u64);
        }
        Ok(())
    }
}
