//! Connections to the server, and what each kind of them is told at its start.

use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};
use tokio::time::timeout;

use super::super::Unavailable;

/// How long connecting may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// How long the server works on one statement before it gives it up.
const STATEMENT_PATIENCE: Duration = Duration::from_secs(10);

/// How long we wait for the answer to whatever is asked at once: longer than the server's own limit, which tells more.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(12);

/// The server, and this node's way to it.
#[derive(Clone)]
pub struct Server {
    options: PgConnectOptions,
    /// The URL as it may be shown.
    pub shown: String,
    pub lease: Duration,
}

impl Server {
    pub fn new(url: &SecretString, shown: &str, lease: Duration) -> Result<Self, sqlx::Error> {
        // Statements are few and fixed; logging each would put PIN IDs into the log.
        let options = PgConnectOptions::from_str(url.expose_secret())?.disable_statement_logging();
        let options = match options.get_application_name() {
            Some(_) => options,
            None => options.application_name("pinwatch"),
        };
        Ok(Self { options, shown: shown.to_owned(), lease })
    }

    pub fn options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// A connection that no kind of work has begun on.
    pub async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        within(CONNECT_PATIENCE, self.options.connect()).await
    }

    /// The connection of the writer: a node that stops inside a transaction is cut off by the server before anybody
    /// waits for more than its lease.
    pub async fn connect_writer(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.connect().await?;
        // A plan by a guess that a table is empty would be kept for ever, and every statement of the writer finds its
        // rows by an index: the planner is left no other way.
        let settings = format!(
            "SET idle_in_transaction_session_timeout = {}; SET statement_timeout = {}; SET jit = off; \
             SET plan_cache_mode = force_generic_plan; \
             SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; \
             SELECT set_config('synchronous_commit', 'on', false) \
             WHERE current_setting('synchronous_commit') = 'off'",
            self.lease.as_millis(),
            STATEMENT_PATIENCE.as_millis()
        );
        within(CONNECT_PATIENCE, connection.execute(AssertSqlSafe(settings))).await?;
        Ok(connection)
    }

    /// The connection that keeps the lease: nothing it asks may take longer than a third of that.
    pub async fn connect_keeper(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.connect().await?;
        let limit = self.patience().as_millis();
        let settings = format!(
            "SET idle_in_transaction_session_timeout = {limit}; SET statement_timeout = {limit}; \
             SET lock_timeout = {}; SET jit = off",
            limit / 2
        );
        within(self.patience(), connection.execute(AssertSqlSafe(settings))).await?;
        Ok(connection)
    }

    /// How long whatever the lease depends on may take.
    pub fn patience(&self) -> Duration {
        self.lease / 4
    }
}

/// The answer, or an error if it is not there in time. The connection must not be used any more then.
pub async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(sqlx::Error::Io(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("the database did not answer within {limit:?}"),
        ))),
    }
}

/// The answer to a question that somebody waits for.
pub async fn answer<T>(asked: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Unavailable> {
    Ok(within(ANSWER_PATIENCE, asked).await?)
}

/// Whether the connection is of no use after this error.
pub fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            // Class 57, operator intervention, but for a statement that was cancelled (57014); and 25P03, a session
            // that was cut off while it was idle in a transaction.
            let code = error.code();
            code.is_some_and(|code| (code.starts_with("57") && code != "57014") || code == "25P03")
        }
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::RowNotFound => false,
        _ => true,
    }
}

/// Whether the transaction met another one, and can be tried again at once: deadlock or serialization failure.
pub fn is_conflict(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == "40P01" || code == "40001")
}

/// What a node hears that writes without a lease.
pub fn fenced() -> Unavailable {
    Unavailable(
        "this node's lease is over, or another process has registered its name: it writes nothing until it has one".into(),
    )
}
