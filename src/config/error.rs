//! What is wrong with a configuration, in words for the one who wrote it.
//!
//! Promises: a problem names the key in full, where the value came from and what would be right, and
//! never holds a secret. Must not know: sections, or how a message gets to the terminal.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why there is no configuration.
///
/// The messages are lower-case fragments, made to stand after "pinwatch: " or in a chain.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file is named or is there, and can't be read.
    #[error("can't read the configuration file {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// The file isn't TOML. The offending line isn't quoted, since it may hold a secret.
    #[error("the configuration file {} is not valid TOML in line {line}: {message}", path.display())]
    Syntax { path: PathBuf, line: usize, message: String },
    /// Keys or values are wrong: all of them that were found, in the order of their names.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key in full, such as `schedule.max_interval`.
    pub key: String,
    /// What was given, as TOML would write it; `None` where nothing was, or where it may be a secret.
    pub value: Option<String>,
    /// Where it came from: file and line, environment variable, or `--set`.
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

/// One problem stands in the line; several stand below each other.
fn lines(problems: &[Problem]) -> String {
    if let [only] = problems {
        return format!("in the configuration, {only}");
    }
    let lines = problems.iter().map(|problem| format!("\n  {problem}"));
    format!("the configuration has {} problems:{}", problems.len(), lines.collect::<String>())
}
