//! Exit statuses: the only place that turns a result into a number. `pinwatch --help` lists them.

use std::process::{ExitCode, Termination};

/// The exit status of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Success.
    Done,
    /// Failed, or done for some PINs and refused for others.
    Failed,
    /// The command line or the configuration is wrong. clap uses the same number.
    Usage,
    /// No daemon answers at the socket.
    NoDaemon,
    /// `wait` and `submit --wait`: a PIN was not delivered.
    NotDelivered,
    /// The time limit was reached. timeout(1) uses the same number.
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

    /// The worse of two results of one command. A refused PIN needs a person and is worse than a time-out, which needs another
    /// try; "not delivered" is a normal answer and the least bad.
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
}
