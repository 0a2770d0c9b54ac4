//! The reasons why a request gets no answer: the daemon refuses it, or its client is gone. Must not know the
//! operations.

use std::time::Duration;

use tokio::time::timeout;
use tracing::warn;

use crate::pin::PinId;
use crate::protocol::{Code, Refusal};
use crate::schedule::Stopping;
use crate::store::Unavailable;

/// How long the store may take to answer.
pub const STORE_TIMEOUT: Duration = Duration::from_secs(30);

pub enum Failure {
    Refused(Refusal),
    ClientGone,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Stopping> for Failure {
    fn from(_: Stopping) -> Self {
        Self::Refused(shutting_down())
    }
}

impl From<Unavailable> for Failure {
    fn from(unavailable: Unavailable) -> Self {
        warn!(error = %unavailable.0, "a request could not be answered from the store");
        Self::Refused(unavailable.into())
    }
}

impl From<Unavailable> for Refusal {
    fn from(unavailable: Unavailable) -> Self {
        Code::StoreUnavailable.because(format!("{unavailable}; try again later"))
    }
}

pub fn shutting_down() -> Refusal {
    Code::ShuttingDown.because("the daemon is stopping: try again when it is back")
}

/// Refuses because the PIN is neither in flight nor finished.
pub fn unknown(pin: &PinId) -> Refusal {
    Code::NotFound
        .because(format!("PIN {pin} was never submitted, or its outcome is older than store.retention"))
}

/// Refuses because a record in the store is not JSON.
pub fn unreadable(_: serde_json::Error) -> Refusal {
    Code::StoreUnavailable.because("the outcome in the store is not readable")
}

/// Returns the answer, or a refusal if the store takes longer than [`STORE_TIMEOUT`].
pub async fn in_time<A>(answer: impl Future<Output = Result<A, Failure>>) -> Result<A, Failure> {
    timeout(STORE_TIMEOUT, answer).await.unwrap_or_else(|_| {
        let seconds = STORE_TIMEOUT.as_secs();
        let message = format!("the store did not answer within {seconds} s; try again later");
        Err(Code::StoreUnavailable.because(message).into())
    })
}
