//! The rows that both kinds of store have, the code that reads and counts them, and the lock that keeps nodes away during a move.
//!
//! Promises that no node writes while the lock is held, and that at most [`PAGE`] rows are in memory. Knows nothing of the
//! order in which rows are moved.

use futures_util::stream::{Stream, TryChunksError, TryStreamExt};
use sqlx::{AssertSqlSafe, Executor, FromRow, PgConnection};

use super::{Amount, MigrateError, Watcher};

/// Rows read and written at once.
pub const PAGE: usize = 1000;

/// How long to wait for the last transaction of a node that is stopping.
const LOCK_TIMEOUT: &str = "5s";

#[derive(FromRow)]
pub struct Pin {
    pub pin_id: String,
    pub submitted_at: i64,
    pub clock_ahead: i64,
    pub deadline_at: i64,
    pub reference: Option<String>,
    pub metadata: Option<String>,
    pub submitter: Option<String>,
}

#[derive(FromRow)]
pub struct Outcome {
    pub seq: i64,
    pub pin_id: String,
    pub finished_at: i64,
    pub record: String,
    pub submitter: Option<String>,
}

#[derive(FromRow)]
pub struct Delivery {
    pub sink: String,
    pub seq: i64,
    pub dead: bool,
    pub tries: i32,
    pub first_try_at: Option<i64>,
    pub last_try_at: Option<i64>,
    pub error: Option<String>,
    pub first_ahead: i64,
    pub last_ahead: i64,
}

#[derive(FromRow)]
pub struct Dropped {
    pub seq: i64,
    pub sink: String,
    pub dropped_at: i64,
}

impl Delivery {
    pub const ALL: &str = "SELECT sink, seq, dead, tries, first_try_at, last_try_at, error, first_ahead, last_ahead FROM delivery";
}

impl Dropped {
    pub const ALL: &str = "SELECT seq, sink, dropped_at FROM dropped";
}

/// The rows of a query, [`PAGE`] at a time.
pub fn pages<T>(
    rows: impl Stream<Item = Result<T, sqlx::Error>> + Unpin,
    failed: impl Fn(sqlx::Error) -> MigrateError,
) -> impl Stream<Item = Result<Vec<T>, MigrateError>> + Unpin {
    rows.try_chunks(PAGE).map_err(move |TryChunksError(_, error)| failed(error))
}

/// Counts what is moved.
pub struct Count<'a> {
    pub all: Amount,
    pub moved: Amount,
    pub watch: Watcher<'a>,
}

impl Count<'_> {
    /// Adds rows that were moved, and reports it.
    pub fn add(&mut self, add: impl FnOnce(&mut Amount)) {
        add(&mut self.moved);
        (self.watch)(&self.all, &self.moved);
    }

    /// Returns what was moved.
    ///
    /// # Errors
    /// Not all rows were moved.
    pub fn complete(self) -> Result<Amount, MigrateError> {
        let Self { all, moved, .. } = self;
        if moved == all { Ok(moved) } else { Err(MigrateError::Incomplete { all, moved }) }
    }
}

/// Turns a store's SQL error into an error of the move.
pub fn sql<S: ToString + ?Sized>(
    doing: &'static str,
    store: &S,
) -> impl Fn(sqlx::Error) -> MigrateError + use<S> {
    let store = store.to_string();
    move |source| MigrateError::Sql { doing, store: store.clone(), source }
}

/// Begins a transaction during which no node can register or write: for both, a node first locks its row of `node`.
///
/// # Errors
/// A node has a running lease, or an open transaction holds the lock for too long.
pub async fn begin_alone(connection: &mut PgConnection, url: &str) -> Result<(), MigrateError> {
    let begin = format!(
        "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; \
         SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; SET LOCAL synchronous_commit = on"
    );
    connection.execute(AssertSqlSafe(begin)).await.map_err(sql("use", url))?;
    connection
        .execute("LOCK TABLE node IN EXCLUSIVE MODE")
        .await
        .map_err(|source| MigrateError::Busy { url: url.to_owned(), source })?;
    let alive: Vec<String> =
        sqlx::query_scalar("SELECT name FROM node WHERE lease_until > clock_timestamp() ORDER BY name")
            .fetch_all(connection)
            .await
            .map_err(sql("read", url))?;
    if alive.is_empty() {
        return Ok(());
    }
    Err(MigrateError::Alive { url: url.to_owned(), names: alive.join(", ") })
}
