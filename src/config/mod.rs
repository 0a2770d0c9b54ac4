//! What the program is told: TOML file, then environment, then `--set`.
//!
//! Each section has a file of its own: what users write (its wire type), what the program sees (its domain
//! type), and the checks between them. Promises: a [`Config`] that exists is right in itself; whatever is
//! wrong is found before anything is opened or made, all at once, and said with the key, the value, its origin
//! and what would be right. Loading reads the configuration file and the key files, nothing else. Must not
//! know: the process (its environment is an argument), or what the settings are used for.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::config::{Map, Value};
use serde::Deserialize;

mod api;
mod check;
mod cluster;
mod credentials;
mod error;
mod http;
mod intake;
mod log;
mod relative;
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
mod wire;

pub use api::Api;
pub(crate) use check::YEAR;
pub use cluster::Cluster;
pub use credentials::Credentials;
pub use error::{ConfigError, Problem};
pub use http::Http;
pub use intake::Intake;
pub use log::{Log, LogFormat};
pub use schedule::{Completion, Schedule};
pub use sink::{From, Fsync, Sink, SinkKind, is_rotated_name, is_standard_stream};
pub use sources::{Environment, SYSTEM_FILE, Sources};
pub use store::{InvalidStoreUrl, Store, StoreUrl};
pub use webhook::{Webhook, WebhookFormat};

use section::{Report, Section, field_names};
use sources::Merged;

/// The whole configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub api: Api,
    pub schedule: Schedule,
    pub intake: Intake,
    pub store: Store,
    pub cluster: Cluster,
    pub sinks: Vec<Sink>,
    pub http: Http,
    pub log: Log,
    /// How long running polls may take to end at a stop.
    pub shutdown_grace: Duration,
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
    /// The value as JSON has it: a string, number or truth value, which TOML writes in the same way. What is told of a
    /// secret is a string.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.value).unwrap_or_else(|_| self.value.as_str().into())
    }
}

/// A line for each key: `schedule.max_interval = "10m"  # default`.
impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings
            .iter()
            .try_for_each(|Setting { key, value, origin }| writeln!(f, "{key} = {value}  # {origin}"))
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

    /// As [`Config::load`], with each value's origin.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn explain(sources: &Sources) -> Result<Explained, ConfigError> {
        let Merged { mut values, problems, file, personal: _ } = sources::merge(sources)?;
        let open_file = file.clone().and_then(|file| Some((secret::mode_if_open_to_all(&file)?, file)));
        let open_file = open_file.map(|(mode, file)| (file, mode));
        let mut report = Report { problems, open_file, ..Report::default() };
        let config = check(&mut values, &sources.environment, &mut report);
        let Report { mut problems, settings, warnings, .. } = report;
        match config {
            Some(config) if problems.is_empty() => Ok(Explained { config, file, settings, warnings }),
            _ => {
                problems.sort_by(|a, b| a.key.cmp(&b.key));
                Err(ConfigError::Invalid(problems))
            }
        }
    }
}

/// Where the clients find the daemon: what `intake.socket` says in the same sources, whatever else is wrong
/// with them. `--socket` stands above this, and is the caller's.
///
/// A user without any configuration gets the own daemon's socket if there is one, else the system's if there
/// is that.
///
/// # Errors
/// A file given by `--config` can't be read, a file isn't TOML, or `intake.socket` itself is wrong.
pub fn client_socket(sources: &Sources) -> Result<PathBuf, ConfigError> {
    let Merged { mut values, problems, personal, .. } = match sources::merge(sources) {
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
    let mut report = Report { problems, ..Report::default() };
    let socket = intake::check_socket(Section::new("intake", values.remove("intake"), &mut report));
    report.problems.retain(|problem| problem.key == KEY);
    let system = Path::new(intake::SYSTEM_SOCKET);
    let by_default =
        report.settings.iter().any(|setting| setting.key == KEY && setting.origin.starts_with("default"));
    match socket {
        Some(own) if report.problems.is_empty() => {
            let elsewhere = personal && by_default && !own.exists() && system.exists();
            Ok(if elsewhere { system.to_owned() } else { own })
        }
        _ => Err(ConfigError::Invalid(report.problems)),
    }
}

/// The daemon's store, for whoever needs nothing else of the configuration.
///
/// # Errors
/// A file can't be read or isn't TOML, or `[store]` itself is wrong.
pub fn store_url(sources: &Sources) -> Result<StoreUrl, ConfigError> {
    let Merged { mut values, problems, .. } = sources::merge(sources)?;
    let mut report = Report { problems, ..Report::default() };
    let store = store::check(Section::new("store", values.remove("store"), &mut report));
    report.problems.retain(|problem| problem.key.starts_with("store"));
    match store {
        Some(store) if report.problems.is_empty() => Ok(store.url),
        _ => Err(ConfigError::Invalid(report.problems)),
    }
}

/// What stands above the first section.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wire {
    shutdown_grace: wire::Span,
}

impl Default for Wire {
    fn default() -> Self {
        Self { shutdown_grace: wire::Span(Duration::from_secs(10)) }
    }
}

/// Gives the names of a section's keys.
type Keys = fn() -> &'static [&'static str];

/// The sections that are single tables, and their keys.
const SECTIONS: [(&str, Keys); 7] = [
    ("api", field_names::<api::Wire>),
    ("schedule", field_names::<schedule::Wire>),
    ("intake", field_names::<intake::Wire>),
    ("store", field_names::<store::Wire>),
    ("cluster", field_names::<cluster::Wire>),
    ("http", field_names::<http::Wire>),
    ("log", field_names::<log::Wire>),
];

/// Every key there is, in full; those of a sink as `sink.url`.
pub fn known_keys() -> Vec<String> {
    let top = field_names::<Wire>().iter().map(|key| (*key).to_owned());
    let sections =
        SECTIONS.iter().flat_map(|(name, keys)| keys().iter().map(move |key| format!("{name}.{key}")));
    let sinks = sink::keys().into_iter().map(|key| format!("sink.{key}"));
    top.chain(sections).chain(sinks).collect()
}

/// Takes each section out of the merged values and checks it; what is left belongs to the top level.
fn check(values: &mut Map<String, Value>, environment: &Environment, report: &mut Report) -> Option<Config> {
    let api = api::check(Section::new("api", values.remove("api"), report), environment);
    let schedule = schedule::check(Section::new("schedule", values.remove("schedule"), report));
    let intake = intake::check(Section::new("intake", values.remove("intake"), report));
    let store = store::check(Section::new("store", values.remove("store"), report));
    let cluster = cluster::check(Section::new("cluster", values.remove("cluster"), report));
    let sinks = sink::check(values.remove("sink"), report);
    let http = http::check(Section::new("http", values.remove("http"), report));
    let log = log::check(Section::new("log", values.remove("log"), report));
    let shutdown_grace = {
        let mut top = Section::new("", Some(std::mem::take(values).into()), report);
        let others: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).chain(["sink"]).collect();
        let wire: Wire = top.read_part(&others);
        top.duration("shutdown_grace", wire.shutdown_grace, Duration::ZERO..=Duration::from_secs(3600))
    };
    Some(Config {
        api: api?,
        schedule: schedule?,
        intake: intake?,
        store: store?,
        cluster,
        sinks: sinks?,
        http: http?,
        log: log?,
        shutdown_grace,
    })
}
