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
//! `read.rs` has the readers. A key that needs another one has a reader in its section's file. Everything else follows from the
//! field: the value's origin, corrections of unknown keys, relative paths, `check-config`, and the test that the shipped file is
//! complete. A new section is a field of [`Config`]; a new kind of sink is a line in `sink.rs`.
//!
//! Readers are used instead of a serde derive. A derive stops at the first mistake, checks no ranges, shows no values, and
//! needs a second type for what users write.
//!
//! Promises that every existing [`Config`] is valid. All mistakes are found together before anything is opened or created, and
//! each is reported with its key, its value, the value's origin and what would be right. Loading reads the configuration file
//! and the files with keys, headers and certificates, nothing else. Must not know the process (its environment is an argument)
//! or what the settings are used for.

use std::path::{Path, PathBuf};
use std::time::Duration;

mod answer;
mod api;
mod cluster;
mod credentials;
mod environment;
mod error;
mod headers;
mod http;
mod intake;
mod log;
mod preset;
mod read;
mod schedule;
mod secret;
mod section;
mod sink;
mod sources;
mod store;
#[cfg(test)]
mod testing;
mod tls_files;
mod toml_file;
mod webhook;

pub use answer::{Answer, Treatment};
pub use api::{Api, Auth};
pub use cluster::Cluster;
pub use credentials::Credentials;
pub use environment::{Environment, SYSTEM_FILE};
pub use error::{ConfigError, Problem};
pub use headers::Headers;
pub use http::{Http, Tls};
pub use intake::Intake;
pub use log::{Log, LogFormat};
pub use preset::{PRESETS, Preset};
pub(crate) use read::YEAR;
pub use schedule::{Adapt, Completion, Schedule};
pub use sink::{From, Fsync, Sink, SinkKind, is_rotated_name, is_standard_stream};
pub use sources::Sources;
pub use store::{Store, StoreUrl};
pub use webhook::{SigningSecrets, Webhook, WebhookFormat};

use read::HOUR;
use section::{Report, Section, section};

section! {
    /// The whole, checked configuration.
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

/// A configuration, and the origin of each value.
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
    /// The full key, such as `schedule.max_interval`.
    pub key: String,
    /// The value in TOML; of a secret only that it is set, and from where.
    pub value: String,
    /// "default", or the value's origin: file and line, environment variable, `--set`.
    pub origin: String,
}

impl Setting {
    /// Returns the value in JSON: a string, number or boolean, which TOML writes in the same way. The text shown for a secret
    /// is a string.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.value).unwrap_or_else(|_| self.value.as_str().into())
    }
}

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// The file can't be read or isn't TOML, or keys or values are wrong: then all of them, together.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        Self::explain(sources).map(|explained| explained.config)
    }

    /// Creates a configuration from only these `--set` options, for tests.
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

/// Returns the socket to which clients connect: `intake.socket` of the same sources, even if other keys are wrong. The caller
/// handles `--socket`, which overrides this.
///
/// A user without any configuration gets the socket of their own daemon if it exists, else the system's socket if that exists.
///
/// # Errors
/// A file given by `--config` can't be read, a file isn't TOML, or `intake.socket` itself is wrong.
pub fn client_socket(sources: &Sources) -> Result<PathBuf, ConfigError> {
    let (mut values, mut report) = match sources::merge(sources) {
        // Users of the socket often may not read the system's file. It exists, so the daemon is the system's.
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
    let read = |intake: &mut Section| intake.socket("socket");
    let own = only(&mut values, &mut report, "intake", "intake.socket", read)?;
    let system = Path::new(intake::SYSTEM_SOCKET);
    let is_default = report.settings.iter().any(|setting| setting.origin.starts_with("default"));
    let use_system = report.is_personal && is_default && !own.exists() && system.exists();
    Ok(if use_system { system.to_owned() } else { own })
}

/// Returns the daemon's store, for commands that need nothing else of the configuration.
///
/// # Errors
/// A file can't be read or isn't TOML, or `[store]` itself is wrong.
pub fn store_url(sources: &Sources) -> Result<StoreUrl, ConfigError> {
    let (mut values, mut report) = sources::merge(sources)?;
    only(&mut values, &mut report, "store", "store", Store::read).map(|store| store.url)
}

/// Reads a part of one section, and reports only the problems of keys that begin with `keys`.
fn only<T>(
    values: &mut config::Map<String, config::Value>,
    report: &mut Report,
    section: &str,
    keys: &str,
    read: impl FnOnce(&mut Section) -> Option<T>,
) -> Result<T, ConfigError> {
    let found = Section::read_table(section, values.remove(section), report, read);
    report.problems.retain(|problem| problem.key.starts_with(keys));
    found
        .filter(|_| report.problems.is_empty())
        .ok_or_else(|| ConfigError::Invalid(std::mem::take(&mut report.problems)))
}

/// Returns every full key; those of a sink as `sink.url`.
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
