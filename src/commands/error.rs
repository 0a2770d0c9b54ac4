//! The errors of commands, as sentences for the person at the terminal.
//!
//! Promises that each message says what failed, with which value, and what to do where that is known. Must not know exit
//! statuses, which [`Exit`](super::exit::Exit) decides.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::client::{ClientError, ConnectError};
use super::config::ConfigError;
use super::exit::Exit;
use crate::daemon::DaemonError;
use crate::http::{ListenError, tokens::NoRandomNumbers};
use crate::protocol::{Code, Refusal};
use crate::simulate::SimulateError;
use crate::store::backup::BackupError;
use crate::store::migrate::MigrateError;
use crate::text::printable;

/// Why a command failed.
#[derive(Debug, Error)]
pub enum CommandError {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(
        "log.level {level:?} is not a log filter: {problem}; use a level such as \"info\", or \"info,pinwatch=debug\""
    )]
    LogLevel { level: String, problem: String },
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("can't write the results to stdout: {0}")]
    Output(#[source] io::Error),
    #[error("can't {what} {}: {error}", path.display())]
    File { what: &'static str, path: PathBuf, error: io::Error },
    #[error(transparent)]
    Random(NoRandomNumbers),
    #[error("can't start the runtime: {0}")]
    Runtime(#[source] io::Error),
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    #[error(transparent)]
    Simulate(#[from] SimulateError),
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error("the demonstration failed: {0}")]
    Demo(String),
}

impl CommandError {
    /// Whether the reader of standard output has closed it.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The error for a program: with the daemon's code if it has one, else with a code for the exit status.
    pub fn refusal(&self) -> Refusal {
        if let Self::Client(ClientError::Refused(refusal))
        | Self::Connect(ConnectError::Full { refusal, .. }) = self
        {
            return refusal.clone();
        }
        let code = match Exit::from(self) {
            Exit::Usage => "usage",
            Exit::NoDaemon => "no_daemon",
            Exit::TimedOut => "timeout",
            Exit::Done | Exit::Failed | Exit::NotDelivered => "failed",
        };
        Code::Other(code.to_owned())
            .because(error_lines(self).join(" ").trim_start_matches("error: ").to_owned())
    }
}

impl From<&CommandError> for Exit {
    fn from(error: &CommandError) -> Self {
        match error {
            // The reader of the output needs no more; `| head` ends like this.
            error if error.is_broken_pipe() => Self::Done,
            CommandError::Usage(_) | CommandError::Config(_) | CommandError::LogLevel { .. } => Self::Usage,
            CommandError::Simulate(error) if error.is_usage() => Self::Usage,
            // The cause is in the configuration (`api.ca_file`, `http.tls_cert`, `http.tokens_file`), but only reading the file
            // finds it.
            CommandError::Daemon(
                DaemonError::Client(_)
                | DaemonError::TlsFiles(_)
                | DaemonError::Tokens(_)
                | DaemonError::Listen(ListenError::Open(_)),
            ) => Self::Usage,
            CommandError::Connect(ConnectError::Greeting(error)) if error.is_silence() => Self::TimedOut,
            CommandError::Connect(
                ConnectError::Untrusted { .. } | ConnectError::Full { .. } | ConnectError::Greeting(_),
            ) => Self::Failed,
            CommandError::Connect(_) => Self::NoDaemon,
            CommandError::Client(error) if error.is_silence() => Self::TimedOut,
            CommandError::Client(_)
            | CommandError::Output(_)
            | CommandError::File { .. }
            | CommandError::Random(_)
            | CommandError::Runtime(_)
            | CommandError::Daemon(_)
            | CommandError::Simulate(_)
            | CommandError::Migrate(_)
            | CommandError::Backup(_)
            | CommandError::Demo(_) => Self::Failed,
        }
    }
}

/// Formats the error and its causes as one line without control characters; several problems of a configuration get a line each.
/// A cause whose text is already in the line is not repeated.
pub fn error_lines(error: &CommandError) -> Vec<String> {
    if let CommandError::Config(ConfigError::Invalid(problems)) = error
        && problems.len() > 1
    {
        let title = format!("error: the configuration has {} problems:", problems.len());
        let problems = problems.iter().map(|problem| format!("  {}", printable(&problem.to_string())));
        return [title].into_iter().chain(problems).collect();
    }
    let mut text = format!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let problem = error.to_string();
        if !text.contains(&problem) {
            text = format!("{text}: {problem}");
        }
        cause = error.source();
    }
    vec![printable(&text).into_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_pipe_ends_a_command_without_an_error() {
        let error = CommandError::Output(std::io::ErrorKind::BrokenPipe.into());
        assert_eq!(Exit::from(&error), Exit::Done);
    }
}
