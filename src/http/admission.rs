//! Limits how many requests are answered at once, in total and per peer.
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
pub const MAX_API_REQUESTS: usize = 384;

/// Admits requests, or makes the answer that says "later".
#[derive(Debug, Clone)]
pub struct Admission {
    places: Places,
    /// The share of loopback: a proxy on this machine carries the requests of all clients.
    share_of_loopback: usize,
    refusal: fn(Full) -> Response,
}

impl Admission {
    /// Admits `all` requests at once, of which one peer may have a third. `refusal` makes the answer for a request that was
    /// not admitted: 503 with Retry-After.
    pub fn new(all: usize, refusal: fn(Full) -> Response) -> Self {
        // Requests are never idle, so none gives way to another.
        let rules = Rules { all, share: all.div_ceil(3), reserved: 0, idle: Duration::MAX };
        Self { places: Places::new(rules), share_of_loopback: all - all / 8, refusal }
    }

    /// The middleware: `from_fn_with_state(admission, Admission::admit)`.
    pub async fn admit(
        State(admission): State<Self>,
        ConnectInfo(peer): ConnectInfo<SocketAddr>,
        request: Request,
        next: Next,
    ) -> Response {
        let user = peer::user(peer.ip());
        let taken = match peer::is_loopback(peer.ip()) {
            true => admission.places.take_of(user, admission.share_of_loopback),
            false => admission.places.take(user),
        };
        match taken {
            Ok(place) => {
                place.now_busy();
                next.run(request).await.map(|body| Body::new(Holding::new(body, place)))
            }
            Err(full) => (admission.refusal)(full),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::middleware::from_fn_with_state;
    use axum::response::IntoResponse;
    use axum::routing::get;
    use http_body_util::BodyExt;
    use tower_service::Service;

    use super::*;

    #[tokio::test]
    async fn a_peer_may_have_only_its_share_of_answers_and_each_counts_until_it_is_read() {
        let admission = Admission::new(6, |_| StatusCode::SERVICE_UNAVAILABLE.into_response());
        let router = Router::new()
            .route("/", get(async || "answer"))
            .layer(from_fn_with_state(admission.clone(), Admission::admit));
        let ask = |peer: &str| {
            let (mut router, peer): (_, SocketAddr) = (router.clone(), format!("{peer}:1").parse().unwrap());
            async move {
                let mut request = Request::new(Body::empty());
                request.extensions_mut().insert(ConnectInfo(peer));
                router.call(request).await.unwrap()
            }
        };
        let first = ask("192.0.2.1").await;
        let second = ask("192.0.2.1").await;
        assert_eq!((first.status(), second.status()), (StatusCode::OK, StatusCode::OK));
        assert_eq!(ask("192.0.2.1").await.status(), StatusCode::SERVICE_UNAVAILABLE);
        let others =
            [ask("192.0.2.2").await, ask("127.0.0.1").await, ask("127.0.0.1").await, ask("127.0.0.1").await];
        assert!(others.iter().all(|answer| answer.status() == StatusCode::OK));
        assert_eq!(ask("192.0.2.3").await.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(first.into_body().collect().await.unwrap().to_bytes(), "answer");
        assert_eq!(ask("192.0.2.1").await.status(), StatusCode::OK);
        drop((second, others));
        assert_eq!(admission.places.count(), 0);
    }
}
