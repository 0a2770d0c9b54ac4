//! Maintains kept outcomes: removes those that every sink has and that are older than `store.retention`, by elapsed time; after
//! an upgrade, indexes those of the older version.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::clock::Clock;
use crate::store::Writer;

/// How often to look for such outcomes.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// Removes outcomes past their retention, until the stop.
pub async fn prune(writer: Writer, clock: Clock, retention: Duration, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(PRUNE_EVERY)).await.is_some() {
        let before = clock.steady().before(retention);
        loop {
            match writer.prune(before).await {
                Ok(0) => break,
                Ok(_) if !stop.is_cancelled() => {}
                // The writer reports what is wrong with the store; old outcomes can wait.
                Ok(_) | Err(_) => break,
            }
        }
    }
}

/// The pause between two parts, in which others can use the writer.
const INDEX_PAUSE: Duration = Duration::from_millis(20);

/// Indexes by reference all outcomes that an older version wrote, then waits for the stop.
pub async fn index_older(writer: Writer, stop: CancellationToken) {
    loop {
        let pause = match writer.index_older().await {
            Ok(true) => INDEX_PAUSE,
            Ok(false) => break,
            Err(unavailable) => {
                warn!(%unavailable, "outcomes of an older version could not be indexed by their references; tried again in a minute");
                PRUNE_EVERY
            }
        };
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
    stop.cancelled().await;
}
