//! Counts the requests that a simulator received and the answers that it sent.
//!
//! Guarantees consistent readings: one lock covers all counts. Must not know why an answer was chosen.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

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

/// The counts so far.
#[derive(Debug, Default)]
pub struct Counters(Mutex<Counts>);

impl Counters {
    /// Counts a request and returns its number, counting from 0.
    pub fn next_request(&self) -> u64 {
        let mut counts = self.lock();
        counts.requests += 1;
        counts.requests - 1
    }

    pub fn new_pin(&self) {
        self.lock().pins += 1;
    }

    pub fn bad_key(&self) {
        self.lock().bad_keys += 1;
    }

    pub fn spoiled(&self) {
        self.lock().spoiled += 1;
    }

    /// Counts an answer by its status.
    pub fn answered(&self, status: StatusCode) {
        let mut counts = self.lock();
        if status.is_server_error() {
            counts.server_errors += 1;
        } else if status.is_client_error() {
            counts.client_errors += 1;
        } else {
            counts.ok += 1;
        }
        match status {
            StatusCode::NOT_FOUND => counts.not_found += 1,
            StatusCode::TOO_MANY_REQUESTS => counts.throttled += 1,
            _ => {}
        }
    }

    pub fn read(&self) -> Counts {
        *self.lock()
    }

    /// A panic never leaves a count half written, so a poisoned lock is still usable.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
