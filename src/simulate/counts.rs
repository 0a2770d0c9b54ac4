//! What a simulator has seen and answered, counted.
//!
//! The counters are apart from each other: while requests come in, a reading may be off by those in progress.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use axum::http::StatusCode;

/// One reading. `requests` is the sum of `ok`, `client_errors`, `server_errors`, `spoiled` and the requests in
/// progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that came in.
    pub requests: u64,
    /// PIN IDs that were asked for and are remembered.
    pub pins: u64,
    /// Right answers: 200, in the API's form.
    pub ok: u64,
    /// Answers of 400 to 499, whoever was to blame.
    pub client_errors: u64,
    /// Of those, for want of the right key.
    pub bad_keys: u64,
    /// Of those, 404.
    pub not_found: u64,
    /// Of those, 429.
    pub throttled: u64,
    /// Answers of 500 to 599.
    pub server_errors: u64,
    /// Faults other than an error by its status: bodies that are none, closed connections, stalls.
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

/// The counters behind [`Counts`].
#[derive(Debug, Default)]
pub struct Counters {
    requests: AtomicU64,
    pins: AtomicU64,
    ok: AtomicU64,
    client_errors: AtomicU64,
    bad_keys: AtomicU64,
    not_found: AtomicU64,
    throttled: AtomicU64,
    server_errors: AtomicU64,
    spoiled: AtomicU64,
}

impl Counters {
    /// Counts a request and gives its number, from 0.
    pub fn next_request(&self) -> u64 {
        self.requests.fetch_add(1, Relaxed)
    }

    pub fn new_pin(&self) {
        self.pins.fetch_add(1, Relaxed);
    }

    pub fn bad_key(&self) {
        self.bad_keys.fetch_add(1, Relaxed);
    }

    pub fn spoiled(&self) {
        self.spoiled.fetch_add(1, Relaxed);
    }

    /// Counts an answer by its status.
    pub fn answered(&self, status: StatusCode) {
        let class = if status.is_server_error() {
            &self.server_errors
        } else if status.is_client_error() {
            &self.client_errors
        } else {
            &self.ok
        };
        class.fetch_add(1, Relaxed);
        match status {
            StatusCode::NOT_FOUND => self.not_found.fetch_add(1, Relaxed),
            StatusCode::TOO_MANY_REQUESTS => self.throttled.fetch_add(1, Relaxed),
            _ => 0,
        };
    }

    pub fn read(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        Counts {
            requests: read(&self.requests),
            pins: read(&self.pins),
            ok: read(&self.ok),
            client_errors: read(&self.client_errors),
            bad_keys: read(&self.bad_keys),
            not_found: read(&self.not_found),
            throttled: read(&self.throttled),
            server_errors: read(&self.server_errors),
            spoiled: read(&self.spoiled),
        }
    }
}
