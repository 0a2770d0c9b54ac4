//! What the program is told: TOML file, then environment, then `--set`.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use secrecy::SecretString;

/// The whole configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub api: Api,
    pub schedule: Schedule,
    pub intake: Intake,
    pub store: Store,
    pub sinks: Vec<Sink>,
    pub http: Http,
    pub log: Log,
    /// How long running polls may take to end at a stop.
    pub shutdown_grace: Duration,
}

/// `[api]`
#[derive(Debug, Clone)]
pub struct Api {
    pub base_url: Url,
    /// Path template with `{pinId}`.
    pub path: String,
    pub credentials: Credentials,
    pub timeout: Duration,
    pub connect_timeout: Duration,
    pub concurrency: usize,
    /// Polls a second; `None` is no limit.
    pub rate: Option<NonZeroU32>,
}

/// How the daemon shows the API who it is.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// `Authorization: App <key>`
    App(SecretString),
    /// `Authorization: Basic …`
    Basic { username: String, password: SecretString },
}

/// `[schedule]`
#[derive(Debug, Clone)]
pub struct Schedule {
    pub initial_interval: Duration,
    pub multiplier: f64,
    pub max_interval: Duration,
    pub randomization_factor: f64,
    pub deadline: Duration,
    pub not_found_grace: Duration,
    pub completion: Completion,
}

/// Of several deliveries, how many must be final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    All,
    Any,
}

/// `[intake]`
#[derive(Debug, Clone)]
pub struct Intake {
    pub socket: PathBuf,
    /// Permission bits of the socket file.
    pub mode: u32,
    pub max_in_flight: usize,
    pub max_connections: usize,
}

/// `[store]`
#[derive(Debug, Clone)]
pub struct Store {
    /// The SQLite file.
    pub path: PathBuf,
    /// How long outcomes are kept after every sink has them.
    pub retention: Duration,
}

/// One `[[sink]]`
#[derive(Debug, Clone)]
pub struct Sink {
    /// Its cursor's name; unique.
    pub name: String,
    pub kind: SinkKind,
    pub from: From,
}

/// Where a sink that has no cursor yet begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    Now,
    Oldest,
}

/// What a sink is.
#[derive(Debug, Clone)]
pub enum SinkKind {
    Stdout,
    File { path: PathBuf, fsync: Fsync },
    Webhook(Webhook),
}

/// When the file sink makes its lines durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    Batch,
    Never,
}

/// `type = "webhook"`
#[derive(Debug, Clone)]
pub struct Webhook {
    pub url: Url,
    /// Signing secrets, the newest first; several while they are rotated, none for unsigned.
    pub secrets: Vec<SecretString>,
    pub timeout: Duration,
    pub concurrency: usize,
    pub max_age: Duration,
    pub format: WebhookFormat,
    /// Outcomes in one request; 1 sends a record, more sends an array of records.
    pub batch: usize,
}

/// The body of a webhook request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookFormat {
    Record,
    CloudEvents,
}

/// `[http]`
#[derive(Debug, Clone)]
pub struct Http {
    pub listen: Option<SocketAddr>,
}

/// `[log]`
#[derive(Debug, Clone)]
pub struct Log {
    /// A `tracing_subscriber::EnvFilter` directive, such as `info` or `pinwatch=debug`.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
    Journald,
}
