//! Moves a whole store into one of the other kind: from SQLite to PostgreSQL or back.
//!
//! Promises that nobody uses either store meanwhile, and that the new store is created as a whole or not: in PostgreSQL
//! everything is one transaction, and the SQLite file gets its name once it is complete. An interrupted move can be started again
//! from the beginning. The old store keeps all its contents; once the new store is known to be ready, an old SQLite file is
//! migrated to the current schema. Sinks get from the new store what they have not got yet, with the same `seq` and `id`. Does
//! not move the state of the schedule (the brake, the learned rate, when PINs become final), which the daemon finds out again,
//! nor withdrawals that no node has carried out, whose clients got no confirmation. Knows nothing of polls or of how sinks
//! deliver.

mod rows;
mod to_postgres;
mod to_sqlite;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::{postgres, sqlite};
use crate::config::StoreUrl;

/// How many rows there are, or have been moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// PINs in flight.
    pub pins: u64,
    pub outcomes: u64,
    /// Outcomes that a sink does not have, counted once for each such sink; includes dead letters and dropped outcomes.
    pub undelivered: u64,
    pub sinks: u64,
}

impl Amount {
    /// All rows, for a progress bar.
    pub fn rows(&self) -> u64 {
        self.pins + self.outcomes + self.undelivered + self.sinks
    }
}

/// Receives, repeatedly, how much there is and how much has been moved.
pub type Watcher<'a> = &'a mut dyn FnMut(&Amount, &Amount);

/// Why a store was not moved. The old store keeps its contents (an old SQLite file may have the current schema now), and
/// nothing is in the new one.
#[derive(Debug, Error)]
pub enum MigrateError {
    #[error("--from and --to must be a sqlite: and a postgres: URL, or the other way round")]
    SameKind,
    #[error("there is no database {path} to move")]
    NoSource { path: PathBuf },
    #[error("{path} exists already, and migrate-store does not overwrite a store: give another path")]
    Exists { path: PathBuf },
    #[error(
        "the database {url} has {what} already, and a store is moved only into an empty one: give another database"
    )]
    NotEmpty { url: String, what: &'static str },
    #[error("nodes use the database {url} now: {names}. Stop them first")]
    Alive { url: String, names: String },
    #[error("nodes use the database {url} now, or have open transactions in it: stop them first ({source})")]
    Busy { url: String, source: sqlx::Error },
    #[error(transparent)]
    Sqlite(#[from] sqlite::OpenError),
    #[error(transparent)]
    Postgres(#[from] postgres::OpenError),
    #[error("can't {doing} {store}: {source}")]
    Sql { doing: &'static str, store: String, source: sqlx::Error },
    #[error("can't {doing} {path}: {source}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the database {path} is damaged: the stored ID {id:?} of a PIN in flight is not the one that was submitted. \
         Restore a backup"
    )]
    DamagedPin { path: PathBuf, id: String },
    #[error(
        "only {} of {} rows could be moved: the old store is inconsistent. Check it or restore a backup; it still has \
         all its contents",
        moved.rows(),
        all.rows()
    )]
    Incomplete { all: Amount, moved: Amount },
}

/// Moves everything; returns how much that was.
///
/// # Errors
/// Somebody uses one of the stores, the new one is not empty, or one of them can't be read or written.
pub async fn migrate(from: &StoreUrl, to: &StoreUrl, watch: Watcher<'_>) -> Result<Amount, MigrateError> {
    match (from, to) {
        (StoreUrl::Sqlite(path), StoreUrl::Postgres { url, shown }) => {
            to_postgres::migrate(path, url, shown, watch).await
        }
        (StoreUrl::Postgres { url, shown }, StoreUrl::Sqlite(path)) => {
            to_sqlite::migrate(url, shown, path, watch).await
        }
        _ => Err(MigrateError::SameKind),
    }
}
