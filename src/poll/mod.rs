//! Asking the API about one PIN, and what its answer means.

use std::time::Duration;

use crate::outcome::Delivery;

/// What one poll told, whatever the API, a proxy or the network did.
#[derive(Debug, Clone, PartialEq)]
pub enum Meaning {
    /// 200 and understood. May be empty: nothing is known yet.
    Deliveries(Vec<Delivery>),
    /// 200, but not to be understood, too large or cut off: says what was wrong.
    Unreadable(String),
    /// 400 and other 4xx: the API refuses this PIN; says what the API said.
    Rejected(String),
    /// 401, 403: the credentials are wrong, not the PIN.
    Unauthorized(u16),
    /// 404
    NotFound,
    /// 429: not before this long from now.
    Throttled(Duration),
    /// 408, 425, 5xx, connect, TLS, DNS, time-out: says which.
    Unavailable(String),
}
