//! Copies the whole database into one file, whether a daemon runs or not.
//!
//! Promises that the copy is a snapshot of one moment. Before the copy gets its name, it has been read back completely,
//! is synced to the disk and is readable only by this user. If a backup fails or is interrupted, whatever had that name
//! stays. Uses a read-only connection and changes nothing in the database. Knows nothing of the running daemon.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tempfile::NamedTempFile;
use thiserror::Error;
use tokio::time::interval;

use super::error::OpenError;
use super::open::{inspect, judge, options, primary_code};
use super::place::with_suffix;
use crate::paths::{FileId, folder_of};

/// How often progress is reported.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// The contents of the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    pub pins: u64,
    pub outcomes: u64,
    pub bytes: u64,
}

/// The progress of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The bytes written so far, and the size of the database in bytes, which includes free pages.
    Copying { bytes: u64, all: u64 },
    /// The copy is being checked.
    Checking,
}

/// Why there is no backup. A file that already had its name is unchanged.
#[derive(Debug, Error)]
pub enum BackupError {
    #[error(
        "there is no database {path}; store.url says which one is meant. If a daemon still has one open that was \
             removed, only root can save it: run this as root"
    )]
    NoDatabase { path: PathBuf },
    #[error("{path} is there already: give another name, or --force to replace it once the backup is made")]
    Exists { path: PathBuf },
    #[error("{path} is {what}: give another name")]
    NotAPlace { path: PathBuf, what: &'static str },
    #[error(
        "{beside} is there, and would be taken for a part of the backup {path}: remove it, or give another name"
    )]
    Beside { path: PathBuf, beside: PathBuf },
    #[error(
        "no room in {folder}: the backup needs about as much as the database. What was written of it is removed; make \
         room, or give a file on another disk"
    )]
    Full { folder: PathBuf },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the database {path} can't be copied into {folder}: {source}")]
    Copy { path: PathBuf, folder: PathBuf, source: sqlx::Error },
    #[error("the copy is not whole and was removed: {what}. Look at the disk, and try again")]
    NotWhole { what: String },
    #[error("the backup was stopped, and what was written of it is removed")]
    Stopped,
    #[error("can't {doing} {path}: {source}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError + use<> {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            BackupError::Full { folder: folder_of(&path).to_owned() }
        }
        _ => BackupError::Io { doing, path, source },
    }
}

/// Backs up the database at `from` into the file `to`; replaces an existing file only with `force`. If the future is
/// dropped, it leaves nothing behind.
///
/// # Errors
/// The database can't be read, the file can't be written, or something else has its name.
pub async fn backup(
    from: &Path,
    to: &Path,
    force: bool,
    watch: &mut dyn FnMut(Step),
) -> Result<Amount, BackupError> {
    check_target(from, to, force)?;
    let folder = folder_of(to);
    // A folder for the copy alone, with mode 0700, because SQLite creates files beside the one that it writes.
    let mut name = OsString::from(".");
    name.push(to.file_name().unwrap_or_default());
    let unfinished = tempfile::Builder::new().prefix(&name).suffix(".unfinished").tempdir_in(folder);
    let unfinished = unfinished.map_err(failed("make a folder in", folder))?;
    let from = match removed(from) {
        Some(open) => open.copy(&unfinished.path().join("removed.db"))?,
        None if from.exists() => from.to_owned(),
        None => return Err(BackupError::NoDatabase { path: from.to_owned() }),
    };
    let mut source = options(&from).read_only(true).connect().await.map_err(|error| judge(&from, error))?;
    let mut number = async |sql: &'static str| {
        let number = sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut source).await;
        number.map_err(|error| judge(&from, error))
    };
    let all = number("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").await?;
    let all = all.unsigned_abs();
    let before = number("SELECT commits FROM history").await?;
    // The file's mode is 0600.
    let copy = NamedTempFile::new_in(&unfinished).map_err(failed("make a file in", unfinished.path()))?;
    copy_into(&mut source, copy.path(), all, watch).await.map_err(|error| match primary_code(&error) {
        Some(SQLITE_FULL) => BackupError::Full { folder: folder.to_owned() },
        _ => BackupError::Copy { path: from.clone(), folder: folder.to_owned(), source: error },
    })?;
    watch(Step::Checking);
    let (amount, commits) = check(copy.path()).await?;
    verify(&mut source, before, commits, amount).await.map_err(|error| judge(&from, error))??;
    // Closing a connection that only read can't lose anything.
    let _ = source.close().await;
    copy.as_file().sync_all().map_err(failed("write", copy.path()))?;
    finish(copy, to, force)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("write the folder", folder))?;
    Ok(amount)
}

/// Refuses a target where the backup would be lost, or would destroy something.
fn check_target(from: &Path, to: &Path, force: bool) -> Result<(), BackupError> {
    let refuse = |what| Err(BackupError::NotAPlace { path: to.to_owned(), what });
    if to.to_str().is_none() {
        return refuse("not UTF-8, which SQLite needs");
    }
    if to.file_name().is_none() || to.is_dir() {
        return refuse("a folder");
    }
    let own = ["", "-wal", "-shm", "-journal", ".lock"].map(|suffix| with_suffix(from, suffix));
    let folder = folder_of(to).canonicalize().map_err(failed("look at the folder", folder_of(to)))?;
    let named = |own: &PathBuf| {
        folder_of(own).canonicalize().is_ok_and(|own_folder| own_folder == folder)
            && own.file_name() == to.file_name()
    };
    let id = FileId::at(to).map_err(failed("look at", to))?;
    let is_same = |own: &PathBuf| id.is_some() && FileId::at(own).ok().flatten() == id;
    if own.iter().any(|own| named(own) || is_same(own)) {
        return refuse("the database itself, or a file that belongs to it");
    }
    match fs::symlink_metadata(to) {
        Ok(found) if found.is_symlink() => return refuse("a symbolic link, which is not followed"),
        Ok(found) if !found.is_file() => return refuse("no regular file"),
        Ok(_) if !force => return Err(BackupError::Exists { path: to.to_owned() }),
        _ => {}
    }
    // SQLite would apply these to the backup when somebody opens it.
    let beside = ["-wal", "-journal"].map(|suffix| with_suffix(to, suffix));
    match beside.into_iter().find(|beside| beside.exists()) {
        Some(beside) => Err(BackupError::Beside { path: to.to_owned(), beside }),
        None => Ok(()),
    }
}

fn finish(copy: NamedTempFile, to: &Path, force: bool) -> Result<(), BackupError> {
    let named = if force { copy.persist(to) } else { copy.persist_noclobber(to) };
    match named {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            Err(BackupError::Exists { path: to.to_owned() })
        }
        Err(error) => Err(failed("give the backup its name", to)(error.error)),
    }
}

/// Copies the database into an empty file. Reports the file's size meanwhile, because SQLite reports no progress.
async fn copy_into(
    source: &mut SqliteConnection,
    path: &Path,
    all: u64,
    watch: &mut dyn FnMut(Step),
) -> Result<(), sqlx::Error> {
    let copied = sqlx::query("VACUUM INTO ?").bind(path.to_string_lossy().into_owned()).execute(source);
    let mut copied = std::pin::pin!(copied);
    let mut ticks = interval(REPORT_EVERY);
    loop {
        tokio::select! {
            copied = &mut copied => return copied.map(drop),
            _ = ticks.tick() => {
                let bytes = fs::metadata(path).map_or(0, |file| file.len());
                watch(Step::Copying { bytes, all });
            }
        }
    }
}

/// Reads the whole copy: every page, and every index against its table. Returns its contents and the number of its
/// commits.
async fn check(path: &Path) -> Result<(Amount, i64), BackupError> {
    let commits = inspect(path).await?;
    let judge = |error| judge(path, error);
    let mut copy = options(path).read_only(true).immutable(true).connect().await.map_err(judge)?;
    let wrong: Vec<String> =
        sqlx::query_scalar("PRAGMA integrity_check(3)").fetch_all(&mut copy).await.map_err(judge)?;
    if wrong != ["ok"] {
        return Err(BackupError::NotWhole { what: wrong.join("; ") });
    }
    let (pins, outcomes) = counts(&mut copy).await.map_err(judge)?;
    let _ = copy.close().await;
    let bytes = fs::metadata(path).map_err(failed("look at", path))?.len();
    Ok((Amount { pins, outcomes, bytes }, commits))
}

async fn counts(connection: &mut SqliteConnection) -> Result<(u64, u64), sqlx::Error> {
    let counts = "SELECT (SELECT count(*) FROM pin), (SELECT count(*) FROM outcome)";
    let (pins, outcomes): (i64, i64) = sqlx::query_as(counts).fetch_one(connection).await?;
    Ok((pins.unsigned_abs(), outcomes.unsigned_abs()))
}

/// Compares the copy with the database. The copy must be from a moment during the backup; if nothing was committed
/// since, both must have the same number of rows.
async fn verify(
    source: &mut SqliteConnection,
    before: i64,
    commits: i64,
    amount: Amount,
) -> Result<Result<(), BackupError>, sqlx::Error> {
    let mut moment = source.begin().await?;
    let after: i64 = sqlx::query_scalar("SELECT commits FROM history").fetch_one(&mut *moment).await?;
    let wrong = |what| Ok(Err(BackupError::NotWhole { what }));
    if !(before..=after).contains(&commits) {
        return wrong(format!("it has {commits} commits, and the database had {before} to {after}"));
    }
    if commits == after {
        let (pins, outcomes) = counts(&mut moment).await?;
        if (pins, outcomes) != (amount.pins, amount.outcomes) {
            let Amount { pins: copied, outcomes: ended, .. } = amount;
            return wrong(format!("it has {copied} of {pins} PINs and {ended} of {outcomes} outcomes"));
        }
    }
    Ok(Ok(()))
}

/// <https://www.sqlite.org/rescode.html>
const SQLITE_FULL: u32 = 13;

/// A deleted database that a daemon still has open: its files, under their paths in `/proc`. The daemon has written
/// nothing into them since (see [`Place`](super::place::Place)).
struct Removed {
    database: PathBuf,
    log: Option<PathBuf>,
}

impl Removed {
    /// Copies both files; returns the path of the copied database.
    fn copy(&self, to: &Path) -> Result<PathBuf, BackupError> {
        let log = self.log.as_deref().map(|log| (log, with_suffix(to, "-wal")));
        for (from, to) in [(&*self.database, to.to_owned())].into_iter().chain(log) {
            fs::copy(from, &to).map_err(failed("copy the removed database into", &to))?;
        }
        Ok(to.to_owned())
    }
}

/// Looks for a daemon that still has the deleted database of this path open. Only root can see that.
fn removed(path: &Path) -> Option<Removed> {
    let path = folder_of(path)
        .canonicalize()
        .map_or_else(|_| path.to_owned(), |folder| folder.join(path.file_name().unwrap_or_default()));
    let log = with_suffix(&path, "-wal");
    let (database, logs) = (with_suffix(&path, " (deleted)"), [with_suffix(&log, " (deleted)"), log]);
    let processes = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
    processes
        .filter(|process| {
            fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim() == "pinwatch")
        })
        .find_map(|process| {
            let open: Vec<_> =
                fs::read_dir(process.join("fd")).ok()?.flatten().map(|entry| entry.path()).collect();
            let find = |wanted: &PathBuf| {
                open.iter().find(|file| fs::read_link(file).is_ok_and(|target| target == *wanted)).cloned()
            };
            Some(Removed { database: find(&database)?, log: logs.iter().find_map(find) })
        })
}
