//! Counts the requests that a simulator received and the answers that it sent.
//!
//! Must not know why an answer was chosen.

use std::fmt;

use axum::http::StatusCode;

/// One reading. `requests` is the sum of `ok`, `client_errors`, `server_errors`, `spoiled` and the requests in
/// progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests received.
    pub requests: u64,
    /// PIN IDs that were requested and are remembered.
    pub pins: u64,
    /// Correct answers: 200, in the API's format.
    pub ok: u64,
    /// Answers with status 400 to 499, whether the client caused them or a fault was requested.
    pub client_errors: u64,
    /// Of those, the requests without a correct key.
    pub bad_keys: u64,
    /// Of those, 404.
    pub not_found: u64,
    /// Of those, 429.
    pub throttled: u64,
    /// Answers of 500 to 599.
    pub server_errors: u64,
    /// Faults other than an error status: invalid bodies, closed connections, stalls.
    pub spoiled: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests for {} PINs: {} ok, {} client errors ({} bad keys, {} not found, {} throttled), \
             {} server errors, {} spoiled",
            self.requests,
            self.pins,
            self.ok,
            self.client_errors,
            self.bad_keys,
            self.not_found,
            self.throttled,
            self.server_errors,
            self.spoiled
        )
    }
}

impl Counts {
    /// Counts an answer by its status.
    pub(super) fn answered(&mut self, status: StatusCode) {
        match status.as_u16() {
            500.. => self.server_errors += 1,
            400.. => self.client_errors += 1,
            _ => self.ok += 1,
        }
        match status {
            StatusCode::NOT_FOUND => self.not_found += 1,
            StatusCode::TOO_MANY_REQUESTS => self.throttled += 1,
            _ => {}
        }
    }
}
