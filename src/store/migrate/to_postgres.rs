//! Moves SQLite to PostgreSQL.
//!
//! Promises that every outcome keeps its `seq`. All outcomes go into the partition of one node whose lease is already
//! over: real nodes adopt what its sinks have not got, as they do for every dead node. Knows nothing of which node will
//! hold which slot.

use std::path::Path;

use futures_util::TryStreamExt;
use jiff::Timestamp;
use secrecy::SecretString;
use sqlx::{Connection, Executor, PgConnection, SqliteConnection};

use super::rows::{Count, Delivery, Dropped, Outcome, Pin, begin_alone, pages, sql};
use super::{Amount, MigrateError, Watcher};
use crate::clock::{Anchor, Clock};
use crate::slot::slot_of_text;
use crate::store::postgres::{self, column, storable};
use crate::store::sqlite;

/// As [`super::migrate`].
pub async fn migrate(
    path: &Path,
    url: &SecretString,
    shown: &str,
    watch: Watcher<'_>,
) -> Result<Amount, MigrateError> {
    let no_source = || MigrateError::NoSource { path: path.to_owned() };
    if !path.exists() {
        return Err(no_source());
    }
    let mut target = postgres::open_to_move(url, shown).await?;
    begin_alone(&mut target, shown).await?;
    must_be_empty(&mut target, shown).await?;
    // Held to the end, so that no daemon starts on the file meanwhile. Opened last, because opening migrates an old
    // file's schema.
    let (mut source, _lock) = sqlite::open_to_move(path).await?.ok_or_else(no_source)?;
    let all = amount(&mut source).await.map_err(sql("read", &path.display()))?;
    let pruned_to: i64 = sqlx::query_scalar("SELECT pruned_to FROM history")
        .fetch_one(&mut source)
        .await
        .map_err(sql("read", &path.display()))?;
    // Ages in the new store continue from those in the old one.
    let clock = Clock::system();
    let known = sqlite::anchor(&mut source).await.map_err(sql("read", &path.display()))?;
    clock.go_on(known.as_slice());
    let partition =
        make_partition(&mut target, path, pruned_to, &clock.anchor()).await.map_err(sql("write", shown))?;
    let count = Count { all, moved: Amount::default(), watch };
    let mut run = Run { source, path, target, shown, partition, count };
    run.outcomes().await?;
    run.undelivered().await?;
    run.dropped().await?;
    run.cursors().await?;
    run.pins().await?;
    let Run { source, mut target, count, .. } = run;
    let moved = count.complete()?;
    target.execute("COMMIT").await.map_err(sql("write", shown))?;
    // Neither connection has anything left to lose.
    let _ = target.close().await;
    let _ = source.close().await;
    Ok(moved)
}

async fn amount(source: &mut SqliteConnection) -> Result<Amount, sqlx::Error> {
    let mut count = async |sql: &'static str| -> Result<u64, sqlx::Error> {
        let count: i64 = sqlx::query_scalar(sql).fetch_one(&mut *source).await?;
        Ok(count.unsigned_abs())
    };
    Ok(Amount {
        pins: count("SELECT count(*) FROM pin").await?,
        outcomes: count("SELECT count(*) FROM outcome").await?,
        undelivered: count("SELECT (SELECT count(*) FROM delivery) + (SELECT count(*) FROM dropped)").await?,
        sinks: count("SELECT count(*) FROM sink").await?,
    })
}

async fn must_be_empty(target: &mut PgConnection, shown: &str) -> Result<(), MigrateError> {
    for (what, sql_text) in [
        ("PINs in flight", "SELECT EXISTS (SELECT FROM pin)"),
        ("outcomes", "SELECT EXISTS (SELECT FROM outcome) OR (SELECT is_called FROM outcome_seq)"),
    ] {
        let some: bool =
            sqlx::query_scalar(sql_text).fetch_one(&mut *target).await.map_err(sql("read", shown))?;
        if some {
            return Err(MigrateError::NotEmpty { url: shown.to_owned(), what });
        }
    }
    Ok(())
}

/// Creates the row of a node whose lease is over, which has removed outcomes up to the seq `pruned_to`. Its anchor
/// replaces every other one in the database.
async fn make_partition(
    target: &mut PgConnection,
    path: &Path,
    pruned_to: i64,
    now: &Anchor,
) -> Result<i32, sqlx::Error> {
    target.execute("UPDATE node SET steady = NULL").await?;
    sqlx::query("UPDATE steady_begin SET steady = $1")
        .bind(now.steady.millis())
        .execute(&mut *target)
        .await?;
    sqlx::query_scalar(
        "WITH made AS ( \
             INSERT INTO node (name, fence, lease_until, started_at, version, steady, boot_id, boot_time) \
             VALUES ($1, 0, clock_timestamp(), $2, $3, $5, $6, $7) RETURNING id) \
         INSERT INTO pruned (lane, seq) SELECT id, $4 FROM made RETURNING lane",
    )
    .bind(format!("moved from sqlite:{}", path.display()))
    .bind(Timestamp::now().as_millisecond())
    .bind(crate::build::VERSION)
    .bind(pruned_to)
    .bind(now.steady.millis())
    .bind(now.boot.id.as_deref())
    .bind(now.boot.millis())
    .fetch_one(target)
    .await
}

struct Run<'a> {
    source: SqliteConnection,
    path: &'a Path,
    target: PgConnection,
    shown: &'a str,
    partition: i32,
    count: Count<'a>,
}

impl Run<'_> {
    async fn outcomes(&mut self) -> Result<(), MigrateError> {
        let (read, write) = (sql("read", &self.path.display()), sql("write", self.shown));
        // No `seq` is used twice, even if retention has removed its outcome.
        let last: i64 =
            sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'outcome'")
                .fetch_one(&mut self.source)
                .await
                .map_err(&read)?;
        if last > 0 {
            // `setval` alone is not rolled back with the transaction, so after an interrupted move the database would
            // seem to have had outcomes. `RESTART` first makes the sequence part of this transaction.
            self.target.execute("ALTER SEQUENCE outcome_seq RESTART").await.map_err(&write)?;
            let set = sqlx::query("SELECT setval('outcome_seq', $1)").bind(last);
            set.execute(&mut self.target).await.map_err(&write)?;
        }
        let rows =
            sqlx::query_as("SELECT seq, pin_id, finished_at, record, submitter FROM outcome ORDER BY seq");
        let mut pages = pages::<Outcome>(rows.fetch(&mut self.source), read);
        while let Some(page) = pages.try_next().await? {
            sqlx::query(
                "INSERT INTO outcome (lane, seq, pin_id, finished_at, record, submitter) \
                 SELECT $1, * FROM UNNEST($2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::text[])",
            )
            .bind(self.partition)
            .bind(column(&page, |row| row.seq))
            .bind(column(&page, |row| row.pin_id.as_str()))
            .bind(column(&page, |row| row.finished_at))
            .bind(column(&page, |row| row.record.as_str()))
            .bind(column(&page, |row| row.submitter.as_deref()))
            .execute(&mut self.target)
            .await
            .map_err(&write)?;
            self.count.add(|moved| moved.outcomes += page.len() as u64);
        }
        Ok(())
    }

    async fn undelivered(&mut self) -> Result<(), MigrateError> {
        let rows = sqlx::query_as(Delivery::ALL).fetch(&mut self.source);
        let mut pages = pages::<Delivery>(rows, sql("read", &self.path.display()));
        while let Some(page) = pages.try_next().await? {
            sqlx::query(
                "INSERT INTO delivery \
                 (lane, sink, seq, dead, tries, first_try_at, last_try_at, error, first_ahead, last_ahead) \
                 SELECT $1, * FROM UNNEST($2::text[], $3::bigint[], $4::boolean[], $5::integer[], $6::bigint[], \
                 $7::bigint[], $8::text[], $9::bigint[], $10::bigint[])",
            )
            .bind(self.partition)
            .bind(column(&page, |row| row.sink.as_str()))
            .bind(column(&page, |row| row.seq))
            .bind(column(&page, |row| row.dead))
            .bind(column(&page, |row| row.tries))
            .bind(column(&page, |row| row.first_try_at))
            .bind(column(&page, |row| row.last_try_at))
            .bind(column(&page, |row| row.error.as_deref()))
            .bind(column(&page, |row| row.first_ahead))
            .bind(column(&page, |row| row.last_ahead))
            .execute(&mut self.target)
            .await
            .map_err(sql("write", self.shown))?;
            self.count.add(|moved| moved.undelivered += page.len() as u64);
        }
        Ok(())
    }

    async fn dropped(&mut self) -> Result<(), MigrateError> {
        let rows = sqlx::query_as(Dropped::ALL).fetch(&mut self.source);
        let mut pages = pages::<Dropped>(rows, sql("read", &self.path.display()));
        while let Some(page) = pages.try_next().await? {
            sqlx::query(
                "INSERT INTO dropped (seq, sink, dropped_at) \
                 SELECT * FROM UNNEST($1::bigint[], $2::text[], $3::bigint[])",
            )
            .bind(column(&page, |row| row.seq))
            .bind(column(&page, |row| row.sink.as_str()))
            .bind(column(&page, |row| row.dropped_at))
            .execute(&mut self.target)
            .await
            .map_err(sql("write", self.shown))?;
            self.count.add(|moved| moved.undelivered += page.len() as u64);
        }
        Ok(())
    }

    async fn cursors(&mut self) -> Result<(), MigrateError> {
        let sinks: Vec<(String, i64)> = sqlx::query_as("SELECT name, cursor FROM sink")
            .fetch_all(&mut self.source)
            .await
            .map_err(sql("read", &self.path.display()))?;
        sqlx::query(
            "INSERT INTO cursor (lane, sink, cursor) SELECT $1, * FROM UNNEST($2::text[], $3::bigint[])",
        )
        .bind(self.partition)
        .bind(column(&sinks, |(sink, _)| sink.as_str()))
        .bind(column(&sinks, |(_, cursor)| *cursor))
        .execute(&mut self.target)
        .await
        .map_err(sql("write", self.shown))?;
        self.count.add(|moved| moved.sinks += sinks.len() as u64);
        Ok(())
    }

    async fn pins(&mut self) -> Result<(), MigrateError> {
        let rows = sqlx::query_as(
            "SELECT pin_hash, pin_id, submitted_at, clock_ahead, deadline_at, reference, metadata, submitter FROM pin \
             ORDER BY number",
        );
        let mut pages = pages::<HashAndPin>(rows.fetch(&mut self.source), sql("read", &self.path.display()));
        while let Some(page) = pages.try_next().await? {
            if let Some(HashAndPin { pin, .. }) = page.iter().find(|row| row.is_damaged()) {
                return Err(MigrateError::DamagedPin { path: self.path.to_owned(), id: pin.pin_id.clone() });
            }
            let page: Vec<Pin> = page.into_iter().map(|row| row.pin).collect();
            sqlx::query(
                "INSERT INTO pin (slot, pin_id, submitted_at, clock_ahead, deadline_at, reference, metadata, submitter) \
                 SELECT * FROM UNNEST($1::smallint[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], \
                 $7::text[], $8::text[])",
            )
            .bind(column(&page, |row| i16::from(slot_of_text(&row.pin_id))))
            .bind(column(&page, |row| row.pin_id.as_str()))
            .bind(column(&page, |row| row.submitted_at))
            .bind(column(&page, |row| row.clock_ahead))
            .bind(column(&page, |row| row.deadline_at))
            .bind(column(&page, |row| row.reference.as_deref().map(storable)))
            .bind(column(&page, |row| row.metadata.as_deref()))
            .bind(column(&page, |row| row.submitter.as_deref()))
            .execute(&mut self.target)
            .await
            .map_err(sql("write", self.shown))?;
            self.count.add(|moved| moved.pins += page.len() as u64);
        }
        Ok(())
    }
}

#[derive(sqlx::FromRow)]
struct HashAndPin {
    pin_hash: Option<i64>,
    #[sqlx(flatten)]
    pin: Pin,
}

impl HashAndPin {
    /// Whether the ID in the row is not the one that was stored.
    fn is_damaged(&self) -> bool {
        self.pin_hash.is_some_and(|hash| hash != sqlite::text_hash(&self.pin.pin_id))
    }
}
