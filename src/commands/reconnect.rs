//! Reconnects to a daemon that went away.
//!
//! PINs and outcomes are durable, so a waiting client can survive a restart. Must not know what the client waits for.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::client::{Client, ClientError, ConnectError};
use super::output::note;

/// The first pause before a new try.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause: short enough that a client continues soon once the daemon is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// After a connection that lasted this long, the next pause is short again.
const GOOD: Duration = Duration::from_secs(10);

/// Connects to the daemon again, with growing pauses.
pub struct Reconnect {
    pause: Duration,
    connected_at: Instant,
}

impl Reconnect {
    /// Creates it for a client that is connected now.
    pub fn new() -> Self {
        Self { pause: FIRST_PAUSE, connected_at: Instant::now() }
    }

    /// Tries until a daemon listens at `path` again. A caller that can't wait for ever must set a time-out.
    pub async fn again(&mut self, path: &Path, lost: &ClientError) -> Client {
        match lost {
            ClientError::Refused(refusal) => note(format_args!("the daemon can't continue now: {refusal}")),
            _ => note("the daemon has closed the connection"),
        }
        note("waiting for it to come back");
        let mut has_reported = false;
        let client = self.connect(path, |full| {
            if !std::mem::replace(&mut has_reported, true) {
                note(format_args!("{full}; trying again"));
            }
        });
        let client = client.await;
        note("connected again");
        client
    }

    /// As [`Reconnect::again`], but writes nothing: for a caller that has the whole terminal.
    pub async fn quietly(&mut self, path: &Path) -> Client {
        self.connect(path, |_| {}).await
    }

    async fn connect(&mut self, path: &Path, mut on_full: impl FnMut(&ConnectError)) -> Client {
        if self.connected_at.elapsed() > GOOD {
            self.pause = FIRST_PAUSE;
        }
        loop {
            // Retries after every error: between two daemons the socket is missing, then refuses connections, then may lack its
            // permissions.
            sleep(self.pause).await;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            match Client::connect(path).await {
                Ok(client) => {
                    self.connected_at = Instant::now();
                    return client;
                }
                Err(full @ ConnectError::Full { .. }) => on_full(&full),
                Err(_) => {}
            }
        }
    }
}
