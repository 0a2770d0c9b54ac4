//! The local socket: who connects, what they ask, what they are told.
//!
//! Promises an answer to every line, in order, and that nothing a client does hurts another: connections,
//! lines, depths and unread answers are bounded. Knows the store's and the schedule's questions, not their
//! insides. `docs/protocol.md` is this for people.

mod answer;
mod connection;
mod elsewhere;
mod lines;
mod outgoing;
mod request;
mod socket;
mod tail;
mod upkeep;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

pub use lines::MAX_LINE;
pub use request::{Code, Request, parse};
pub use socket::{Passed, Socket, SocketError, SocketTrouble};

use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::schedule::Schedule;
use crate::sinks::Health;
use crate::store::{Store, Writer};
use outgoing::SharedRoom;

/// How long `accept` rests when the process has no file descriptor left.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What answers the questions.
#[derive(Clone)]
pub struct Services {
    pub schedule: Schedule,
    pub store: Store,
    pub writer: Writer,
    /// The other nodes, where the store is one that nodes can share.
    pub cluster: Option<Cluster>,
    pub clock: Clock,
    /// `schedule.deadline`, which a reload can change.
    pub deadline: watch::Receiver<Duration>,
    pub health: Health,
    /// Why clients don't reach the socket, if they don't.
    pub socket: watch::Receiver<Option<SocketTrouble>>,
    pub stop: CancellationToken,
    /// Connections that are open, for `stats`.
    pub connections: Arc<AtomicUsize>,
}

/// Serves connections until `services.stop`, then until each had its last answer. Owns every connection's
/// task.
pub async fn serve(mut socket: Socket, max_connections: usize, services: Services) {
    let permits = Arc::new(Semaphore::new(max_connections));
    let room = SharedRoom::default();
    let mut connections = JoinSet::new();
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
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_REST).await;
                    continue;
                }
            },
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            refuse(stream, max_connections).await;
            continue;
        };
        let (services, room) = (services.clone(), room.clone());
        connections.spawn(async move {
            services.connections.fetch_add(1, Ordering::Relaxed);
            connection::serve(stream, &services, room).await;
            services.connections.fetch_sub(1, Ordering::Relaxed);
            drop(permit);
        });
    }
    drop(socket);
    while let Some(ended) = connections.join_next().await {
        log_if_broken(ended);
    }
}

/// Tells one client too many so. A fresh connection has room for a line: this never waits for the client.
async fn refuse(mut stream: UnixStream, max_connections: usize) {
    let refusal = Code::AtCapacity.because(format!(
        "{max_connections} connections are open already (intake.max_connections): close one, or try again"
    ));
    let line = answer::refused(&refusal);
    let _ = tokio::time::timeout(ACCEPT_REST, stream.write_all(line.as_bytes())).await;
}

fn log_if_broken(ended: Result<(), tokio::task::JoinError>) {
    if let Err(failure) = ended {
        error!(%failure, "a connection broke off; this is a bug. Only its client is affected");
    }
}
