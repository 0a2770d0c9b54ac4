//! What an answer means: the table "What an answer means" of the contract, as one pure function.
//!
//! Knows status codes, headers and bodies; not the network, the clock, or what the schedule makes of it.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{DATE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{StatusCode, Url};

use super::answer;
use super::error_text::{error_text, harmless, named, said};
use super::retry_after::{http_date, retry_after};
use crate::outcome::Delivery;

/// What one poll told, whatever the API, a proxy or the network did. The texts are one short line each,
/// without control characters and without secrets.
#[derive(Debug, Clone, PartialEq)]
pub enum Meaning {
    /// 200 and understood. May be empty: nothing is known yet.
    Deliveries(Vec<Delivery>),
    /// 200, but not to be understood, too large or cut off: says what was wrong. So is any other success: it
    /// has no deliveries that could be trusted.
    Unreadable(String),
    /// 400 and other 4xx: the API refuses this PIN; says what the API said.
    Rejected(String),
    /// 401, 403: the credentials are wrong, not the PIN.
    Unauthorized(u16),
    /// 404
    NotFound,
    /// 429: not before this long from now; a second to an hour.
    Throttled(Duration),
    /// 408, 425, 5xx, connect, TLS, DNS, time-out: says which. So are redirects, which are not followed, and
    /// 407, which a proxy says: neither is the PIN's fault.
    Unavailable(String),
}

impl Meaning {
    /// The meaning of an answer. `body` is the whole decompressed body, or what went wrong while it was read;
    /// `now` is the wall time, for a `Retry-After` that is a date.
    ///
    /// A status code that says enough by itself means the same with a body that could not be read.
    pub fn of(status: StatusCode, headers: &HeaderMap, body: Result<&[u8], &str>, now: Timestamp) -> Self {
        let text = || error_text(status, body.unwrap_or_default());
        match status.as_u16() {
            200 => match body {
                Ok(body) => deliveries(body),
                Err(fault) => Self::Unreadable(harmless(fault)),
            },
            100..=299 => Self::Unreadable(format!("{} where 200 was due", named(status))),
            300..=399 => Self::Unavailable(redirect(status, headers)),
            401 | 403 => Self::Unauthorized(status.as_u16()),
            404 => Self::NotFound,
            429 => Self::Throttled(throttled(headers, now)),
            407 | 408 | 425 => Self::Unavailable(text()),
            400..=499 => Self::Rejected(text()),
            _ => Self::Unavailable(text()),
        }
    }
}

fn deliveries(body: &[u8]) -> Meaning {
    match answer::deliveries(body) {
        Ok(deliveries) => Meaning::Deliveries(deliveries),
        Err(fault) => Meaning::Unreadable(match said(body) {
            // Some gateways say 200 and put the error into the body: then that is what is worth reading.
            Some(said) => harmless(&format!("{fault}; it says: {said}")),
            None => fault,
        }),
    }
}

/// The wait of a 429. A date is read by the server's own clock where it tells it: ours may be wrong, and the
/// difference between the two headers is not.
fn throttled(headers: &HeaderMap, now: Timestamp) -> Duration {
    let now = headers.get(DATE).and_then(|date| http_date(date.as_bytes())).unwrap_or(now);
    retry_after(headers.get(RETRY_AFTER).map(|value| value.as_bytes()), now)
}

/// `302 Found: redirects are not followed (to https://login.example)`: of the target only scheme, host and
/// port, for the rest may hold tokens.
fn redirect(status: StatusCode, headers: &HeaderMap) -> String {
    let target = headers
        .get(LOCATION)
        .and_then(|location| location.to_str().ok())
        .and_then(|location| Url::parse(location).ok())
        .filter(Url::has_host)
        .map(|target| format!(" (to {})", target.origin().ascii_serialization()))
        .unwrap_or_default();
    harmless(&format!("{}: redirects are not followed{target}", named(status)))
}
