//! One connection: its TLS handshake, and its requests over HTTP/1.1 or HTTP/2.
//!
//! Promises that it ends as soon as its client makes no progress: slow handshake, slow head, no further request, an answer that
//! is not read. A request that is being answered is never cut off for another connection. Requests reach the router with the peer
//! (`ConnectInfo<SocketAddr>`), and only if they are meant for this daemon. Must not know the routes.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::activity::{Activity, HEAD_LIMIT, Holding, IDLE_LIMIT, Noted, Sending};
use super::host::Hosts;
use super::pace::Pace;
use super::tasks::Tasks;
use super::tls::Tls;
use crate::places::Place;

/// The limit for request line and headers, in bytes; for HTTP/2 unpacked. hyper's minimum is 8 KiB.
const MAX_HEAD: usize = 16 * 1024;

/// HTTP/2: requests of one connection at once. The usual number, which RFC 9113 gives as the least.
const MAX_STREAMS: u32 = 100;

/// HTTP/2: how much of a request's body may come before the handler has read it, in bytes.
const STREAM_WINDOW: u32 = 128 * 1024;

/// HTTP/2: the same for all requests of a connection together. It bounds the memory of one.
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// HTTP/2: how much of an answer may wait to be sent when its next piece is asked for, in bytes; one frame. Requests whose
/// answers nobody reads then count as being answered.
const STREAM_BUFFER: usize = 16 * 1024;

/// HTTP/2: the largest frame, in bytes. It is the protocol's least, and bounds with [`MAX_HEAD`] how many frames a head may have.
const MAX_FRAME: u32 = 16 * 1024;

/// HTTP/2: the most requests that the client may cancel before the daemon begins with them. One more ends the connection, because
/// asking and cancelling at once costs a client less than the daemon.
const MAX_CANCELLED: usize = 20;

/// HTTP/2: the most requests that the daemon refuses because they break the protocol. One more ends the connection.
const MAX_BROKEN: usize = 100;

/// HTTP/2: the interval of pings that check whether the client is still there; it must answer within the same time.
const PING_EVERY: Duration = Duration::from_secs(20);

/// What all connections have in common.
#[derive(Clone)]
pub struct Front {
    pub router: Router,
    /// `None` is plain HTTP.
    pub tls: Option<Arc<Tls>>,
    pub hosts: Hosts,
    /// Of requests over HTTP/2.
    pub tasks: Tasks,
}

/// Serves a connection until it ends, its place is taken, or the daemon stops.
pub async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    place: Place,
    front: Arc<Front>,
    stop: CancellationToken,
) {
    let local = stream.local_addr().ok().map(|local| local.ip());
    let activity = Activity::new(place);
    let Some(tls) = &front.tls else {
        return talk(Pace::new(stream), peer, local, activity, &front, stop).await;
    };
    let encrypted = tokio::select! {
        encrypted = tls.accept(stream, peer) => encrypted,
        () = activity.evicted() => None,
        () = stop.cancelled() => None,
    };
    if let Some(encrypted) = encrypted {
        activity.is_open();
        talk(encrypted, peer, local, activity, &front, stop).await;
    }
}

/// Answers requests.
async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    local: Option<IpAddr>,
    activity: Arc<Activity>,
    front: &Front,
    stop: CancellationToken,
) {
    let service = service_fn(|mut request: Request<Incoming>| {
        let answering = activity.begins(request.version());
        let refusal = front.hosts.refusal(&request, local);
        request.extensions_mut().insert(ConnectInfo(peer));
        let request = request.map(|body| Sending::new(body, &answering));
        let mut router = front.router.clone();
        async move {
            let answer = match refusal {
                Some(refusal) => refusal,
                None => router.call(request).await?,
            };
            let answer: Response<Holding<_>> = answer.map(|body: Body| Holding::new(body, answering));
            Ok::<_, Infallible>(answer)
        }
    });
    let builder = builder(front.tasks.clone());
    let stream = TokioIo::new(Noted::new(stream, activity.clone()));
    let mut served = pin!(builder.serve_connection(stream, service));
    let mut evicted = pin!(activity.evicted());
    let mut stopped = pin!(stop.cancelled());
    let mut is_stopping = false;
    let mut deadline = pin!(sleep_until(Instant::now() + HEAD_LIMIT));
    // All in one place, because the activity changes while the connection is polled.
    poll_fn(|context| {
        // Any error is the client's: it left, was too slow, or did not speak HTTP.
        if served.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        if !is_stopping && stopped.as_mut().poll(context).is_ready() {
            is_stopping = true;
            served.as_mut().graceful_shutdown();
            if served.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
        }
        let mut must_end = evicted.as_mut().poll(context).is_ready();
        while !must_end {
            match activity.deadline() {
                Some(at) if at <= Instant::now() => must_end = true,
                Some(at) if at != deadline.deadline() => deadline.as_mut().reset(at),
                // HTTP/2 ends requests in tasks of their own, and nobody need poll this one then.
                None if deadline.is_elapsed() => deadline.as_mut().reset(Instant::now() + IDLE_LIMIT),
                _ => {}
            }
            if deadline.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        // Tells a client that still reads that the connection ends.
        served.as_mut().graceful_shutdown();
        let _ = served.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
}

fn builder(tasks: Tasks) -> Builder<Tasks> {
    let mut builder = Builder::new(tasks);
    // `Activity` has the time limits of heads: hyper's begins with the end of the last answer.
    builder.http1().max_buf_size(MAX_HEAD).header_read_timeout(None);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .max_frame_size(MAX_FRAME)
        .max_pending_accept_reset_streams(MAX_CANCELLED)
        .max_local_error_reset_streams(MAX_BROKEN)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY);
    builder
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
