//! Handles failures to accept a connection: pauses for a moment, and logs once per burst.
//!
//! The usual cause is that the process has no file descriptor left. New clients then wait in the kernel's queue.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::throttle::Throttle;

/// The pause after a failure.
const REST: Duration = Duration::from_millis(100);

/// The failures of one listener.
#[derive(Debug)]
pub struct Accepting {
    listener: &'static str,
    lines: Throttle,
}

impl Accepting {
    /// `listener` is the listener's name in the log.
    pub fn new(listener: &'static str) -> Self {
        Self { listener, lines: Throttle::default() }
    }

    /// Counts a failure, logs it if a line is due, and pauses.
    pub async fn failed(&mut self, error: &io::Error) {
        if let Some(more) = self.lines.due(Instant::now()) {
            let listener = self.listener;
            let more_failures = (more > 0).then_some(more);
            warn!(
                listener,
                %error,
                more_failures,
                "can't accept a connection; new clients wait, and it is tried again (too many open files? raise LimitNOFILE)"
            );
        }
        sleep(REST).await;
    }
}
