//! Opening the file: whose it is, whether it is whole, whether somebody else has it.
//!
//! Promises to change nothing in a file that is refused.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use thiserror::Error;

use super::Store;
use super::write::{WriteConnection, note_commits};
use crate::fault::fault_point;

/// `PRAGMA application_id` of our files: "pinw".
const APPLICATION_ID: i64 = 0x7069_6e77;

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/sqlite/migrations");

/// Connections that read, for clients' questions and the sinks.
const READERS: u32 = 4;

/// The write-ahead log is cut back to this size, in bytes, after a burst.
const WAL_SIZE_LIMIT: &str = "67108864";

/// Why the store can't be opened. Nothing was changed.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("another pinwatch uses the database {path}: stop it first, or give this one another `store.url`")]
    InUse { path: PathBuf },
    #[error("can't {doing} {path}: {source}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} is not a pinwatch database ({why}); it was left as it is. Give another `store.url`")]
    Foreign { path: PathBuf, why: String },
    #[error(
        "the database {path} was written by a newer pinwatch (schema {found}, this one knows {known}): \
         install that version again, or give another `store.url`"
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error(
        "the database {path} is damaged: {what}. It was left as it is. Restore a backup, or move {path}, \
         {path}-wal and {path}-shm away to start empty; `sqlite3 {path} .recover` may save what is in it"
    )]
    Damaged { path: PathBuf, what: String },
    #[error(
        "the database {path} has lost commits: it knows of {found}, and {noted} were acknowledged. A restored \
         backup or a removed or cut {path}-wal would explain it. PINs accepted since are not in it. \
         To go on with it as it is, remove {lock}"
    )]
    LostCommits { path: PathBuf, lock: PathBuf, found: i64, noted: i64 },
    #[error("can't open the database {path}: {source}")]
    Sqlite { path: PathBuf, source: sqlx::Error },
}

impl Store {
    /// Opens the database at `path`, makes it if there is none, and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<(Self, WriteConnection), OpenError> {
        let lock_path = with_suffix(path, ".lock");
        let (lock, noted) = lock_exclusively(path, &lock_path)?;
        if std::fs::metadata(path).is_ok_and(|file| file.len() > 0) {
            inspect(path).await?;
        }

        let sqlite = |source| OpenError::Sqlite { path: path.to_owned(), source };
        let mut connection = options(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("journal_size_limit", WAL_SIZE_LIMIT)
            .connect()
            .await
            .map_err(sqlite)?;
        fault_point!("database-made");
        migrate(path, &mut connection).await?;
        fault_point!("migrated");

        let count = |sql| sqlx::query_scalar::<_, i64>(sql);
        let commits =
            count("SELECT commits FROM history").fetch_one(&mut connection).await.map_err(sqlite)?;
        if noted > commits {
            return Err(OpenError::LostCommits {
                path: path.to_owned(),
                lock: lock_path,
                found: commits,
                noted,
            });
        }
        note_commits(&lock, commits);
        let in_flight = count("SELECT count(*) FROM pin").fetch_one(&mut connection).await.map_err(sqlite)?;
        let last_seq = count("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'outcome'")
            .fetch_one(&mut connection)
            .await
            .map_err(sqlite)?;

        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(options(path).read_only(true).row_buffer_size(1024))
            .await
            .map_err(sqlite)?;
        let in_flight = usize::try_from(in_flight).unwrap_or(0);
        let writer = WriteConnection { connection, lock, in_flight, next_seq: last_seq + 1, commits };
        Ok((Self { readers }, writer))
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    // Statements are few and fixed; logging each would put PIN IDs into the log.
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(Duration::from_secs(5))
        .disable_statement_logging()
}

/// Takes the lock that makes this process the only daemon on the file; gives also the number of commits that
/// was noted in it, 0 where none can be read.
fn lock_exclusively(path: &Path, lock_path: &Path) -> Result<(File, i64), OpenError> {
    let io = |doing, source| OpenError::Io { doing, path: lock_path.to_owned(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|source| OpenError::Io {
            doing: "make the folder",
            path: folder.to_owned(),
            source,
        })?;
    }
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(lock_path)
        .map_err(|source| io("open", source))?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => OpenError::InUse { path: path.to_owned() },
        TryLockError::Error(source) => io("lock", source),
    })?;
    let mut note = String::new();
    // What can't be read as a note is none: the check is a second line of defence.
    let _ = lock.by_ref().take(64).read_to_string(&mut note);
    Ok((lock, note.trim().parse().unwrap_or(0)))
}

/// Looks at a file that exists, through a connection that can't write: is it ours, and is it whole?
async fn inspect(path: &Path) -> Result<(), OpenError> {
    let judge = |error: sqlx::Error| match primary_code(&error) {
        Some(SQLITE_NOTADB) => OpenError::Foreign {
            path: path.to_owned(),
            why: "it does not begin like an SQLite file, or its first page is damaged".into(),
        },
        Some(SQLITE_CORRUPT) => OpenError::Damaged { path: path.to_owned(), what: error.to_string() },
        _ => OpenError::Sqlite { path: path.to_owned(), source: error },
    };
    let mut connection = options(path).read_only(true).connect().await.map_err(judge)?;
    let result = async {
        let id: i64 =
            sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut connection).await.map_err(judge)?;
        let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema")
            .fetch_one(&mut connection)
            .await
            .map_err(judge)?;
        // No table yet: a first start that was killed before its first commit.
        if id != APPLICATION_ID && tables > 0 {
            let why = "it is the SQLite database of another program".into();
            return Err(OpenError::Foreign { path: path.to_owned(), why });
        }
        let found: Vec<String> =
            sqlx::query_scalar("PRAGMA quick_check(3)").fetch_all(&mut connection).await.map_err(judge)?;
        if found != ["ok"] {
            return Err(OpenError::Damaged { path: path.to_owned(), what: found.join("; ") });
        }
        Ok(())
    }
    .await;
    // Closing can't fail in a way that matters to what was seen.
    let _ = connection.close().await;
    result
}

async fn migrate(path: &Path, connection: &mut SqliteConnection) -> Result<(), OpenError> {
    let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
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
const SQLITE_CORRUPT: u32 = 11;
const SQLITE_NOTADB: u32 = 26;

fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let extended: u32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
