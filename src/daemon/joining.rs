//! The store, and where nodes share it, this one's place among them: from before the first lease to after the last.
//!
//! Promises that a lease is kept from the registration until everything is written, whatever the start and the stop
//! are at meanwhile. Without other nodes there is nothing to keep.

use std::path::Path;
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
use crate::store::postgres::{self, Membership, Registration};
use crate::store::{self, OpenError, Store, Writer, Writes};

/// How many leases of its own name a start waits for.
const LEASES: u32 = 3;

/// How long after a lease should have ended it is asked again.
const AFTER_LEASE: Duration = Duration::from_millis(20);

/// An open store.
pub struct Opened {
    pub store: Store,
    pub connection: Box<dyn Writes>,
    pub kind: Kind,
}

/// Whose it is.
pub enum Kind {
    /// This machine's own.
    Own,
    /// One that nodes share.
    Shared(Box<Joining>),
}

/// A node that is registered and holds nothing yet.
pub struct Joining {
    membership: Membership,
    id: NodeId,
    registered: Instant,
    lease: Duration,
}

/// Opens the store. This machine's own PINs in flight are loaded then; where nodes share it, this one is registered,
/// and has none yet. Who is `leaving` waits for no lease.
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
                notify::starting(
                    "starting: waits until the lease of an earlier process of this name is over",
                );
                leaving.run_until_cancelled(sleep(left + AFTER_LEASE)).await;
            }
            Registration::Taken(_) => return Err(DaemonError::NameTaken { name }),
        }
    };
    let (store, connection) = membership.store().await?;
    core.restore(&store.brake().await?);
    core.hold_none();
    let joining = Joining { membership, id, registered, lease };
    Ok(Opened { store, connection, kind: Kind::Shared(Box::new(joining)) })
}

/// Opens this machine's own store, and takes over every PIN in flight, and the brake.
async fn load(core: &mut schedule::Core, path: &Path) -> Result<Opened, DaemonError> {
    let unloaded = store::open_sqlite(path, core.clock()).await?;
    core.reserve(unloaded.in_flight());
    notify::starting("starting: the PINs in flight are loaded");
    let mut resumed = core.resume_all();
    let (store, connection) = unloaded.load(|pin| resumed.resume(&pin)).await?;
    resumed.done();
    let damaged = |what| OpenError::Damaged { path: path.to_owned(), what };
    if core.in_flight() != connection.in_flight() {
        let what = format!("{} PINs in flight are {} rows", core.in_flight(), connection.in_flight());
        return Err(damaged(what).into());
    }
    core.restore(&store.brake().await.map_err(|error| damaged(error.0.to_string()))?);
    Ok(Opened { store, connection, kind: Kind::Own })
}

/// Stable over restarts, and different for two daemons of one machine.
fn default_name(config: &Config) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}:{}", config.intake.socket.display())
}

impl Joining {
    /// Does what the start has to do, and keeps the lease meanwhile.
    pub async fn while_renewing<T>(&mut self, doing: impl Future<Output = T>) -> T {
        let mut doing = std::pin::pin!(doing);
        let mut next = self.registered + self.lease / 3;
        loop {
            tokio::select! {
                done = &mut doing => return done,
                () = sleep_until(next) => {
                    let sent = Instant::now();
                    // The first look of the member finds what became of a lease that was lost.
                    if matches!(self.membership.renew("{}").await, Ok(true)) {
                        self.registered = sent;
                    }
                    next = sent + self.lease / 3;
                }
            }
        }
    }

    /// What is asked about all nodes, and the parts behind it.
    pub fn join(self, schedule: Schedule, writer: Writer, health: Health, stop: CancellationToken) -> Member {
        let Self { membership, id, registered, lease } = self;
        let questions = membership.questions();
        let hints = Hints::default();
        let (state, seen) = watch::channel(State { id, ..State::default() });
        let (outcomes, hinted) = watch::channel(0);
        let (cluster, waiting) = Cluster::new(cluster::postgres::shared(&questions), seen, hinted);
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

/// A node among others, until it leaves.
pub struct Member {
    pub cluster: Cluster,
    /// To be run for as long as questions are answered.
    pub waiting: Option<Waiting>,
    leave: CancellationToken,
    parts: JoinSet<&'static str>,
}

impl Member {
    /// Waits until the first slots are loaded.
    pub async fn is_ready(&mut self) -> Result<(), DaemonError> {
        let mut state = self.cluster.state.clone();
        tokio::select! {
            ready = state.wait_for(|state| state.ready) => {
                ready.map(|_| ()).map_err(|_| DaemonError::Broken("membership of the cluster"))
            }
            part = self.broke() => Err(DaemonError::Broken(part)),
        }
    }

    /// Waits until a part ends, which none does before [`Member::leave`] unless it breaks off.
    pub async fn broke(&mut self) -> &'static str {
        match self.parts.join_next().await {
            Some(ended) => super::part(ended),
            None => std::future::pending().await,
        }
    }

    /// The lease is kept no longer: the writer gives everything back when it closes.
    pub async fn leave(mut self) {
        self.leave.cancel();
        while let Some(ended) = self.parts.join_next().await {
            super::part(ended);
        }
    }
}
