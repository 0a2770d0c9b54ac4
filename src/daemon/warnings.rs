//! The warnings that a start and a reload log although the configuration is valid. Must not change anything.

use tracing::warn;

use crate::config::{self, Problem};
use crate::store::{Store, Unavailable};

/// Warns of a secret that other users can read.
pub(super) fn warn_of_secret(warning: &Problem) {
    let Problem { key, origin, reason, .. } = warning;
    warn!(key, origin, "{reason}");
}

/// Warns of removed sinks. Their cursors remain, and keep all later outcomes from being pruned.
pub(super) async fn warn_of_unknown_sinks(store: &Store, sinks: &[config::Sink]) -> Result<(), Unavailable> {
    for (name, _) in store.cursors().await? {
        if !sinks.iter().any(|sink| sink.name == name) {
            warn!(
                sink = name,
                "this sink is no longer configured, but has a cursor: outcomes are kept for it until \
                 `pinwatch sinks forget` removes it"
            );
        }
    }
    Ok(())
}
