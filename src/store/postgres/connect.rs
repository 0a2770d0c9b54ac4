//! Connections to the server, and what each kind of them is told at its start.

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
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// How long the server works on one statement before it gives it up.
const STATEMENT_PATIENCE: Duration = Duration::from_secs(10);

/// How long we wait for the answer to whatever is asked at once: longer than the server's own limit, which tells more.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(12);

/// The server, and this node's way to it.
#[derive(Clone)]
pub struct Server {
    options: PgConnectOptions,
    /// What every connection begins with.
    greeting: String,
    /// The URL as it may be shown.
    pub shown: String,
    pub lease: Duration,
}

impl Server {
    pub fn new(url: &SecretString, shown: &str, lease: Duration) -> Result<Self, sqlx::Error> {
        check_files(url.expose_secret())?;
        // Statements are few and fixed; logging each would put PIN IDs into the log.
        let options = PgConnectOptions::from_str(url.expose_secret())?.disable_statement_logging();
        let options = match options.get_application_name() {
            Some(_) => options,
            None => options.application_name("pinwatch"),
        };
        let greeting = format!("SET search_path = {}", schema::NOWHERE);
        Ok(Self { options, greeting, shown: shown.to_owned(), lease })
    }

    /// From now on every connection finds the tables, which are in this schema.
    pub fn tables_are_in(&mut self, schema: &str) {
        self.greeting = format!("SET search_path = {}", schema::search_path(schema));
    }

    /// A connection that nobody has told anything yet.
    pub async fn connect_bare(&self) -> Result<PgConnection, sqlx::Error> {
        within(CONNECT_PATIENCE, self.options.connect()).await
    }

    /// Tells a connection what every one of them is told.
    pub async fn greet(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        within(CONNECT_PATIENCE, connection.execute(AssertSqlSafe(self.greeting.clone()))).await?;
        Ok(())
    }

    /// A connection that no kind of work has begun on.
    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.connect_bare().await?;
        self.greet(&mut connection).await?;
        Ok(connection)
    }

    /// Connections that read, so many at most. They are made when they are needed.
    pub fn readers(&self, count: u32) -> PgPool {
        let server = self.clone();
        PgPoolOptions::new()
            .max_connections(count)
            .acquire_timeout(Duration::from_secs(10))
            .after_connect(move |connection, _| {
                let server = server.clone();
                Box::pin(async move {
                    server.greet(connection).await?;
                    let limit = format!("SET statement_timeout = {}", STATEMENT_PATIENCE.as_millis());
                    connection.execute(AssertSqlSafe(limit)).await?;
                    Ok(())
                })
            })
            .connect_lazy_with(self.options.clone())
    }

    /// The connection of the writer: a node that stops inside a transaction is cut off by the server before anybody
    /// waits for more than its lease.
    pub async fn connect_writer(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.connect().await?;
        // A plan by a guess that a table is empty would be kept for ever, and every statement of the writer finds its
        // rows by an index: the planner is left no other way.
        // Neither of the first two ends a session that is just sending to a node that does not read.
        let settings = format!(
            "SET idle_in_transaction_session_timeout = {lease}; SET statement_timeout = {}; SET jit = off; \
             SELECT set_config(name, '{lease}', false) FROM pg_settings WHERE name = 'tcp_user_timeout'; \
             SET plan_cache_mode = force_generic_plan; \
             SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; \
             SELECT set_config('synchronous_commit', 'on', false) \
             WHERE current_setting('synchronous_commit') = 'off'",
            STATEMENT_PATIENCE.as_millis(),
            lease = self.lease.as_millis(),
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

/// Whether whoever answers at this URL is given the password: the server is on another machine, and its certificate and
/// name are not checked. Decided by what is connected with, which is the URL and the PG* variables of the environment.
/// A URL that can't be used is connected to by nobody, so [`Server::new`] tells what is wrong with it.
pub fn trusts_anybody(url: &str) -> bool {
    let Ok(options) = PgConnectOptions::from_str(url) else { return false };
    let host = options.get_host();
    let is_socket = options.get_socket().is_some() || host.starts_with('/');
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    // No other name: what answers for a name is for a name server to say.
    let is_loopback = host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.to_canonical().is_loopback());
    !is_socket && !is_loopback && !matches!(options.get_ssl_mode(), PgSslMode::VerifyFull)
}

/// The files that a URL names for TLS must be there: else it would seem as if the server were not.
fn check_files(url: &str) -> Result<(), sqlx::Error> {
    // What is no URL is refused by the parser of the options, in its words.
    let Ok(url) = Url::parse(url) else { return Ok(()) };
    let files = ["sslrootcert", "ssl-root-cert", "ssl-ca", "sslcert", "ssl-cert", "sslkey", "ssl-key"];
    for (key, path) in url.query_pairs() {
        // It may be the certificate itself.
        if files.contains(&&*key) && !path.starts_with("-----BEGIN") {
            let refused = |error| sqlx::Error::Configuration(format!("{key}={path}: {error}").into());
            File::open(&*path).map_err(refused)?;
        }
    }
    Ok(())
}

/// How long nobody connects again after that failed: longer each time, up to [`LONGEST_PAUSE`]. A server that is just
/// recovering is not to be asked at the speed at which clients submit.
#[derive(Debug, Default)]
pub struct Pause {
    failures: u32,
    ends: Option<(Instant, Unavailable)>,
}

/// The first one, doubled each time.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Pause {
    /// What failed, while it lasts.
    pub fn runs(&self) -> Option<Unavailable> {
        self.ends.as_ref().filter(|(end, _)| Instant::now() < *end).map(|(_, error)| error.clone())
    }

    pub fn begin(&mut self, error: Unavailable) {
        let length = SHORTEST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        // Not all nodes at the same moment.
        let length = length.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.ends = Some((Instant::now() + length, error));
    }

    pub fn end(&mut self) {
        *self = Self::default();
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
            // Class 57, operator intervention, but for a statement that was cancelled (57014); 25P03, a session that was
            // cut off while it was idle in a transaction; and 25006, a server that has become a standby: the address
            // may lead to another one by now.
            let code = error.code();
            code.is_some_and(|code| {
                (code.starts_with("57") && code != "57014") || code == "25P03" || code == "25006"
            })
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
