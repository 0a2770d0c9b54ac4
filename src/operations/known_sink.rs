//! Refuses a sink that does not exist, and names those that do.

use super::failure::Failure;
use crate::protocol::Code;
use crate::services::Services;

/// # Errors
/// No sink of this name has a cursor. One that is no longer configured may still have one.
pub async fn check_known(services: &Services, sink: &str) -> Result<(), Failure> {
    let cursors = services.store.cursors().await?;
    if cursors.iter().any(|(name, _)| name == sink) {
        return Ok(());
    }
    let names: Vec<_> = cursors.into_iter().map(|(name, _)| name).collect();
    let sink: String = sink.chars().take(64).collect();
    let message = format!("there is no sink {sink:?}; there are: {}", names.join(", "));
    Err(Code::NotFound.because(message).into())
}
