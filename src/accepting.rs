//! What to do when a connection can't be accepted: rest a moment, and say so once a burst.
//!
//! Most often the process has no file descriptor left. Who wants to connect then waits until there is one.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::warn;

/// How long to rest after a failure.
const REST: Duration = Duration::from_millis(100);

/// The log hears of failures at most this often.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// The failures of one listener.
#[derive(Debug)]
pub struct Accepting {
    listener: &'static str,
    said_at: Option<Instant>,
    /// Failures that the log was not told of.
    more: u64,
}

impl Accepting {
    /// None yet; `listener` is its name in the log.
    pub fn new(listener: &'static str) -> Self {
        Self { listener, said_at: None, more: 0 }
    }

    /// Notes a failure and rests.
    pub async fn failed(&mut self, error: &io::Error) {
        if self.said_at.is_some_and(|at| at.elapsed() < SAY_EVERY) {
            self.more += 1;
        } else {
            let (listener, more) = (self.listener, std::mem::take(&mut self.more));
            warn!(listener, %error, more, "a connection could not be accepted, after so many more like it; they wait");
            self.said_at = Some(Instant::now());
        }
        sleep(REST).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn of_many_failures_the_log_hears_once_a_minute() {
        let mut accepting = Accepting::new("test");
        let mut said = 0;
        for _ in 0..1000 {
            let before = accepting.said_at;
            accepting.failed(&io::ErrorKind::Other.into()).await;
            said += usize::from(accepting.said_at != before);
        }
        // A thousand rests are 100 s.
        assert_eq!((said, accepting.more), (2, 399));
    }
}
