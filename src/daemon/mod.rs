//! STUB of branch `cmd`, replaced by the lead's daemon at the merge. `commands::run` calls nothing else of it.

use crate::config::Config;

/// Why the daemon did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("this build has no daemon yet")]
    Missing,
}

/// Runs the daemon until it is told to stop.
pub async fn run(config: Config) -> Result<(), DaemonError> {
    let _ = config;
    Err(DaemonError::Missing)
}
