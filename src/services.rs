//! Handles to the parts of the daemon, for the code that answers requests (`operations/`, `http/`).
//!
//! Holds handles only. Must not know how a request is answered.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::outgoing::SharedRoom;
use crate::places::Places;
use crate::poll;
use crate::schedule::Schedule;
use crate::sinks::Health;
use crate::store::{FailedCounts, Store, Writer};
use crate::trouble::Trouble;

/// Cheap to clone.
#[derive(Clone)]
pub struct Services {
    pub schedule: Schedule,
    pub store: Store,
    pub writer: Writer,
    /// The other nodes; `None` unless several nodes can share the store.
    pub cluster: Option<Cluster>,
    pub clock: Clock,
    /// `schedule.deadline`, which a reload can change.
    pub deadline: watch::Receiver<Duration>,
    pub health: Health,
    /// The client that polls the API.
    pub api: poll::Client,
    /// Why clients can't reach the socket; `None` if they can.
    pub socket: watch::Receiver<Option<Trouble>>,
    pub stop: CancellationToken,
    pub failed_counts: FailedCounts,
    /// `intake.max_in_flight`.
    pub max_in_flight: usize,
    /// The open connections to the socket.
    pub places: Places,
    /// Room for small answers that wait to be read, of all connections.
    pub room: SharedRoom,
}
