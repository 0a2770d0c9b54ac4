//! Removes outcomes that every sink has and that are past `store.retention`, by the time that really elapsed.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::store::Writer;

/// How often outcomes that are past `store.retention` are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// Removes outcomes past their retention, until the stop.
pub async fn prune(writer: Writer, clock: Clock, retention: Duration, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(PRUNE_EVERY)).await.is_some() {
        let before = clock.steady().before(retention);
        loop {
            match writer.prune(before).await {
                Ok(0) => break,
                Ok(_) if !stop.is_cancelled() => {}
                // The writer says what is wrong with the store; old outcomes can wait.
                Ok(_) | Err(_) => break,
            }
        }
    }
}
