//! Records whether the API's host, or a proxy in front of it, sends answers that belong to no request.
//!
//! On a kept HTTP/1 connection such a stray answer may arrive just after the next request, and can't be distinguished from the
//! right one. Promises that once one was seen, each HTTP/1 connection to the host carries one request only, for an hour. Must not
//! know requests.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

/// How long a host's connections are not reused after the last stray answer.
pub const DISTRUST: Duration = Duration::from_secs(60 * 60);

/// The last stray answers, if any came within [`DISTRUST`].
#[derive(Debug, Default)]
pub(super) struct Strays(Mutex<Option<Stray>>);

/// Stray answers came from `since` on, the last one at `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stray {
    pub since: Instant,
    pub last: Instant,
}

impl Stray {
    /// How long connections will still not be reused.
    pub fn left(&self) -> Duration {
        DISTRUST.saturating_sub(self.last.elapsed())
    }
}

impl Strays {
    /// The stray answers that still count.
    pub fn recent(&self) -> Option<Stray> {
        // Each write is complete in itself, so a panic elsewhere leaves no partial state.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).filter(|stray| !stray.left().is_zero())
    }

    /// Records one more. Logs once for all that come within an hour of each other.
    pub fn note(&self) {
        let now = Instant::now();
        let since = self.recent().map(|stray| stray.since);
        let stray = Stray { since: since.unwrap_or(now), last: now };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(stray);
        if since.is_none() {
            warn!(
                "the API, or a proxy before it, sent an answer that nobody asked for; for an hour no HTTP/1 connection is \
                 reused, so that it can't be taken for the answer about another PIN. Look for what sends it: {ADVICE}"
            );
        }
    }
}

/// Advice for the operator about stray answers.
pub const ADVICE: &str =
    "most likely it is a proxy or load balancer in front of the API; HTTP/2 does not have this problem";
