//! Handles failures to accept a connection: pauses for a moment, and logs once per burst.
//!
//! The usual cause is that the process has no file descriptor left. New clients then wait in the kernel's queue.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::warn;

/// The pause after a failure.
const REST: Duration = Duration::from_millis(100);

/// The least time between two log lines.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// The failures of one listener.
#[derive(Debug)]
pub struct Accepting {
    listener: &'static str,
    said_at: Option<Instant>,
    /// Failures since the last log line.
    more: u64,
}

impl Accepting {
    /// `listener` is the listener's name in the log.
    pub fn new(listener: &'static str) -> Self {
        Self { listener, said_at: None, more: 0 }
    }

    /// Counts a failure, logs it if a line is due, and pauses.
    pub async fn failed(&mut self, error: &io::Error) {
        if self.said_at.is_some_and(|at| at.elapsed() < SAY_EVERY) {
            self.more += 1;
        } else {
            let (listener, more) = (self.listener, std::mem::take(&mut self.more));
            let more_failures = (more > 0).then_some(more);
            warn!(
                listener,
                %error,
                more_failures,
                "can't accept a connection; new clients wait, and it is tried again (too many open files? raise LimitNOFILE)"
            );
            self.said_at = Some(Instant::now());
        }
        sleep(REST).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_failures_are_logged_once_a_minute() {
        let mut accepting = Accepting::new("test");
        let mut said = 0;
        for _ in 0..1000 {
            let before = accepting.said_at;
            accepting.failed(&io::ErrorKind::Other.into()).await;
            said += usize::from(accepting.said_at != before);
        }
        // A thousand pauses are 100 s.
        assert_eq!((said, accepting.more), (2, 399));
    }
}
