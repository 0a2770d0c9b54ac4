//! The daemon: puts the parts together, and ends them in order.
//!
//! Promises that nothing is opened before the configuration made sense, that a part which breaks ends the
//! daemon instead of being missed, and that a stop loses nothing: no new PINs, running polls end, the store
//! and the sinks are flushed. Knows the parts' insides as little as they know each other's.

mod joining;
mod notify;
mod own_thread;
mod reload;
mod retention;
mod signals;
mod sink_set;
mod sink_start;
mod stop_limit;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::joining::{Kind, Member, Opened};
use self::own_thread::on_own_thread;
use self::reload::CurrentClient;
pub use self::reload::{Outside, SetLog};
use self::signals::Signal;
pub use self::signals::Signals;
use self::sink_set::SinkSet;
use self::sink_start::Outbox;
use self::stop_limit::StopLimit;
pub use self::stop_limit::wanted_of_unit;
use crate::clock::Clock;
use crate::config::{self, Explained, Problem, Setting, StoreUrl};
use crate::fault::fault_point;
use crate::http::{self, Http};
use crate::intake::{self, Passed, Socket, SocketError};
use crate::poll::{Client, ClientError};
use crate::pulse::Pulse;
use crate::schedule::{self, Schedule};
use crate::services::Services;
use crate::sinks::{Health, Leave, Trouble};
use crate::store::{FailedCounts, OpenError, Store, Unavailable, Writer, postgres};

/// How long a start may take to its end, so that what it took of a shared store is given back, when it is to stop.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// Why the daemon did not start, or did not end well.
#[derive(Debug, Error)]
pub enum DaemonError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Postgres(#[from] postgres::OpenError),
    #[error(
        "another node is registered as {name:?}, and its lease goes on: give each node its own `cluster.node`, or \
         stop that one"
    )]
    NameTaken { name: String },
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error(transparent)]
    Listen(#[from] http::ListenError),
    #[error(transparent)]
    Load(#[from] Unavailable),
    #[error("the sink {name:?} can't be used: {trouble}")]
    Sink { name: String, trouble: Trouble },
    #[error("signals can't be heard: {0}")]
    Signals(#[source] io::Error),
    #[error("the {0} ended while the daemon ran; this is a bug. What was accepted is in the store")]
    Broken(&'static str),
    #[error("stopped at once, by a second signal: what was accepted is in the store")]
    Forced,
}

/// Runs until SIGTERM or SIGINT; on SIGHUP it goes on with the configuration as it is then. `signals` are listened to
/// since before the configuration was read.
///
/// # Errors
/// It could not start, a part of it broke, or a second signal ended it at once.
pub async fn run(configured: Explained, outside: Outside, mut signals: Signals) -> Result<(), DaemonError> {
    notify::starting("starting: the store is opened");
    let grace = configured.config.shutdown_grace;
    let is_shared = matches!(configured.config.store.url, StoreUrl::Postgres { .. });
    let leaving = CancellationToken::new();
    let mut starting = Box::pin(Daemon::start(configured, outside, leaving.clone()));
    let mut daemon = tokio::select! {
        started = &mut starting => started?,
        // Nothing was taken yet, so there is nothing to end in order; but other nodes would wait for the lease.
        _ = signals.stop() => {
            leaving.cancel();
            let left = timeout(START_PATIENCE, async {
                if let Ok(daemon) = starting.await {
                    daemon.stop(grace).await;
                }
            });
            return tokio::select! {
                _ = left, if is_shared => Ok(()),
                _ = signals.stop(), if is_shared => Err(DaemonError::Forced),
                else => Ok(()),
            };
        }
    };
    notify::ready();
    let ended = daemon.until_stopped(&mut signals).await;
    notify::stopping();
    let stopping = daemon.stop(grace);
    tokio::select! {
        () = stopping => ended,
        _ = signals.stop() => Err(DaemonError::Forced),
    }
}

/// The parts that run until the daemon stops; each ends with its name.
type Parts = JoinSet<&'static str>;

struct Daemon {
    /// Ends first: takes PINs, and polls them.
    parts: Parts,
    /// Ends when all that hold a [`Writer`] have: then all is durable.
    writing: JoinSet<usize>,
    sinks: SinkSet,
    /// Among other nodes, where the store is shared; ends when everything is written.
    member: Option<Member>,
    store: Store,
    http: Http,
    writer: Writer,
    stop: CancellationToken,
    finish: CancellationToken,
    rotate: watch::Sender<u64>,
    // What a reload needs, and what it changes.
    outside: Outside,
    current: Explained,
    at_start: Vec<Setting>,
    client: Arc<CurrentClient>,
    schedule: Schedule,
    deadline: watch::Sender<Duration>,
}

impl Daemon {
    async fn start(
        configured: Explained,
        mut outside: Outside,
        leaving: CancellationToken,
    ) -> Result<Self, DaemonError> {
        configured.warnings.iter().for_each(warn_of_secret);
        let config = &configured.config;
        let client = Arc::new(CurrentClient::new(Client::new(&config.api)?));
        let clock = Clock::system();
        let seed = fastrand::u64(..);
        let mut core = schedule::Core::new(config.schedule.clone(), config.api.rate, clock.clone(), seed);
        let Opened { store, connection, mut kind } = joining::open(config, &mut core, &leaving).await?;
        let in_flight = core.in_flight();

        let (schedule, inbox, events) = Schedule::channel();
        let (writer, writer_task) = Writer::new(connection, inbox, config.intake.max_in_flight);
        let mut writing = JoinSet::new();
        writing.spawn(writer_task.run());

        let stop = CancellationToken::new();
        let finish = CancellationToken::new();
        let (rotate, rotations) = watch::channel(0);
        let health = Health::default();
        let mut sinks = SinkSet::new(Outbox {
            cursor: 0,
            is_new: false,
            store: store.clone(),
            writer: writer.clone(),
            clock: clock.clone(),
            health: health.clone(),
            rotate: rotations,
            finish: finish.clone(),
            leave: Leave::default(),
        });
        let starting = async {
            sinks.start(&config.sinks).await?;
            Ok::<_, DaemonError>(warn_of_unknown_sinks(&store, &config.sinks).await?)
        };
        match &mut kind {
            Kind::Own => starting.await?,
            Kind::Shared(joining) => joining.while_renewing(starting).await?,
        }

        let socket = listen(outside.socket.take(), &config.intake).await?;
        let listener = http::Listener::bind(config).await?;
        let mut parts = Parts::new();
        let (renewing, stopped) = (client.clone().renew_connections(), stop.clone());
        parts.spawn(async move {
            stopped.run_until_cancelled(renewing).await;
            "renewal of connections"
        });
        let schedule_task = schedule::Task {
            core,
            poller: client.clone(),
            writer: writer.clone(),
            events,
            concurrency: config.api.concurrency,
            stop: stop.clone(),
            grace: config.shutdown_grace,
        };
        parts.spawn(async move {
            match on_own_thread(|| schedule_task.run()).await {
                Ok(0) => {}
                Ok(dropped) => {
                    warn!(dropped, "polls were still running at the end of shutdown_grace; their PINs are polled after the next start");
                }
                Err(error) => error!(%error, "the schedule can't have a thread of its own"),
            }
            "schedule"
        });
        let mut member = match kind {
            Kind::Own => None,
            Kind::Shared(joining) => {
                Some(joining.join(schedule.clone(), writer.clone(), health.clone(), stop.clone()))
            }
        };
        if let Some(member) = &mut member {
            notify::starting("starting: the node takes its part of the PINs");
            member.is_ready().await?;
            if let Some(waiting) = member.waiting.take() {
                let stop = stop.clone();
                parts.spawn(async move {
                    waiting.run(stop).await;
                    "waiting for other nodes"
                });
            }
        }
        let cluster = member.as_ref().map(|member| member.cluster.clone());
        let (deadline, deadline_seen) = watch::channel(config.schedule.deadline);
        let services = Services {
            schedule: schedule.clone(),
            store: store.clone(),
            writer: writer.clone(),
            cluster: cluster.clone(),
            clock: clock.clone(),
            deadline: deadline_seen,
            health: health.clone(),
            socket: socket.trouble(),
            stop: stop.clone(),
            failed_counts: FailedCounts::default(),
            places: intake::places(config.intake.max_connections),
        };
        let (pulse, keep_up) = Pulse::of(schedule.clone(), writer.clone(), notify::ask_every(), stop.clone());
        parts.spawn(async move {
            keep_up.await;
            "pulse"
        });
        let http = listener.serve(config, services.clone(), pulse.clone());
        parts.spawn(async move {
            intake::serve(socket, services).await;
            "intake"
        });
        let pruning = retention::prune(writer.clone(), clock, config.store.retention, stop.clone());
        parts.spawn(async move {
            pruning.await;
            "retention"
        });
        let telling = notify::keep_told(pulse, health, cluster, stop.clone());
        parts.spawn(async move {
            telling.await;
            "status"
        });
        info!(
            socket = %config.intake.socket.display(),
            store = %config.store.url,
            in_flight,
            "ready: PINs are taken and polled"
        );
        let at_start = configured.settings.clone();
        Ok(Self {
            parts,
            writing,
            sinks,
            member,
            store,
            http,
            writer,
            stop,
            finish,
            rotate,
            outside,
            current: configured,
            at_start,
            client,
            schedule,
            deadline,
        })
    }

    /// Waits for the signal to stop. A part that ends before that is a failure.
    async fn until_stopped(&mut self, signals: &mut Signals) -> Result<(), DaemonError> {
        let signal = loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Stop(name) => break name,
                    // A sink may take long to leave its place, or to be opened; a stop does not wait for that.
                    Signal::Reload => tokio::select! {
                        biased;
                        name = signals.stop() => break name,
                        () = self.reload() => {}
                    },
                    #[cfg(feature = "stall")]
                    Signal::Stall => self.schedule.stall().await,
                },
                Some(ended) = self.parts.join_next() => return Err(DaemonError::Broken(part(ended))),
                // As long as we hold a `Writer`, its task ends only by breaking off.
                Some(ended) = self.writing.join_next() => {
                    return Err(DaemonError::Broken(part(ended.map(|_| "store's writer"))));
                }
                // A sink that is closed for good ends well, and the others go on.
                failure = self.sinks.broke() => return Err(DaemonError::Broken(part(Err(failure)))),
                part = broke(&mut self.member) => return Err(DaemonError::Broken(part)),
                () = self.http.ended() => return Err(DaemonError::Broken("HTTP server")),
            }
        };
        info!(signal, "stopping: no new PINs are taken, running polls end");
        Ok(())
    }

    /// Ends the parts in the order of the data, each within a limit and all within one.
    async fn stop(self, grace: Duration) {
        let Self {
            mut parts,
            mut writing,
            mut sinks,
            member,
            store,
            http,
            writer,
            stop,
            finish,
            rotate: _rotate,
            ..
        } = self;
        let limit = StopLimit::new(grace);
        stop.cancel();
        // The parts keep to the grace themselves; the patience is for what they must not do.
        limit
            .longer_step(grace, "intake and schedule", async {
                while let Some(ended) = parts.join_next().await {
                    part(ended);
                }
            })
            .await;
        drop(parts);
        fault_point!("stopped-taking-and-not-flushed");
        limit.step("store", async {
            if let Err(unavailable) = writer.flush().await {
                error!(%unavailable, "outcomes could not be written; their PINs are polled again after the next start");
            }
        })
        .await;
        finish.cancel();
        fault_point!("told-sinks-to-finish");
        limit.step("sinks", sinks.ended()).await;
        // Until here it told that the daemon is stopping.
        limit.step("HTTP server", http.stop()).await;
        if let Some(member) = member {
            limit.step("cluster", member.leave()).await;
        }
        // Before the writer's connection: the last one to close folds the write-ahead log into the file, and
        // those that read can't.
        limit.step("store", store.close()).await;
        // The sinks' writers go with them, ours goes here: now the writer's task ends.
        fault_point!("sinks-finished-and-store-open");
        drop((sinks, writer));
        limit.step("store", async { while writing.join_next().await.is_some() {} }).await;
        info!("stopped");
    }
}

async fn broke(member: &mut Option<Member>) -> &'static str {
    match member {
        Some(member) => member.broke().await,
        None => std::future::pending().await,
    }
}

/// Listens at the socket that systemd passed, else at one of its own.
async fn listen(passed: Option<Passed>, intake: &config::Intake) -> Result<Socket, SocketError> {
    let Some(passed) = passed else { return Socket::bind(&intake.socket, intake.mode).await };
    if let Some(path) = passed.path().filter(|path| *path != intake.socket) {
        warn!(
            passed = %path.display(),
            configured = %intake.socket.display(),
            "the socket that was passed is not intake.socket, where the commands look for it: make them the same"
        );
    }
    Socket::adopt(passed)
}

/// A secret that others can read.
fn warn_of_secret(warning: &Problem) {
    let Problem { key, origin, reason, .. } = warning;
    warn!(key, origin, "{reason}");
}

/// A sink that is not configured any more keeps its cursor, and so all outcomes since.
async fn warn_of_unknown_sinks(store: &Store, sinks: &[config::Sink]) -> Result<(), Unavailable> {
    for (name, _) in store.cursors().await? {
        if !sinks.iter().any(|sink| sink.name == name) {
            warn!(
                sink = name,
                "a sink that is not configured any more has a cursor: outcomes are kept for it until \
                 `pinwatch sinks forget` says that they need not be"
            );
        }
    }
    Ok(())
}

/// The name of a part that ended.
fn part(ended: Result<&'static str, JoinError>) -> &'static str {
    ended.unwrap_or_else(|failure| {
        error!(%failure, "a part of the daemon broke off; this is a bug");
        "daemon"
    })
}
