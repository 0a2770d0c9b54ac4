//! Moves PostgreSQL to SQLite.
//!
//! Promises that every outcome keeps its `seq`. All partitions become one: each sink's cursor is set to the last
//! outcome, and `delivery` lists whatever the sink has not got of any partition. Knows nothing of nodes beyond their
//! partitions and anchors.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use sqlx::{Connection, Executor, PgConnection, SqliteConnection};

use super::rows::{Delivery, Dropped, Outcome, Pin, begin_alone, sql, sql_of};
use super::{Amount, MigrateError, PAGE, Watcher};
use crate::clock::Clock;
use crate::store::{postgres, sqlite};

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
    let mut run = Run { source, shown, target, path: &unfinished, all, moved: Amount::default(), watch };
    let last = run.outcomes().await?;
    run.cursors(last).await?;
    run.undelivered().await?;
    run.behind().await?;
    run.dropped().await?;
    run.pins().await?;
    run.time().await?;
    let Run { source, mut target, moved, .. } = run;
    if moved != all {
        return Err(MigrateError::Incomplete { all, moved });
    }
    // Writes everything into the one file that gets the name.
    let write = sql_of("write", &unfinished);
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

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Outcomes that a sink has not got because its cursor in their partition has not reached them.
const BEHIND: &str = "SELECT cursor.sink, outcome.seq FROM cursor JOIN outcome ON outcome.lane = cursor.lane AND outcome.seq > cursor.cursor";

async fn amount(source: &mut PgConnection) -> Result<Amount, sqlx::Error> {
    let mut count = async |sql: String| -> Result<u64, sqlx::Error> {
        let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut *source).await?;
        Ok(count.unsigned_abs())
    };
    Ok(Amount {
        pins: count("SELECT count(*) FROM pin".into()).await?,
        outcomes: count("SELECT count(*) FROM outcome".into()).await?,
        undelivered: count(format!(
            "SELECT (SELECT count(*) FROM (SELECT sink, seq FROM delivery UNION {BEHIND}) AS undelivered) \
                 + (SELECT count(*) FROM dropped)"
        ))
        .await?,
        sinks: count(
            "SELECT count(*) FROM (SELECT sink FROM cursor UNION SELECT sink FROM delivery) AS sinks".into(),
        )
        .await?,
    })
}

struct Run<'a> {
    source: PgConnection,
    shown: &'a str,
    target: SqliteConnection,
    path: &'a Path,
    all: Amount,
    moved: Amount,
    watch: Watcher<'a>,
}

impl Run<'_> {
    fn report(&mut self) {
        (self.watch)(&self.all, &self.moved);
    }

    async fn begin(&mut self) -> Result<(), MigrateError> {
        self.target.execute("BEGIN IMMEDIATE").await.map_err(sql_of("write", self.path))?;
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), MigrateError> {
        self.target.execute("COMMIT").await.map_err(sql_of("write", self.path))?;
        self.report();
        Ok(())
    }

    /// Returns the last `seq` that was ever assigned.
    async fn outcomes(&mut self) -> Result<i64, MigrateError> {
        let mut after = i64::MIN;
        loop {
            let page: Vec<Outcome> = sqlx::query_as(
                "SELECT seq, pin_id, finished_at, record FROM outcome WHERE seq > $1 ORDER BY seq LIMIT $2",
            )
            .bind(after)
            .bind(PAGE)
            .fetch_all(&mut self.source)
            .await
            .map_err(sql("read", self.shown))?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            self.begin().await?;
            for row in &page {
                sqlx::query("INSERT INTO outcome (seq, pin_id, finished_at, record) VALUES (?1, ?2, ?3, ?4)")
                    .bind(row.seq)
                    .bind(&row.pin_id)
                    .bind(row.finished_at)
                    .bind(&row.record)
                    .execute(&mut self.target)
                    .await
                    .map_err(sql_of("write", self.path))?;
                sqlx::query("INSERT INTO outcome_by_pin (pin_hash, seq) VALUES (?1, ?2)")
                    .bind(sqlite::pin_hash(&row.pin_id))
                    .bind(row.seq)
                    .execute(&mut self.target)
                    .await
                    .map_err(sql_of("write", self.path))?;
            }
            self.moved.outcomes += page.len() as u64;
            self.commit().await?;
        }
        let last: i64 =
            sqlx::query_scalar("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM outcome_seq")
                .fetch_one(&mut self.source)
                .await
                .map_err(sql("read", self.shown))?;
        // No `seq` is used twice, even if retention has removed its outcome. SQLite keeps the last one in this table.
        let write = sql_of("write", self.path);
        self.target.execute("DELETE FROM sqlite_sequence WHERE name = 'outcome'").await.map_err(&write)?;
        sqlx::query("INSERT INTO sqlite_sequence (name, seq) VALUES ('outcome', ?1)")
            .bind(last)
            .execute(&mut self.target)
            .await
            .map_err(&write)?;
        let pruned_to: i64 = sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM pruned")
            .fetch_one(&mut self.source)
            .await
            .map_err(sql("read", self.shown))?;
        sqlx::query("UPDATE history SET indexed = ?1, pruned_to = ?2")
            .bind(last)
            .bind(pruned_to)
            .execute(&mut self.target)
            .await
            .map_err(&write)?;
        Ok(last)
    }

    async fn cursors(&mut self, last: i64) -> Result<(), MigrateError> {
        let sinks: Vec<String> =
            sqlx::query_scalar("SELECT sink FROM cursor UNION SELECT sink FROM delivery")
                .fetch_all(&mut self.source)
                .await
                .map_err(sql("read", self.shown))?;
        for sink in sinks {
            sqlx::query("INSERT INTO sink (name, cursor) VALUES (?1, ?2)")
                .bind(sink)
                .bind(last)
                .execute(&mut self.target)
                .await
                .map_err(sql_of("write", self.path))?;
            self.moved.sinks += 1;
        }
        self.report();
        Ok(())
    }

    /// Continues steady time from the nodes' anchors, so that ages in the new store continue from those in the old one.
    async fn time(&mut self) -> Result<(), MigrateError> {
        let anchors = postgres::anchors(&mut self.source).await.map_err(sql("read", self.shown))?;
        let clock = Clock::system();
        clock.go_on(&anchors);
        sqlite::note_time(&mut self.target, &clock.anchor()).await.map_err(sql_of("write", self.path))
    }

    /// Moves the outcomes that a sink's cursor has not reached.
    async fn behind(&mut self) -> Result<(), MigrateError> {
        let partitions: Vec<(i32, String, i64)> = sqlx::query_as("SELECT lane, sink, cursor FROM cursor")
            .fetch_all(&mut self.source)
            .await
            .map_err(sql("read", self.shown))?;
        for (partition, sink, mut after) in partitions {
            loop {
                let page: Vec<i64> = sqlx::query_scalar(
                    "SELECT seq FROM outcome WHERE lane = $1 AND seq > $2 ORDER BY seq LIMIT $3",
                )
                .bind(partition)
                .bind(after)
                .bind(PAGE)
                .fetch_all(&mut self.source)
                .await
                .map_err(sql("read", self.shown))?;
                let Some(last) = page.last() else { break };
                after = *last;
                let rows = page.iter().map(|seq| Delivery {
                    sink: sink.clone(),
                    seq: *seq,
                    dead: false,
                    tries: 0,
                    first_try_at: None,
                    last_try_at: None,
                    error: None,
                    first_ahead: 0,
                    last_ahead: 0,
                });
                self.deliver(rows).await?;
            }
        }
        Ok(())
    }

    /// Moves the outcomes that were tried, or are dead letters.
    async fn undelivered(&mut self) -> Result<(), MigrateError> {
        let mut after = (String::new(), i64::MIN);
        loop {
            let page: Vec<Delivery> = sqlx::query_as(
                "SELECT sink, seq, dead, tries, first_try_at, last_try_at, error, first_ahead, last_ahead FROM delivery \
                 WHERE (sink, seq) > ($1, $2) ORDER BY sink, seq LIMIT $3",
            )
            .bind(&after.0)
            .bind(after.1)
            .bind(PAGE)
            .fetch_all(&mut self.source)
            .await
            .map_err(sql("read", self.shown))?;
            let Some(last) = page.last() else { return Ok(()) };
            after = (last.sink.clone(), last.seq);
            self.deliver(page).await?;
        }
    }

    async fn deliver(&mut self, rows: impl IntoIterator<Item = Delivery>) -> Result<(), MigrateError> {
        self.begin().await?;
        for row in rows {
            // Deliveries that were tried come first and win: they say more than a cursor that has not reached the
            // outcome.
            let done = sqlx::query(
                "INSERT OR IGNORE INTO delivery \
                 (sink, seq, dead, tries, first_try_at, last_try_at, error, first_ahead, last_ahead) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )
            .bind(row.sink)
            .bind(row.seq)
            .bind(row.dead)
            .bind(row.tries)
            .bind(row.first_try_at)
            .bind(row.last_try_at)
            .bind(row.error)
            .bind(row.first_ahead)
            .bind(row.last_ahead)
            .execute(&mut self.target)
            .await
            .map_err(sql_of("write", self.path))?;
            self.moved.undelivered += done.rows_affected();
        }
        self.commit().await
    }

    async fn dropped(&mut self) -> Result<(), MigrateError> {
        let mut after = (i64::MIN, String::new());
        loop {
            let page: Vec<Dropped> = sqlx::query_as(
                "SELECT seq, sink, dropped_at FROM dropped WHERE (seq, sink) > ($1, $2) ORDER BY seq, sink LIMIT $3",
            )
            .bind(after.0)
            .bind(&after.1)
            .bind(PAGE)
            .fetch_all(&mut self.source)
            .await
            .map_err(sql("read", self.shown))?;
            let Some(last) = page.last() else { return Ok(()) };
            after = (last.seq, last.sink.clone());
            self.begin().await?;
            for row in &page {
                sqlx::query("INSERT INTO dropped (seq, sink, dropped_at) VALUES (?1, ?2, ?3)")
                    .bind(row.seq)
                    .bind(&row.sink)
                    .bind(row.dropped_at)
                    .execute(&mut self.target)
                    .await
                    .map_err(sql_of("write", self.path))?;
            }
            self.moved.undelivered += page.len() as u64;
            self.commit().await?;
        }
    }

    async fn pins(&mut self) -> Result<(), MigrateError> {
        let mut after = (i16::MIN, String::new());
        loop {
            let page: Vec<(i16, Pin)> = sqlx::query_as::<_, SlotAndPin>(
                "SELECT slot, pin_id, submitted_at, clock_ahead, deadline_at, reference, metadata FROM pin \
                 WHERE (slot, pin_id) > ($1, $2) ORDER BY slot, pin_id LIMIT $3",
            )
            .bind(after.0)
            .bind(&after.1)
            .bind(PAGE)
            .fetch_all(&mut self.source)
            .await
            .map_err(sql("read", self.shown))?
            .into_iter()
            .map(|SlotAndPin { slot, pin }| (slot, pin))
            .collect();
            let Some((slot, last)) = page.last() else { return Ok(()) };
            after = (*slot, last.pin_id.clone());
            self.begin().await?;
            for (_, row) in &page {
                sqlx::query(
                    "INSERT INTO pin (pin_id, pin_hash, submitted_at, clock_ahead, deadline_at, reference, metadata) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )
                .bind(&row.pin_id)
                .bind(sqlite::pin_hash(&row.pin_id))
                .bind(row.submitted_at)
                .bind(row.clock_ahead)
                .bind(row.deadline_at)
                .bind(&row.reference)
                .bind(&row.metadata)
                .execute(&mut self.target)
                .await
                .map_err(sql_of("write", self.path))?;
            }
            self.moved.pins += page.len() as u64;
            self.commit().await?;
        }
    }
}

#[derive(sqlx::FromRow)]
struct SlotAndPin {
    slot: i16,
    #[sqlx(flatten)]
    pin: Pin,
}
