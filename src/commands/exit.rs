//! Exit statuses: the one place where a result becomes a number.
//!
//! Promises that the numbers are those of the contract and of `pinwatch --help`. Knows no command.

use std::process::{ExitCode, Termination};

use super::client::ConnectError;
use super::error::CommandError;
use crate::daemon::DaemonError;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Failed, or done for some PINs and refused for others.
    Failed,
    /// The command line or the configuration is wrong. clap uses the same number.
    Usage,
    /// No daemon answers at the socket.
    NoDaemon,
    /// `wait` and `submit --wait`: some PIN was not delivered.
    NotDelivered,
    /// The time was up first. The number is that of timeout(1).
    TimedOut,
}

impl Exit {
    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NoDaemon => 3,
            Self::NotDelivered => 4,
            Self::TimedOut => 124,
        }
    }

    /// The worse of two ends of one command: a PIN that was refused needs a person, one that took too long
    /// needs another try, and one that was not delivered is an answer.
    pub fn or_worse(self, other: Self) -> Self {
        let rank = |exit| match exit {
            Self::Done => 0,
            Self::NotDelivered => 1,
            Self::TimedOut => 2,
            Self::Failed => 3,
            Self::NoDaemon => 4,
            Self::Usage => 5,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

impl From<&CommandError> for Exit {
    fn from(error: &CommandError) -> Self {
        match error {
            // Whoever read our output has enough of it: that is how `| head` is meant to end.
            error if error.is_broken_pipe() => Self::Done,
            CommandError::Usage(_) | CommandError::Config(_) | CommandError::LogLevel { .. } => Self::Usage,
            CommandError::Simulate(error) if error.is_usage() => Self::Usage,
            // Found when the client is made, but written in the configuration: `api.ca_file`.
            CommandError::Daemon(DaemonError::Client(_)) => Self::Usage,
            CommandError::Connect(ConnectError::Greeting(error)) if error.is_silence() => Self::TimedOut,
            CommandError::Connect(
                ConnectError::Untrusted { .. } | ConnectError::Full { .. } | ConnectError::Greeting(_),
            ) => Self::Failed,
            CommandError::Connect(_) => Self::NoDaemon,
            CommandError::Client(error) if error.is_silence() => Self::TimedOut,
            CommandError::Client(_)
            | CommandError::Output(_)
            | CommandError::File { .. }
            | CommandError::Runtime(_)
            | CommandError::Daemon(_)
            | CommandError::Simulate(_)
            | CommandError::Migrate(_)
            | CommandError::Backup(_)
            | CommandError::Demo(_) => Self::Failed,
        }
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_worse_than_a_time_out_which_is_worse_than_not_delivered() {
        let ends = [Exit::NotDelivered, Exit::TimedOut, Exit::Failed];
        let mut worst = Exit::Done;
        for end in ends {
            worst = worst.or_worse(end);
            assert_eq!(worst, end);
            assert_eq!(worst.or_worse(Exit::Done), end);
        }
    }

    #[test]
    fn a_broken_pipe_is_a_quiet_end() {
        let error = CommandError::Output(std::io::ErrorKind::BrokenPipe.into());
        assert_eq!(Exit::from(&error), Exit::Done);
    }
}
