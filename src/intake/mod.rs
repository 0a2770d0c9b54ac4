//! The local socket: accepts connections and answers their requests.
//!
//! Promises an answer to every line, in order, and that no client slows or starves another: connections, lines, depths
//! and unread answers are bounded. Reads requests and writes answers, which are those of [`protocol`]; `operations/` makes
//! the answers.

mod connection;
mod lines;
mod outgoing;
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
use outgoing::SharedRoom;

/// Connections that are left to root and the daemon's own user; of few, a quarter. So an administrator's command gets in,
/// whatever others do.
const RESERVED: usize = 8;

/// How long a connection must have been idle to give its place to a new one when there is none left.
const GIVES_WAY_AFTER: Duration = Duration::from_secs(60);

/// How long a client may take to read that there is no place for it.
const REFUSAL_PATIENCE: Duration = Duration::from_millis(100);

/// Places for so many connections at once.
pub fn places(max_connections: usize) -> Places {
    Places::new(Rules {
        all: max_connections,
        share: max_connections - max_connections / 4,
        reserved: RESERVED.min(max_connections / 4),
        idle: GIVES_WAY_AFTER,
    })
}

/// Serves connections until `services.stop`, then until each has its last answer. Owns every connection's task.
pub async fn serve(mut socket: Socket, services: Services) {
    let room = SharedRoom::default();
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
        let (services, room) = (services.clone(), room.clone());
        connections.spawn(async move { connection::serve(stream, &services, room, place).await });
    }
    drop(socket);
    while let Some(ended) = connections.join_next().await {
        log_if_broken(ended);
    }
}

/// Who connects: root and the daemon's own user are administrators. Where the kernel does not say, it is nobody.
fn user(stream: &UnixStream) -> User {
    match stream.peer_cred().map(|peer| peer.uid()) {
        Ok(user) if user == 0 || user == rustix::process::geteuid().as_raw() => User::Administrator,
        Ok(user) => User::Other(user.into()),
        Err(_) => User::Other(u32::MAX.into()),
    }
}

/// Refuses one client too many. The buffer of a new connection has room for a line, so this never waits for the client.
async fn refuse(mut stream: UnixStream, full: Full) {
    let message = format!("{full} (intake.max_connections): close one, or try again");
    let line = protocol::refused(&Code::AtCapacity.because(message));
    let _ = tokio::time::timeout(REFUSAL_PATIENCE, stream.write_all(line.as_bytes())).await;
}

fn log_if_broken(ended: Result<(), tokio::task::JoinError>) {
    if let Err(failure) = ended {
        error!(%failure, "a connection broke off; this is a bug. Only its client is affected");
    }
}
