//! What the HTTP clients of the API and of webhooks share: TLS, name lookups, `Retry-After`, and texts about failures.
//!
//! Promises that each text is one short line without control characters, that no text contains a URL, and that a wait which a
//! server asks for has bounds. Must not know polls or webhooks: what is sent, where to, and what follows from an answer.

pub mod failure;
pub mod resolve;
pub mod retry_after;
pub mod tls;

use std::time::Duration;

use hyper::StatusCode;

use crate::text::bounded;

/// The `User-Agent` of every request.
pub const USER_AGENT: &str = concat!("pinwatch/", env!("CARGO_PKG_VERSION"));

/// HTTP/2 uses one connection for all requests. If the other end vanishes silently, only a ping detects it.
pub const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(20);
pub const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest text about an answer or a failure, in characters.
pub const MAX_TEXT: usize = 512;

/// Which connection a request goes out on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// One that earlier requests left open, if there is one.
    Kept,
    /// A new one, which no other request uses: an answer on it can only be the answer to this request.
    New,
}

/// `404 Not Found`; for a code that has no name, `599`.
pub fn named(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_str()),
        None => status.as_str().to_owned(),
    }
}

/// The text in one line of at most [`MAX_TEXT`] characters.
pub fn harmless(text: &str) -> String {
    bounded(text, MAX_TEXT)
}
