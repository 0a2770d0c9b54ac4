//! The connections: how many, how long, how much they may send.
//!
//! A connection is one request and its answer, and all of it has one time limit: whoever dawdles, before the
//! answer or while it is sent, is cut. Knows nothing of what is answered.

use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

/// Connections at once; more wait until one ends.
const MAX_CONNECTIONS: usize = 32;

/// From accepting a connection to the last byte of its answer. More than the parts of the daemon may take to
/// answer.
const LIMIT: Duration = Duration::from_secs(20);

/// Request line and headers, in bytes; hyper takes no less than 8 KiB.
const MAX_HEAD: usize = 16 * 1024;

/// How long answers that are under way may take at a stop.
const GRACE: Duration = Duration::from_millis(500);

/// How long `accept` rests when the process has no file descriptor left.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Serves connections until `stop`, and owns their tasks.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => log_if_broken(ended),
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, router.clone()));
                }
                Err(error) => {
                    warn!(%error, "an HTTP connection could not be accepted");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            },
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(GRACE, ended).await.is_err() {
        connections.shutdown().await;
    }
}

/// Serves one request.
async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().keep_alive(false).max_buf_size(MAX_HEAD);
    let service = TowerToHyperService::new(router);
    // An error is the client's: it left, or spoke something else than HTTP. Late or not, it is over.
    let _ = timeout(LIMIT, builder.serve_connection(TokioIo::new(stream), service)).await;
}

fn log_if_broken(ended: Result<(), JoinError>) {
    if let Err(failure) = ended {
        error!(%failure, "an HTTP connection broke off; this is a bug. Only its client is affected");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::{Instant, sleep};

    use super::*;

    fn router() -> Router {
        Router::new().route("/", get(async || "x".repeat(1 << 20)))
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_or_reads_byte_by_byte_is_cut_when_the_time_is_over() {
        // Small, so that the answer waits for its reader.
        let (mut client, server) = duplex(64);
        let begun = Instant::now();
        let served = tokio::spawn(async move {
            connection(server, router()).await;
            begun.elapsed()
        });
        for byte in b"GET / HTTP/1.1\r\n" {
            client.write_all(&[*byte]).await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
        client.write_all(b"\r\n").await.unwrap();
        let mut byte = [0];
        while client.read(&mut byte).await.is_ok_and(|count| count > 0) {
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(served.await.unwrap().as_secs(), LIMIT.as_secs());
    }

    #[tokio::test]
    async fn a_connection_is_one_request() {
        let (mut client, server) = duplex(1 << 16);
        let served = tokio::spawn(connection(server, router()));
        client.write_all(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        served.await.unwrap();
        assert_eq!(String::from_utf8(answer).unwrap().matches("HTTP/1.1 200").count(), 1);
    }
}
