//! Why a SQLite store can't be opened: sentences that say what to do. Plain data.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::paths::PathError;

/// Why the store can't be opened. Its contents were not changed.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("another pinwatch uses the database {path}: stop it first, or give this one another `store.url`")]
    InUse { path: PathBuf },
    #[error("{0}. This is about `store.url`")]
    Path(#[from] PathError),
    #[error(
        "{path} is not a lock file of pinwatch; it was left as it is. Move it away, or give another `store.url`"
    )]
    NotALock { path: PathBuf },
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
        "the database {path} is damaged: {what}. Its contents were not changed. Restore a backup, or move {path} \
         and those beside it (-wal, -shm, .lock) away to start empty; `sqlite3 {path} .recover` may save what is in it"
    )]
    Damaged { path: PathBuf, what: String },
    #[error(
        "the database {path} has lost commits: it knows of {found}, and {noted} were acknowledged. It was left \
         as it is. A restored backup, or a file that was removed or cut ({path} or {path}-wal), would explain \
         it. PINs accepted since are not in it. To go on with it as it is, remove {lock}"
    )]
    LostCommits { path: PathBuf, lock: PathBuf, found: i64, noted: i64 },
    #[error("can't open the database {path}: {source}")]
    Sqlite { path: PathBuf, source: sqlx::Error },
}
