//! Limits how many requests are answered at once: in all, and of each peer.
//!
//! Promises that requests with this limit never fill all connections: there are fewer of them than connections, so that
//! those without it (`/metrics`, `/healthz`, `/readyz`) always find one. A request counts until its answer was taken. Must not
//! know what is asked.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::activity::Holding;
use super::peer;
use crate::places::{Full, Places, Rules};

/// Requests of `/v1` that are answered at once. Below `MAX_CONNECTIONS`, with room for all others.
pub const MAX_REQUESTS: usize = 384;

/// Of these, how many one peer may have. A long poll takes one for 30 s and more.
const SHARE: usize = 128;

/// Of these, how many loopback may have: a proxy on this machine has everybody's.
const SHARE_OF_LOOPBACK: usize = 320;

/// Admits requests, or has the answer made that says "later".
#[derive(Debug, Clone)]
pub struct Admission {
    places: Places,
    refusal: fn(Full) -> Response,
}

impl Admission {
    /// `refusal` makes the answer for a request that was not admitted: 503 with Retry-After.
    pub fn new(refusal: fn(Full) -> Response) -> Self {
        // Requests are never idle, so none gives way to another.
        let rules = Rules { all: MAX_REQUESTS, share: SHARE, reserved: 0, idle: Duration::MAX };
        Self { places: Places::new(rules), refusal }
    }

    /// The middleware: `from_fn_with_state(admission, Admission::admit)`.
    pub async fn admit(
        State(admission): State<Self>,
        ConnectInfo(peer): ConnectInfo<SocketAddr>,
        request: Request,
        next: Next,
    ) -> Response {
        let share = if peer::is_loopback(peer.ip()) { SHARE_OF_LOOPBACK } else { SHARE };
        match admission.places.take_of(peer::user(peer.ip()), share) {
            Ok(place) => {
                place.now_busy();
                next.run(request).await.map(|body| Body::new(Holding { body, held: place }))
            }
            Err(full) => (admission.refusal)(full),
        }
    }
}
