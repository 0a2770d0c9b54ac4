//! Opening the file: whose it is, whether it is whole, whether somebody else has it.
//!
//! Promises to change nothing in a file that is refused.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use super::super::{InFlight, Store, Writes};
use super::Reader;
use super::by_pin::Index;
use super::error::OpenError;
use super::load::load;
use super::place::{self, Claim, LockFile, Place, with_suffix};
use super::recent::Recent;
use super::rows;
use super::write::WriteConnection;
use crate::clock::{Anchor, Clock};
use crate::fault::fault_point;
use crate::paths;

/// `PRAGMA application_id` of our files: "pinw".
const APPLICATION_ID: i64 = 0x7069_6e77;

/// Up to so many bytes a file is checked page by page before it is used. More of it are outcomes that are kept, and a
/// daemon has to be back at work before all those are read: some 60 GB after a week of 150 PINs a second. Damage to
/// them shows where it is met: SQLite refuses the page, and with it the commit or the answer.
const CHECKED_WHOLE: i64 = 256 * 1024 * 1024;

/// The schema since which each PIN in flight has the hash of its ID beside it.
const HASHED: i64 = 2;

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/sqlite/migrations");

/// Connections that read, for clients' questions and the sinks.
const READERS: u32 = 4;

/// The write-ahead log is folded into the file when it has so many pages: 32 MB. A page that many commits change
/// is written to the file once.
const CHECKPOINT_AFTER: &str = "8192";

/// The write-ahead log is cut back to this size, in bytes, after a burst.
const WAL_SIZE_LIMIT: &str = "67108864";

/// A database that is open, and whose PINs in flight are still to be read.
pub struct Unloaded {
    place: Place,
    connection: SqliteConnection,
    in_flight: usize,
    commits: i64,
    clock: Clock,
}

/// Opens the database at `path`, makes it if there is none, and brings its schema up to date. The clock goes on from what
/// the database knows of the time.
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
    /// How many PINs are in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Gives every PIN in flight to `take`, and the store.
    pub async fn load(self, take: impl FnMut(InFlight)) -> Result<(Store, Box<dyn Writes>), OpenError> {
        let (reader, writer) = self.load_both(take).await?;
        Ok((Store::new(reader), Box::new(writer)))
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
            // All of them now, and for as long as the daemon runs: another file may come to the path.
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
        let (entries, waiting) = (pins.entries.clone(), index.waiting.clone());
        let reader = Reader { readers, recent: recent.clone(), pins: entries, waiting };
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

/// What the database knows of the time; `None` before its first commit.
pub async fn anchor(connection: &mut SqliteConnection) -> Result<Option<Anchor>, sqlx::Error> {
    let (steady, id, time): (Option<i64>, Option<String>, Option<i64>) =
        sqlx::query_as("SELECT steady, boot_id, boot_time FROM history").fetch_one(connection).await?;
    Ok(rows::anchor(steady, id, time))
}

/// Opens the database at `path` for somebody who moves what is in it elsewhere, and keeps daemons away from it as
/// long as the place is held; `None` if there is none.
pub async fn open_to_move(path: &Path) -> Result<Option<(SqliteConnection, Place)>, OpenError> {
    if !path.exists() {
        return Ok(None);
    }
    let place = hold_whole(path).await?;
    Ok(Some((make(path).await?, place)))
}

/// Keeps daemons away from a `path` where a database is about to come from elsewhere, as long as it is held.
pub async fn lock_to_make(path: &Path) -> Result<LockFile, OpenError> {
    prepare_folder(path)?;
    let (lock, _) = LockFile::take(path).await?;
    // Of whatever was here before.
    lock.note_commits(0);
    Ok(lock)
}

/// Takes a database that is whole, or makes an empty one.
async fn hold_whole(path: &Path) -> Result<Place, OpenError> {
    prepare_folder(path)?;
    let claim = Claim::take(path).await?;
    let (found, noted) = (inspect(path).await?, claim.noted);
    if noted > found {
        let lock = claim.lock_path().to_owned();
        return Err(OpenError::LostCommits { path: path.to_owned(), lock, found, noted });
    }
    claim.hold().await
}

/// Makes the folder for this user alone, if there is none.
fn prepare_folder(path: &Path) -> Result<(), OpenError> {
    let folder = paths::folder_of(path);
    paths::make_folder(folder, 0o700)?;
    Ok(paths::check_folder_of_files(folder)?)
}

/// Connects for writing, makes the database if there is none, and brings its schema up to date.
pub async fn make(path: &Path) -> Result<SqliteConnection, OpenError> {
    // Not by SQLite, which would let everybody read it.
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
    // Statements are few and fixed; logging each would put PIN IDs into the log.
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(Duration::from_secs(5))
        .disable_statement_logging()
}

/// Looks at what is there, and changes nothing: is it ours, is it whole, do we know its schema? Gives the number
/// of its commits; 0 where there is no database yet.
pub(super) async fn inspect(path: &Path) -> Result<i64, OpenError> {
    let length = |path: &Path| match std::fs::metadata(path) {
        Ok(file) => Ok(Some(file.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::Io { doing: "look at", path: path.to_owned(), source }),
    };
    let log = length(&with_suffix(path, "-wal"))?.unwrap_or(0);
    let length = match length(path)? {
        Some(length @ 1..) => length,
        // SQLite would throw the log away.
        gone if log > 0 => {
            let how = if gone.is_some() { "empty" } else { "missing" };
            let what = format!("it is {how}, and its log {}-wal is not", path.display());
            return Err(OpenError::Damaged { path: path.to_owned(), what });
        }
        _ => return Ok(0),
    };
    // SQLite takes a file of one byte for an empty one, and would overwrite it.
    if !begins_like_sqlite(path)? {
        return Err(foreign(path, NO_SQLITE_FILE));
    }
    // Without a log nothing but the file is needed, and SQLite makes nothing beside it.
    let options = options(path).read_only(true).immutable(log == 0);
    let mut connection = options.connect().await.map_err(|error| judge(path, error))?;
    // What is not in the file may be in the log.
    let length = Some(length).filter(|_| log == 0);
    let found = inspect_open(path, length, &mut connection).await;
    // Closing can't fail in a way that matters to what was seen.
    let _ = connection.close().await;
    found
}

/// `length` is the file's, where nothing is missing in it.
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
        // None yet, or only the list of migrations: a first start that was killed before its first migration.
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
    // SQLite itself notices whole pages that are missing at the end, and takes the rest of one that was cut for zeros.
    if let Some(length) = length.filter(|length| i64::try_from(*length).is_ok_and(|length| length < size)) {
        return Err(damaged(format!("it has {length} of {size} bytes")));
    }
    let has_hashes = found >= HASHED;
    // Not every index against its table, which takes five times as long. Before the rows had hashes, the order of the
    // IDs was what tells that one is another now: after 0002 there is no such order.
    let check = if !has_hashes {
        "PRAGMA integrity_check(3)"
    } else if size <= CHECKED_WHOLE {
        "PRAGMA quick_check(3)"
    } else {
        // A table each, and those two not that retention may let grow without end.
        "SELECT quick_check FROM sqlite_schema, pragma_quick_check(name) \
         WHERE type = 'table' AND name NOT IN ('outcome', 'outcome_by_pin') AND quick_check <> 'ok' LIMIT 3"
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
            return Err(damaged(format!("{wrong} PINs in flight have an ID that is none")));
        }
    }
    sqlx::query_scalar("SELECT commits FROM history").fetch_one(connection).await.map_err(judge)
}

/// What an error of SQLite tells about the file.
pub(super) fn judge(path: &Path, error: sqlx::Error) -> OpenError {
    let path = path.to_owned();
    match primary_code(&error) {
        Some(SQLITE_NOTADB) => foreign(&path, NO_SQLITE_FILE),
        // A table or a row that every file of ours has is not there.
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

/// Whether a file begins with the header string, https://www.sqlite.org/fileformat.html
fn begins_like_sqlite(path: &Path) -> Result<bool, OpenError> {
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(16).read_to_end(&mut start))
        .map_err(|source| OpenError::Io { doing: "read", path: path.to_owned(), source })?;
    Ok(start == b"SQLite format 3\0")
}

/// The newest schema that this pinwatch knows.
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

/// Primary result codes, https://www.sqlite.org/rescode.html
const SQLITE_ERROR: u32 = 1;
const SQLITE_CORRUPT: u32 = 11;
const SQLITE_NOTADB: u32 = 26;

pub(super) fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let extended: u32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}
