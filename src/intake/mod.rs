//! The local socket: accepts connections and answers their requests.
//!
//! Guarantees an answer to every line while the connection lasts, in order, and that no client slows or starves another:
//! connections, lines, nesting and unread answers are bounded. Reads requests and writes answers, which are those of
//! [`protocol`]. Must not know how an answer is made: `operations/` does that.

mod connection;
mod socket;
mod tail;

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tracing::error;

pub use socket::{InheritedSocket, Socket, SocketError};

use crate::accepting::Accepting;
use crate::places::{Full, Places, Rules, User};
use crate::protocol::{self, Code};
use crate::services::Services;

/// Connections reserved for root and the daemon's own user, or a quarter of `intake.max_connections` if that is less.
/// An administrator's command thus gets a connection, whatever other users do.
const RESERVED: usize = 8;

/// How long a connection must have been idle before a new one may replace it when all places are taken.
const GIVES_WAY_AFTER: Duration = Duration::from_secs(60);

/// How long a client may take to read that no place is free.
const REFUSAL_TIMEOUT: Duration = Duration::from_millis(100);

/// Makes places for at most this many connections at once; one user gets at most three quarters of them.
pub fn places(max_connections: usize) -> Places {
    Places::new(Rules {
        all: max_connections,
        share: max_connections - max_connections / 4,
        reserved: RESERVED.min(max_connections / 4),
        idle: GIVES_WAY_AFTER,
    })
}

/// Serves connections until `services.stop`, then waits until each has sent its last answer. Owns every connection's
/// task.
pub async fn serve(mut socket: Socket, services: Services) {
    let mut connections = JoinSet::new();
    let mut accepting = Accepting::new("a client");
    loop {
        let stream = tokio::select! {
            biased;
            () = services.stop.cancelled() => break,
            Some(ended) = connections.join_next() => {
                log_if_broken(ended);
                continue;
            }
            accepted = socket.accept() => match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    accepting.failed(&error).await;
                    continue;
                }
            },
        };
        let place = match services.places.take(user(&stream)) {
            Ok(place) => place,
            Err(full) => {
                refuse(stream, full).await;
                continue;
            }
        };
        let services = services.clone();
        connections.spawn(async move { connection::serve(stream, &services, place).await });
    }
    drop(socket);
    while let Some(ended) = connections.join_next().await {
        log_if_broken(ended);
    }
}

/// Returns who connects. Root and the daemon's own user are administrators; a peer unknown to the kernel counts as
/// user `u32::MAX`.
fn user(stream: &UnixStream) -> User {
    match stream.peer_cred().map(|peer| peer.uid()) {
        Ok(user) if user == 0 || user == rustix::process::geteuid().as_raw() => User::Administrator,
        Ok(user) => User::Other(user.into()),
        Err(_) => User::Other(u32::MAX.into()),
    }
}

/// Refuses a client for which no place is free. A new connection's buffer has room for a line, so this does not wait
/// for the client.
async fn refuse(mut stream: UnixStream, full: Full) {
    let message = format!("{full} (intake.max_connections): close one, or try again");
    let line = protocol::refused(&Code::AtCapacity.because(message));
    let _ = tokio::time::timeout(REFUSAL_TIMEOUT, stream.write_all(line.as_bytes())).await;
}

fn log_if_broken(ended: Result<(), tokio::task::JoinError>) {
    if let Err(failure) = ended {
        error!(%failure, "a connection broke off; this is a bug. Only its client is affected");
    }
}
