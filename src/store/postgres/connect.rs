//! Connects to the server, with the settings that each kind of connection needs.
//!
//! Promises that every wait for the server is limited. Knows nothing of tables but their schema.

use std::fs::File;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};
use tokio::time::{Instant, timeout};

use super::super::Unavailable;
use super::schema;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the server works on one statement before it cancels it.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for the answer to one request. Longer than the server's own limit, whose error says more.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(12);

/// The server, and how this node connects to it.
#[derive(Clone)]
pub struct Server {
    options: PgConnectOptions,
    /// The SQL that every connection executes first.
    greeting: String,
    /// The URL without its secrets.
    pub shown: String,
    pub lease: Duration,
}

impl Server {
    /// `shown` is the URL without its secrets.
    ///
    /// # Errors
    /// The URL is invalid, or names a TLS file that can't be opened.
    pub fn new(url: &SecretString, shown: &str, lease: Duration) -> Result<Self, sqlx::Error> {
        check_files(url.expose_secret())?;
        // Logging statements would put PIN IDs into the log, and the statements are few and fixed.
        let options = PgConnectOptions::from_str(url.expose_secret())?.disable_statement_logging();
        let options = match options.get_application_name() {
            Some(_) => options,
            None => options.application_name("pinwatch"),
        };
        let greeting = format!("SET search_path = {}", schema::NOWHERE);
        Ok(Self { options, greeting, shown: shown.to_owned(), lease })
    }

    /// Sets the schema in which every later connection finds the tables.
    pub fn tables_are_in(&mut self, schema: &str) {
        self.greeting = format!("SET search_path = {}", schema::search_path(schema));
    }

    /// A connection without any settings.
    pub async fn connect_bare(&self) -> Result<PgConnection, sqlx::Error> {
        within(CONNECT_TIMEOUT, self.options.connect()).await
    }

    /// Applies the settings that every connection has.
    pub async fn greet(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        within(CONNECT_TIMEOUT, connection.execute(AssertSqlSafe(self.greeting.clone()))).await?;
        Ok(())
    }

    /// A connection with only the settings that every connection has.
    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.connect_bare().await?;
        self.greet(&mut connection).await?;
        Ok(connection)
    }

    /// A pool of at most `count` connections that read. They are opened when needed.
    pub fn readers(&self, count: u32) -> PgPool {
        let server = self.clone();
        PgPoolOptions::new()
            .max_connections(count)
            .acquire_timeout(Duration::from_secs(10))
            .after_connect(move |connection, _| {
                let server = server.clone();
                Box::pin(async move {
                    server.greet(connection).await?;
                    let limit = format!("SET statement_timeout = {}", STATEMENT_TIMEOUT.as_millis());
                    connection.execute(AssertSqlSafe(limit)).await?;
                    Ok(())
                })
            })
            .connect_lazy_with(self.options.clone())
    }

    /// The writer's connection. If the node stops inside a transaction, the server ends the session before anybody has
    /// waited for longer than a lease.
    pub async fn connect_writer(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.connect().await?;
        // The planner would keep a plan that it made while a table was empty. Every statement of the writer finds its
        // rows by an index, so all other plans are disabled. The first two settings don't end a session that is sending
        // to a node which does not read; `tcp_user_timeout` does.
        let settings = format!(
            "SET idle_in_transaction_session_timeout = {lease}; SET statement_timeout = {}; SET jit = off; \
             SELECT set_config(name, '{lease}', false) FROM pg_settings WHERE name = 'tcp_user_timeout'; \
             SET plan_cache_mode = force_generic_plan; \
             SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; \
             SELECT set_config('synchronous_commit', 'on', false) \
             WHERE current_setting('synchronous_commit') = 'off'",
            STATEMENT_TIMEOUT.as_millis(),
            lease = self.lease.as_millis(),
        );
        within(CONNECT_TIMEOUT, connection.execute(AssertSqlSafe(settings))).await?;
        Ok(connection)
    }

    /// The connection that keeps the lease. A request may take a quarter of the lease at most.
    pub async fn connect_keeper(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.connect().await?;
        let limit = self.time_limit().as_millis();
        let settings = format!(
            "SET idle_in_transaction_session_timeout = {limit}; SET statement_timeout = {limit}; \
             SET lock_timeout = {}; SET jit = off",
            limit / 2
        );
        within(self.time_limit(), connection.execute(AssertSqlSafe(settings))).await?;
        Ok(connection)
    }

    /// How long a request that the lease depends on may take.
    pub fn time_limit(&self) -> Duration {
        self.lease / 4
    }
}

/// Whether any host that answers at this URL would get the password, because the server is on another machine and its
/// certificate and name are not verified. Considers the PG* environment variables too, as connecting does. False for an
/// invalid URL: nobody connects to it, and [`Server::new`] reports what is wrong.
pub fn trusts_anybody(url: &str) -> bool {
    let Ok(options) = PgConnectOptions::from_str(url) else { return false };
    let host = options.get_host();
    let is_socket = options.get_socket().is_some() || host.starts_with('/');
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    // No other name counts, because a name server decides which host answers for it.
    let is_loopback = host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.to_canonical().is_loopback());
    !is_socket && !is_loopback && !matches!(options.get_ssl_mode(), PgSslMode::VerifyFull)
}

/// Checks that the TLS files in the URL exist. Without this check a missing file would look like a missing server.
fn check_files(url: &str) -> Result<(), sqlx::Error> {
    // The parser of the options reports an invalid URL.
    let Ok(url) = Url::parse(url) else { return Ok(()) };
    let files = ["sslrootcert", "ssl-root-cert", "ssl-ca", "sslcert", "ssl-cert", "sslkey", "ssl-key"];
    for (key, path) in url.query_pairs() {
        // The value may be the certificate itself.
        if files.contains(&&*key) && !path.starts_with("-----BEGIN") {
            let refused = |error| sqlx::Error::Configuration(format!("{key}={path}: {error}").into());
            File::open(&*path).map_err(refused)?;
        }
    }
    Ok(())
}

/// A pause after connecting failed, during which nobody connects. Each pause is longer than the one before, up to
/// [`LONGEST_PAUSE`]: a recovering server must not get a connection for every submit.
#[derive(Debug, Default)]
pub struct Pause {
    failures: u32,
    ends: Option<(Instant, Unavailable)>,
}

/// The first pause; each further one is twice as long.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Pause {
    /// The error that began the pause, while the pause lasts.
    pub fn runs(&self) -> Option<Unavailable> {
        self.ends.as_ref().filter(|(end, _)| Instant::now() < *end).map(|(_, error)| error.clone())
    }

    /// Begins a pause after this error.
    pub fn begin(&mut self, error: Unavailable) {
        let length = SHORTEST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        // Spreads the nodes' attempts.
        let length = length.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.ends = Some((Instant::now() + length, error));
    }

    /// Ends the pause after a success, so that the next one is short again.
    pub fn end(&mut self) {
        *self = Self::default();
    }
}

/// Waits for an answer for a limited time.
///
/// # Errors
/// The request's own error, or a timeout. After a timeout the connection must not be used any more.
pub async fn within<T, E: From<sqlx::Error>>(
    limit: Duration,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    timeout(limit, answer).await.unwrap_or_else(|_| {
        let what = format!("the database did not answer within {limit:?}");
        Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, what)).into())
    })
}

/// Waits at most [`ANSWER_TIMEOUT`] for the answer to a request.
pub async fn answer<T>(asked: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Unavailable> {
    Ok(within(ANSWER_TIMEOUT, asked).await?)
}

/// Whether the connection is unusable after this error.
pub fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            // Class 57 is operator intervention, of which 57014 only cancels a statement. 25P03 is a session that was
            // ended because it was idle in a transaction. 25006 is a server that has become a standby: its address may
            // lead to another server by now.
            let code = error.code();
            code.is_some_and(|code| {
                (code.starts_with("57") && code != "57014") || code == "25P03" || code == "25006"
            })
        }
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::RowNotFound => false,
        _ => true,
    }
}

/// Whether the transaction conflicted with another one (a deadlock or serialization failure) and can be repeated at
/// once.
pub fn is_conflict(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == "40P01" || code == "40001")
}

/// The error of a node that writes without a lease.
pub fn fenced() -> Unavailable {
    Unavailable(
        "this node's lease is over, or another process has registered its name: it writes nothing until it has one".into(),
    )
}
