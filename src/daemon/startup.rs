//! Opens the store, and joins and leaves the cluster if nodes share the store.
//!
//! Promises that the lease is renewed from the registration until everything is written, however long the start and the
//! stop take. A store of this machine alone needs no lease.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{DaemonError, notify};
use crate::cluster::{self, Cluster, Hints, NodeId, State, Waiting};
use crate::config::{Config, StoreUrl};
use crate::schedule::{self, Schedule};
use crate::sinks::Health;
use crate::store::postgres::{self, Membership, NodeReport, Registration, Renewal};
use crate::store::{self, OpenError, Store, Writer, Writes};

/// How many lease times a start waits for an earlier process of its own name.
const LEASES: u32 = 3;

/// How long after the end of that lease the start tries again.
const AFTER_LEASE: Duration = Duration::from_millis(20);

/// An open store.
pub struct Opened {
    pub store: Store,
    pub connection: Box<dyn Writes>,
    pub kind: Kind,
}

/// Who uses the store.
pub enum Kind {
    /// This machine alone.
    Own,
    /// Several nodes.
    Shared(Box<Joining>),
}

/// A node that is registered and holds no slots yet.
pub struct Joining {
    membership: Membership,
    id: NodeId,
    registered: Instant,
    lease: Duration,
}

/// Opens the store. Loads all PINs in flight if the store is this machine's own. Registers this node if nodes share the
/// store; it has no PINs yet. Cancelling `leaving` skips the wait for an earlier lease.
pub async fn open(
    config: &Config,
    core: &mut schedule::Core,
    leaving: &CancellationToken,
) -> Result<Opened, DaemonError> {
    let (url, shown) = match &config.store.url {
        StoreUrl::Sqlite(path) => return load(core, path).await,
        StoreUrl::Postgres { url, shown } => (url, shown),
    };
    let lease = config.cluster.lease;
    let name = config.cluster.node.clone().unwrap_or_else(|| default_name(config));
    let mut membership = postgres::open(url, shown, name.clone(), lease, core.clock()).await?;
    let give_up = Instant::now() + LEASES * lease;
    let (id, registered) = loop {
        let asked = Instant::now();
        match membership.register().await? {
            Registration::As(id) => break (id, asked),
            Registration::Taken(left) if Instant::now() + left < give_up && !leaving.is_cancelled() => {
                notify::starting("starting: waiting for the lease of an earlier process of this name to end");
                leaving.run_until_cancelled(sleep(left + AFTER_LEASE)).await;
            }
            Registration::Taken(_) => return Err(DaemonError::NameTaken { name }),
        }
    };
    let (store, connection) = membership.store().await?;
    core.restore(&store.schedule().await?);
    core.hold_none();
    let joining = Joining { membership, id, registered, lease };
    Ok(Opened { store, connection, kind: Kind::Shared(Box::new(joining)) })
}

/// Opens this machine's own store, and loads every PIN in flight and the brake.
async fn load(core: &mut schedule::Core, path: &Path) -> Result<Opened, DaemonError> {
    let unloaded = store::open_sqlite(path, core.clock()).await?;
    core.reserve(unloaded.in_flight());
    notify::starting("starting: loading the PINs in flight");
    let mut resumed = core.resume_all();
    let (store, connection) = unloaded.load(|pin| resumed.resume(&pin)).await?;
    resumed.done();
    let damaged = |what| OpenError::Damaged { path: path.to_owned(), what };
    if core.in_flight() != connection.in_flight() {
        let what = format!(
            "the index has {} PINs in flight, the table has {}",
            core.in_flight(),
            connection.in_flight()
        );
        return Err(damaged(what).into());
    }
    core.restore(&store.schedule().await.map_err(|error| damaged(error.0.to_string()))?);
    Ok(Opened { store, connection, kind: Kind::Own })
}

/// Stays the same over restarts, and differs between two daemons on one machine.
fn default_name(config: &Config) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}:{}", config.intake.socket.display())
}

impl Joining {
    /// Runs a part of the start, and renews the lease meanwhile.
    pub async fn while_renewing<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut next = self.registered + self.lease / 3;
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = sleep_until(next) => {
                    let sent = Instant::now();
                    // If the lease was lost, the first look of the cluster task finds out.
                    if matches!(self.membership.renew(&NodeReport::default()).await, Ok(Renewal::Runs)) {
                        self.registered = sent;
                    }
                    next = sent + self.lease / 3;
                }
            }
        }
    }

    /// Starts the tasks that keep this node in the cluster.
    pub fn join(self, schedule: Schedule, writer: Writer, health: Health, stop: CancellationToken) -> Member {
        let Self { membership, id, registered, lease } = self;
        let questions = membership.questions();
        let hints = Hints::default();
        let (state, seen) = watch::channel(State { id, ..State::default() });
        let (outcomes, hinted) = watch::channel(0);
        let (cluster, waiting) = Cluster::new(Arc::new(questions.clone()), seen, hinted);
        let leave = CancellationToken::new();
        let mut parts = JoinSet::new();
        let listening = cluster::postgres::listen(questions.clone(), hints.clone(), outcomes);
        let left = leave.clone();
        parts.spawn(async move {
            left.run_until_cancelled(listening).await;
            "listener of the cluster"
        });
        let registry = cluster::postgres::Postgres { membership, questions, writer, health, lease };
        let task = cluster::Task { registry, schedule, lease, hints, state, stop, finish: leave.clone() };
        parts.spawn(async move {
            task.run(id, registered).await;
            "membership of the cluster"
        });
        Member { cluster, waiting: Some(waiting), leave, parts }
    }
}

/// A node in the cluster.
pub struct Member {
    pub cluster: Cluster,
    /// Must run for as long as clients are served.
    pub waiting: Option<Waiting>,
    leave: CancellationToken,
    parts: JoinSet<&'static str>,
}

impl Member {
    /// Waits until the PINs of the first slots are loaded.
    pub async fn is_ready(&mut self) -> Result<(), DaemonError> {
        let mut state = self.cluster.state.clone();
        tokio::select! {
            ready = state.wait_for(|state| state.ready) => {
                ready.map(|_| ()).map_err(|_| DaemonError::Broken("membership of the cluster"))
            }
            part = self.broke() => Err(DaemonError::Broken(part)),
        }
    }

    /// Waits until a task ends. Before [`Member::leave`] that happens only by a bug.
    pub async fn broke(&mut self) -> &'static str {
        match self.parts.join_next().await {
            Some(ended) => super::part(ended),
            None => std::future::pending().await,
        }
    }

    /// Stops renewing the lease. The writer gives the slots back when it closes.
    pub async fn leave(mut self) {
        self.leave.cancel();
        while let Some(ended) = self.parts.join_next().await {
            super::part(ended);
        }
    }
}
