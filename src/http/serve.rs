//! Serves HTTP connections and limits their number, duration and size.
//!
//! Promises that a new connection is served however many others are idle or slow: the one that has waited longest for its
//! client is closed for it. A connection carries one request and its answer, within one time limit. Knows nothing about
//! the answers.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::accepting::Accepting;
use crate::places::{Place, Places, Rules, User};

/// Concurrent connections. One more replaces the one that has waited longest for its client.
const MAX_CONNECTIONS: usize = 32;

/// How long a connection may wait for its client before a new one can replace it.
const UNDISTURBED: Duration = Duration::from_millis(100);

/// How soon a new connection asks again for a place while all others are being answered.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// From accepting a connection to the last byte of its request line and headers.
const HEAD_LIMIT: Duration = Duration::from_secs(5);

/// From accepting a connection to the last byte of its answer. Longer than any part of the daemon may take to answer.
const LIMIT: Duration = Duration::from_secs(15);

/// The limit for request line and headers, in bytes. hyper's minimum is 8 KiB.
const MAX_HEAD: usize = 16 * 1024;

/// How long answers under way may still take during a stop.
const GRACE: Duration = Duration::from_millis(500);

/// Serves connections until `stop`, and owns their tasks.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let places =
        Places::new(Rules { all: MAX_CONNECTIONS, share: MAX_CONNECTIONS, reserved: 0, idle: UNDISTURBED });
    let mut accepting = Accepting::new("http.listen");
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => log_if_broken(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let Some(place) = stop.run_until_cancelled(place(&places)).await else { break };
                    connections.spawn(connection(stream, router.clone(), place));
                }
                Err(error) => accepting.failed(&error).await,
            },
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(GRACE, ended).await.is_err() {
        connections.shutdown().await;
    }
}

/// Waits for a place. If all are taken, waits until a connection has ended or can be replaced.
async fn place(places: &Places) -> Place {
    loop {
        // Over HTTP all users are alike.
        match places.take(User::Other(0)) {
            Ok(place) => return place,
            Err(_) => sleep(ASK_AGAIN).await,
        }
    }
}

/// Serves one request.
async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    place: Place,
) {
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().keep_alive(false).max_buf_size(MAX_HEAD);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT);
    let place = Arc::new(place);
    let of_answer = place.clone();
    // While the daemon prepares an answer, the connection is not waiting for its client.
    let answering = from_fn(move |request: Request, next: Next| {
        let place = of_answer.clone();
        async move {
            place.now_busy();
            let answer = next.run(request).await;
            place.now_idle();
            answer
        }
    });
    let service = TowerToHyperService::new(router.layer(answering));
    // Any error is the client's: it left, was too slow, or did not speak HTTP.
    let served = timeout(LIMIT, builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = served => {}
        () = place.gives_way() => {}
    }
}

fn log_if_broken(ended: Result<(), JoinError>) {
    if let Err(failure) = ended {
        error!(%failure, "an HTTP connection failed; this is a bug. Only its client is affected");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::*;

    fn router() -> Router {
        Router::new().route("/", get(async || "x".repeat(1 << 20)))
    }

    fn places() -> Places {
        Places::new(Rules { all: 1, share: 1, reserved: 0, idle: UNDISTURBED })
    }

    /// Serves a client over a pipe with a buffer of `bytes`; the future returns how long that took.
    fn served(bytes: usize) -> (DuplexStream, impl Future<Output = Duration>) {
        let (client, server) = duplex(bytes);
        let begun = Instant::now();
        let serving = tokio::spawn(async move {
            connection(server, router(), places().take(User::Other(0)).unwrap()).await;
            begun.elapsed()
        });
        (client, async { serving.await.unwrap() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_its_request_byte_by_byte_is_cut_off_in_time() {
        let (mut client, took) = served(64);
        let sending = tokio::spawn(async move {
            while client.write_all(b"G").await.is_ok() {
                sleep(Duration::from_millis(100)).await;
            }
        });
        assert_eq!(took.await.as_secs(), HEAD_LIMIT.as_secs());
        sending.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_its_answer_byte_by_byte_is_cut_off_in_time() {
        // A small buffer, so that the answer waits for its reader.
        let (mut client, took) = served(64);
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut byte = [0];
        while client.read(&mut byte).await.is_ok_and(|count| count > 0) {
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(took.await.as_secs(), LIMIT.as_secs());
    }

    #[tokio::test]
    async fn a_connection_carries_one_request() {
        let (mut client, took) = served(1 << 16);
        client.write_all(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        took.await;
        assert_eq!(String::from_utf8(answer).unwrap().matches("HTTP/1.1 200").count(), 1);
    }

    #[tokio::test]
    async fn a_new_connection_replaces_a_slow_client_and_waits_for_those_being_answered() {
        let places = places();
        let slow = place(&places).await;
        // Replaces the slow one as soon as that is allowed.
        let answered = place(&places).await;
        assert!(slow.gives_way().now_or_never().is_some());
        answered.now_busy();
        tokio::time::pause();
        assert!(timeout(LIMIT, place(&places)).await.is_err(), "an answer is not broken off for another");
        answered.now_idle();
        place(&places).await;
        assert!(answered.gives_way().now_or_never().is_some());
    }
}
