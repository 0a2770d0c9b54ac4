//! Finding the daemon again after it went away.
//!
//! PINs and outcomes are durable, so a client that waits can outlive a restart. Knows nothing of what the
//! client waits for.

use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use super::client::{Client, ClientError};
use super::output::note;

/// A restart takes a moment at least.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Short enough that nobody takes a client for hung once the daemon is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Tries until a daemon listens at `path` again. Whoever can't wait for ever puts a time-out around it.
pub async fn reconnect(path: &Path, lost: &ClientError) -> Client {
    note(format_args!("{lost}; waiting for it to come back"));
    let mut pause = FIRST_PAUSE;
    loop {
        // Every reason is tried again: between two daemons the socket is absent, then refuses, then may have
        // rights that are not set yet.
        sleep(pause).await;
        if let Ok(client) = Client::connect(path).await {
            note("connected again");
            return client;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
