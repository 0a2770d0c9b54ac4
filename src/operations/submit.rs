//! Answers `submit`: stores PINs together. Must not know how they are polled.

use std::sync::Arc;

use tokio::time::timeout;

use super::failure::STORE_TIMEOUT;
use crate::protocol::submit::Request;
use crate::protocol::{Code, Refusal};
use crate::services::Services;
use crate::store::{NewPin, Submitted};

/// Stores PINs in one transaction. Returns the state of each, in the same order, after the commit: `Accepted` means
/// durable.
///
/// # Errors
/// The store can't be written, or does not answer in time. In the latter case it is unknown which PINs were accepted,
/// and the client must submit them again.
pub async fn submit(
    services: &Services,
    requests: Vec<Request>,
    submitter: Option<&Arc<str>>,
) -> Result<Vec<Submitted>, Refusal> {
    let now = services.clock.date();
    let new = requests.into_iter().map(|request| NewPin {
        submitted_at: now,
        // A deadline is at most a year away, so this saturates only at the end of the calendar.
        deadline_at: now
            .wall
            .saturating_add(request.deadline.unwrap_or(*services.deadline.borrow()))
            .unwrap_or(now.wall),
        pin: request.pin_id,
        reference: request.reference,
        metadata: request.metadata,
        submitter: submitter.cloned(),
        again: request.again,
    });
    match timeout(STORE_TIMEOUT, services.writer.submit(new.collect())).await {
        Ok(states) => Ok(states?),
        Err(_) => Err(Code::StoreUnavailable.because(
            "the store did not answer in time: whether the PIN was accepted is not known; submit it again",
        )),
    }
}
