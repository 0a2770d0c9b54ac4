//! The configuration: TOML file, then environment, then `--set`.
//!
//! To add a key, add one field to its section, with its documentation, reader and default, and one line to
//! `config/pinwatch.toml`:
//!
//! ```ignore
//! /// How many polls may run at once.
//! pub concurrency: usize = count(64, 1..=10_000),
//! ```
//!
//! `read.rs` has the readers; a key that needs more than they can has a reader in its section's file. All else follows:
//! origins, unknown keys and their corrections, relative paths, `check-config`, the test that the shipped file is complete.
//! A new section is a field of [`Config`]; a new kind of sink is a line in `sink.rs`.
//!
//! Readers stand where a serde derive could: a derive stops at the first mistake, checks no ranges, shows no values, and
//! needs a second type for what users write beside the one that the program uses.
//!
//! Promises: a [`Config`] that exists is right in itself; whatever is wrong is found before anything is opened or made, all
//! at once, and reported with the key, the value, its origin and what would be right. Loading reads the configuration file
//! and the key files, nothing else. Must not know: the process (its environment is an argument), or what the settings are
//! used for.

use std::path::{Path, PathBuf};
use std::time::Duration;

mod api;
mod cluster;
mod credentials;
mod environment;
mod error;
mod http;
mod intake;
mod log;
mod read;
mod schedule;
mod secret;
mod section;
mod sink;
mod sources;
mod store;
#[cfg(test)]
mod testing;
mod toml_file;
mod webhook;

pub use api::Api;
pub use cluster::Cluster;
pub use credentials::Credentials;
pub use environment::{Environment, SYSTEM_FILE};
pub use error::{ConfigError, Problem};
pub use http::{Http, Tls};
pub use intake::Intake;
pub use log::{Log, LogFormat};
pub(crate) use read::YEAR;
pub use schedule::{Adapt, Completion, Schedule};
pub use sink::{From, Fsync, Sink, SinkKind, is_rotated_name, is_standard_stream};
pub use sources::Sources;
pub use store::{Store, StoreUrl};
pub use webhook::{SigningSecrets, Webhook, WebhookFormat};

use read::HOUR;
use section::{Report, Section, section};

section! {
    /// The whole configuration, checked.
    pub struct Config {
        pub api: Api = table(Api::checked),
        pub schedule: Schedule = table(Schedule::checked),
        pub intake: Intake = table(Intake::read),
        pub store: Store = table(Store::read),
        pub cluster: Cluster = table(Cluster::read),
        pub sinks: Vec<Sink> = sinks(),
        pub http: Http = table(Http::checked),
        pub log: Log = table(Log::read),
        /// How long running polls may take to end at a stop.
        pub shutdown_grace: Duration = duration("10s", Duration::ZERO..=HOUR),
    }
}

/// A configuration, and where each of its values came from.
#[derive(Debug, Clone)]
pub struct Explained {
    pub config: Config,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// Every key in effect, in the order of the sections.
    pub settings: Vec<Setting>,
    /// Secrets that other users of this machine can read.
    pub warnings: Vec<Problem>,
}

/// One key in effect, for `check-config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key in full, such as `schedule.max_interval`.
    pub key: String,
    /// The value as TOML would write it; of a secret only that it is set, and where from.
    pub value: String,
    /// "default", or where it was written: file and line, environment variable, `--set`.
    pub origin: String,
}

impl Setting {
    /// The value as JSON has it: a string, number or truth value, which TOML writes in the same way. What is shown of a
    /// secret is a string.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.value).unwrap_or_else(|_| self.value.as_str().into())
    }
}

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// The file can't be read or isn't TOML, or any key or value is wrong: then all that are, together.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        Self::explain(sources).map(|explained| explained.config)
    }

    /// The configuration that these `--set` alone make, for tests: they name the keys that they need, and no others.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn of_sets(sets: &[&str]) -> Result<Self, ConfigError> {
        let environment = Environment { system_file: PathBuf::new(), ..Environment::default() };
        let set = sets.iter().map(|set| (*set).to_owned()).collect();
        Self::load(&Sources { file: None, environment, set })
    }

    /// As [`Config::load`], with each value's origin.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn explain(sources: &Sources) -> Result<Explained, ConfigError> {
        let (values, mut report) = sources::merge(sources)?;
        let config = Section::read_table("", Some(values.into()), &mut report, Config::read);
        let Report { mut problems, settings, warnings, file, .. } = report;
        match config {
            Some(config) if problems.is_empty() => Ok(Explained { config, file, settings, warnings }),
            _ => {
                problems.sort_by(|a, b| a.key.cmp(&b.key));
                Err(ConfigError::Invalid(problems))
            }
        }
    }
}

/// Where the clients find the daemon: `intake.socket` of the same sources, whatever else is wrong
/// with them. `--socket` stands above this, and is the caller's.
///
/// A user without any configuration gets the own daemon's socket if there is one, else the system's if there
/// is that.
///
/// # Errors
/// A file given by `--config` can't be read, a file isn't TOML, or `intake.socket` itself is wrong.
pub fn client_socket(sources: &Sources) -> Result<PathBuf, ConfigError> {
    let (mut values, mut report) = match sources::merge(sources) {
        // The system's file is often closed to those who may use the socket. It is there, so the daemon is the
        // system's.
        Err(ConfigError::Unreadable { source, .. })
            if sources.file.is_none() && source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            let mut as_root = sources.clone();
            as_root.environment.uid = 0;
            as_root.environment.system_file = PathBuf::new();
            sources::merge(&as_root)?
        }
        merged => merged?,
    };
    const KEY: &str = "intake.socket";
    let read = |intake: &mut Section| intake.socket("socket");
    let socket = Section::read_table("intake", values.remove("intake"), &mut report, read);
    report.problems.retain(|problem| problem.key == KEY);
    let system = Path::new(intake::SYSTEM_SOCKET);
    let is_default = report.settings.iter().any(|setting| setting.origin.starts_with("default"));
    match socket {
        Some(own) if report.problems.is_empty() => {
            let use_system = report.is_personal && is_default && !own.exists() && system.exists();
            Ok(if use_system { system.to_owned() } else { own })
        }
        _ => Err(ConfigError::Invalid(report.problems)),
    }
}

/// The daemon's store, for commands that need nothing else of the configuration.
///
/// # Errors
/// A file can't be read or isn't TOML, or `[store]` itself is wrong.
pub fn store_url(sources: &Sources) -> Result<StoreUrl, ConfigError> {
    let (mut values, mut report) = sources::merge(sources)?;
    let store = Section::read_table("store", values.remove("store"), &mut report, Store::read);
    report.problems.retain(|problem| problem.key.starts_with("store"));
    match store {
        Some(store) if report.problems.is_empty() => Ok(store.url),
        _ => Err(ConfigError::Invalid(report.problems)),
    }
}

/// Every key there is, in full; those of a sink as `sink.url`.
pub fn known_keys() -> Vec<String> {
    let mut report = Report::default();
    Section::read_table("", None, &mut report, Config::read);
    for (kind, read) in sink::TYPES {
        Section::read_table("sink", None, &mut report, |section| sink::sink(section, kind, read));
    }
    report.keys.push("sink.type".to_owned());
    report.keys.sort();
    report.keys.dedup();
    report.keys
}
