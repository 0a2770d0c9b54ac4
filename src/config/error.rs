//! The problems of a configuration, described for its author.
//!
//! Promises that a problem names the full key, the origin of the value and what would be right, and never contains a secret. Must
//! not know sections or how messages are printed.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why the configuration can't be used.
///
/// The messages begin in lower case, so that they can follow "pinwatch: " or another message.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file is named or exists, but can't be read.
    #[error("can't read the configuration file {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// The file is not TOML. The message does not quote the wrong line, because it may contain a secret.
    #[error("the configuration file {} is not valid TOML in line {line}: {message}", path.display())]
    Syntax { path: PathBuf, line: usize, message: String },
    /// Keys or values are wrong: all that were found, in the order of their names.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The full key, such as `schedule.max_interval`.
    pub key: String,
    /// The given value in TOML; `None` if there was none, or if it may be a secret.
    pub value: Option<String>,
    /// The value's origin: file and line, environment variable, or `--set`.
    pub origin: Option<String>,
    /// What would be right.
    pub reason: String,
}

impl Problem {
    /// A problem whose value is not shown: there is none, or it may be a secret.
    pub(super) fn without_value(
        key: impl Into<String>,
        origin: Option<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self { key: key.into(), value: None, origin, reason: reason.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        if let Some(origin) = &self.origin {
            write!(f, " ({origin})")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// Formats one problem in the same line, several as one line each.
fn lines(problems: &[Problem]) -> String {
    if let [only] = problems {
        return format!("in the configuration, {only}");
    }
    let lines = problems.iter().map(|problem| format!("\n  {problem}"));
    format!("the configuration has {} problems:{}", problems.len(), lines.collect::<String>())
}
