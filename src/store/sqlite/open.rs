//! Opens the file: checks that it is a pinwatch database, that it is whole and that no other process uses it.
//!
//! Promises to change nothing in a file that it refuses. Knows nothing of what the rows mean.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use super::super::{InFlight, Store, Writes, rows};
use super::Reader;
use super::error::OpenError;
use super::index::Index;
use super::load::load;
use super::place::{self, Claim, LockFile, Place, with_suffix};
use super::recent::Recent;
use super::write::WriteConnection;
use crate::clock::{Anchor, Clock};
use crate::fault::fault_point;
use crate::paths;

/// The `PRAGMA application_id` of a pinwatch database: "pinw".
const APPLICATION_ID: i64 = 0x7069_6e77;

/// The largest file, in bytes, that is checked page by page before use. Beyond this size most of the file is old
/// outcomes (some 60 GB after a week of 150 PINs a second), and reading them all would delay the start too long. Damage
/// in them shows when it is met: SQLite refuses the page, and with it the commit or the query.
const CHECKED_WHOLE: i64 = 256 * 1024 * 1024;

/// The first schema in which each PIN in flight has the hash of its ID beside it.
const HASHED: i64 = 2;

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/sqlite/migrations");

/// Connections that read, for client requests and sinks.
const READERS: u32 = 4;

/// The number of pages (32 MB) at which the write-ahead log is written into the file. A page that many commits change
/// is written only once.
const CHECKPOINT_AFTER: &str = "8192";

/// The size, in bytes, to which the write-ahead log is truncated after a burst.
const WAL_SIZE_LIMIT: &str = "67108864";

/// An open database whose PINs in flight have not been read yet.
pub struct Unloaded {
    place: Place,
    connection: SqliteConnection,
    in_flight: usize,
    commits: i64,
    clock: Clock,
}

/// Opens the database at `path`, creates it if there is none, and migrates its schema. The clock continues from the
/// database's anchor.
///
/// # Errors
/// Another process uses the database, or it is foreign, newer, damaged or not accessible.
pub async fn open(path: &Path, clock: &Clock) -> Result<Unloaded, OpenError> {
    let place = hold_whole(path).await?;
    let mut connection = make(path).await?;
    let (commits, in_flight): (i64, i64) =
        sqlx::query_as("SELECT commits, (SELECT count(*) FROM pin) FROM history")
            .fetch_one(&mut connection)
            .await
            .map_err(|error| judge(path, error))?;
    place.note_commits(commits);
    clock.go_on(anchor(&mut connection).await.map_err(|error| judge(path, error))?.as_slice());
    let in_flight = usize::try_from(in_flight).unwrap_or(0);
    Ok(Unloaded { place, connection, in_flight, commits, clock: clock.clone() })
}

impl Unloaded {
    /// The number of PINs in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Passes every PIN in flight to `take`; returns the store.
    pub async fn load(self, take: impl FnMut(InFlight)) -> Result<(Store, Box<dyn Writes>), OpenError> {
        let (reader, writer) = self.load_both(take).await?;
        Ok((Arc::new(reader), Box::new(writer)))
    }

    pub(super) async fn load_both(
        self,
        take: impl FnMut(InFlight),
    ) -> Result<(Reader, WriteConnection), OpenError> {
        let Self { mut place, mut connection, in_flight, commits, clock } = self;
        let path = place.path().to_owned();
        let judge = |error| judge(&path, error);
        let pins = load(&mut connection, take).await.map_err(judge)?;
        if pins.entries.len() != in_flight {
            let what = format!("of {in_flight} PINs in flight {} can be read", pins.entries.len());
            return Err(OpenError::Damaged { path, what });
        }
        let last_seq: i64 =
            sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'outcome'")
                .fetch_one(&mut connection)
                .await
                .map_err(judge)?;
        let index = Index::load(&mut connection, last_seq).await.map_err(judge)?;
        let readers = SqlitePoolOptions::new()
            // Opens all connections now and keeps them while the daemon runs: later another file may be at the path.
            .min_connections(READERS)
            .max_connections(READERS)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(options(&path).read_only(true).row_buffer_size(1024))
            .await
            .map_err(judge)?;
        place.opened()?;
        let recent = Recent::new(last_seq);
        let reader = Reader {
            readers,
            recent: recent.clone(),
            pins: pins.entries.clone(),
            references: pins.references.clone(),
            waiting: index.waiting.clone(),
        };
        let next_seq = last_seq + 1;
        let writer = WriteConnection {
            connection,
            place,
            pins,
            next_seq,
            commits,
            well: true,
            saved: false,
            recent,
            index,
            noted: None,
            clock,
        };
        Ok((reader, writer))
    }
}

/// The anchor of steady time in the database; `None` before its first commit.
pub async fn anchor(connection: &mut SqliteConnection) -> Result<Option<Anchor>, sqlx::Error> {
    let (steady, id, time): (Option<i64>, Option<String>, Option<i64>) =
        sqlx::query_as("SELECT steady, boot_id, boot_time FROM history").fetch_one(connection).await?;
    Ok(rows::anchor(steady, id, time))
}

/// Opens the database at `path` for moving its contents to another store; `None` if there is none. No daemon can use it
/// while the caller keeps the `Place`.
pub async fn open_to_move(path: &Path) -> Result<Option<(SqliteConnection, Place)>, OpenError> {
    if !path.exists() {
        return Ok(None);
    }
    let place = hold_whole(path).await?;
    Ok(Some((make(path).await?, place)))
}

/// Locks a `path` where a move will create a database. No daemon can use the path while the caller keeps the lock.
pub async fn lock_to_make(path: &Path) -> Result<LockFile, OpenError> {
    prepare_folder(path)?;
    let (lock, _) = LockFile::take(path).await?;
    // Forgets the commits of any database that was here before.
    lock.note_commits(0);
    Ok(lock)
}

/// Locks a database after checking that it is whole, or creates an empty one.
async fn hold_whole(path: &Path) -> Result<Place, OpenError> {
    prepare_folder(path)?;
    let claim = Claim::take(path).await?;
    let noted = claim.noted;
    let found = match inspect(path).await {
        Ok(found) => found,
        Err(error) => {
            claim.give_up();
            return Err(error);
        }
    };
    if noted > found {
        let lock = claim.lock_path().to_owned();
        return Err(OpenError::LostCommits { path: path.to_owned(), lock, found, noted });
    }
    claim.hold().await
}

/// Creates the folder, for this user only, if there is none.
fn prepare_folder(path: &Path) -> Result<(), OpenError> {
    let folder = paths::folder_of(path);
    paths::make_folder(folder, 0o700)?;
    Ok(paths::check_folder_of_files(folder)?)
}

/// Connects for writing, creates the database if there is none, and migrates its schema.
pub async fn make(path: &Path) -> Result<SqliteConnection, OpenError> {
    // SQLite itself would create a file that everybody can read.
    drop(place::make(path)?);
    let mut connection = options(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("journal_size_limit", WAL_SIZE_LIMIT)
        .pragma("wal_autocheckpoint", CHECKPOINT_AFTER)
        .connect()
        .await
        .map_err(|source| OpenError::Sqlite { path: path.to_owned(), source })?;
    fault_point!("database-made");
    migrate(path, &mut connection).await?;
    fault_point!("migrated");
    Ok(connection)
}

pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    // Logging statements would put PIN IDs into the log, and the statements are few and fixed.
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(Duration::from_secs(5))
        .disable_statement_logging()
}

/// Checks, without changing anything, that the database is pinwatch's, is whole and has a known schema. Returns the
/// number of its commits; 0 if there is no database yet.
pub(super) async fn inspect(path: &Path) -> Result<i64, OpenError> {
    let length = |path: &Path| match std::fs::metadata(path) {
        Ok(file) => Ok(Some(file.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::Io { doing: "look at", path: path.to_owned(), source }),
    };
    let log = length(&with_suffix(path, "-wal"))?.unwrap_or(0);
    let length = match length(path)? {
        Some(length @ 1..) => length,
        // SQLite would delete the log.
        gone if log > 0 => {
            let how = if gone.is_some() { "empty" } else { "missing" };
            let what = format!("it is {how}, and its log {}-wal is not", path.display());
            return Err(OpenError::Damaged { path: path.to_owned(), what });
        }
        _ => return Ok(0),
    };
    // SQLite treats a file of one byte as empty and would overwrite it.
    if !begins_like_sqlite(path)? {
        return Err(foreign(path, NO_SQLITE_FILE));
    }
    // Without a log only the file itself is needed, and SQLite must create nothing beside it.
    let options = options(path).read_only(true).immutable(log == 0);
    let mut connection = options.connect().await.map_err(|error| judge(path, error))?;
    // With a log, pages that the file lacks may be in the log.
    let length = Some(length).filter(|_| log == 0);
    let found = inspect_open(path, length, &mut connection).await;
    // Nothing that closing can report changes what was found.
    let _ = connection.close().await;
    found
}

/// `length` is the file's length in bytes, if the file must be complete without a log.
async fn inspect_open(
    path: &Path,
    length: Option<u64>,
    connection: &mut SqliteConnection,
) -> Result<i64, OpenError> {
    let judge = |error| judge(path, error);
    let mut number =
        async |sql: &'static str| sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut *connection).await;
    let id = number("PRAGMA application_id").await.map_err(judge)?;
    if id != APPLICATION_ID {
        // No tables, or only sqlx's list of migrations: the first start was killed before its first migration.
        let tables = "SELECT count(*) FROM sqlite_schema WHERE tbl_name <> '_sqlx_migrations'";
        let empty = id == 0 && number(tables).await.map_err(judge)? == 0;
        let why = "it is the SQLite database of another program";
        return if empty { Ok(0) } else { Err(foreign(path, why)) };
    }
    let found = number("SELECT coalesce(max(version), 0) FROM _sqlx_migrations").await.map_err(judge)?;
    let known = newest_schema();
    if found > known {
        return Err(OpenError::Newer { path: path.to_owned(), found, known });
    }
    let damaged = |what| OpenError::Damaged { path: path.to_owned(), what };
    let size = number("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").await;
    let size = size.map_err(judge)?;
    // SQLite itself notices whole pages missing at the end, but reads the missing rest of a truncated page as zeros.
    if let Some(length) = length.filter(|length| i64::try_from(*length).is_ok_and(|length| length < size)) {
        return Err(damaged(format!("it has {length} of {size} bytes")));
    }
    let has_hashes = found >= HASHED;
    // `quick_check` does not compare indexes with their tables, which would take five times as long. A file without
    // hashes needs the full check: only the order of the IDs shows there that an ID has changed, and migration 0002
    // abolishes that order.
    let check = if !has_hashes {
        "PRAGMA integrity_check(3)"
    } else if size <= CHECKED_WHOLE {
        "PRAGMA quick_check(3)"
    } else {
        // Checks table by table, without the three tables that retention may let grow without limit.
        "SELECT quick_check FROM sqlite_schema, pragma_quick_check(name) \
         WHERE type = 'table' AND name NOT IN ('outcome', 'outcome_by_pin', 'outcome_by_reference') \
           AND quick_check <> 'ok' LIMIT 3"
    };
    let mut wrong: Vec<String> =
        sqlx::query_scalar(check).fetch_all(&mut *connection).await.map_err(judge)?;
    wrong.retain(|what| what != "ok");
    if !wrong.is_empty() {
        return Err(damaged(wrong.join("; ")));
    }
    if !has_hashes {
        let no_id =
            "SELECT count(*) FROM pin WHERE pin_id GLOB '*[^-A-Za-z0-9_.]*' OR pin_id IN ('', '.', '..')";
        let wrong: i64 = sqlx::query_scalar(no_id).fetch_one(&mut *connection).await.map_err(judge)?;
        if wrong > 0 {
            return Err(damaged(format!("{wrong} PINs in flight have an invalid ID")));
        }
    }
    sqlx::query_scalar("SELECT commits FROM history").fetch_one(connection).await.map_err(judge)
}

/// Translates an SQLite error into what it says about the file.
pub(super) fn judge(path: &Path, error: sqlx::Error) -> OpenError {
    let path = path.to_owned();
    match primary_code(&error) {
        Some(SQLITE_NOTADB) => foreign(&path, NO_SQLITE_FILE),
        // A table that every pinwatch database has is missing, or SQLite found damage.
        Some(SQLITE_CORRUPT | SQLITE_ERROR) => OpenError::Damaged { path, what: error.to_string() },
        None if matches!(error, sqlx::Error::RowNotFound) => {
            OpenError::Damaged { path, what: "a row is missing that it always has".into() }
        }
        None if let sqlx::Error::Decode(what) = error => OpenError::Damaged { path, what: what.to_string() },
        _ => OpenError::Sqlite { path, source: error },
    }
}

const NO_SQLITE_FILE: &str = "it does not begin like an SQLite file, or its first page is damaged";

fn foreign(path: &Path, why: &str) -> OpenError {
    OpenError::Foreign { path: path.to_owned(), why: why.to_owned() }
}

/// Whether a file begins with SQLite's header string, <https://www.sqlite.org/fileformat.html>
fn begins_like_sqlite(path: &Path) -> Result<bool, OpenError> {
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(16).read_to_end(&mut start))
        .map_err(|source| OpenError::Io { doing: "read", path: path.to_owned(), source })?;
    Ok(start == b"SQLite format 3\0")
}

/// The newest schema that this version knows.
fn newest_schema() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

async fn migrate(path: &Path, connection: &mut SqliteConnection) -> Result<(), OpenError> {
    let known = newest_schema();
    MIGRATIONS.run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::VersionMissing(found) | MigrateError::VersionTooNew(found, _) => {
            OpenError::Newer { path: path.to_owned(), found, known }
        }
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
            OpenError::Sqlite { path: path.to_owned(), source }
        }
        other => OpenError::Damaged { path: path.to_owned(), what: format!("its schema: {other}") },
    })
}

/// Primary result codes, <https://www.sqlite.org/rescode.html>
const SQLITE_ERROR: u32 = 1;
const SQLITE_CORRUPT: u32 = 11;
const SQLITE_NOTADB: u32 = 26;

pub(super) fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let extended: u32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}
