//! The daemon: puts the parts together, and ends them in order.
//!
//! Promises that nothing is opened before the configuration made sense, that a part which breaks ends the
//! daemon instead of being missed, and that a stop loses nothing: no new PINs, running polls end, the store
//! and the sinks are flushed. Knows the parts' insides as little as they know each other's.

mod joining;
mod notify;
mod reload;
mod retention;
mod signals;
mod sink_set;

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::joining::{Kind, Member, Opened};
use self::reload::CurrentClient;
pub use self::reload::{Outside, SetLog};
use self::signals::{Signal, Signals};
use self::sink_set::SinkSet;
use crate::clock::Clock;
use crate::config::{self, Explained, Setting, SinkKind};
use crate::fault::fault_point;
use crate::http::{self, Http};
use crate::intake::{self, Passed, Services, Socket, SocketError};
use crate::poll::{Client, ClientError};
use crate::schedule::{self, Schedule};
use crate::sinks::{Dispatcher, Endpoint, FileSink, Health, Ordered, StdoutSink, Trouble, WebhookSink};
use crate::store::{OpenError, Store, Unavailable, Writer, postgres};

/// How long the store and the sinks may take to be flushed at a stop, each.
const FLUSH_PATIENCE: Duration = Duration::from_secs(10);

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

/// Runs until SIGTERM or SIGINT; on SIGHUP it goes on with the configuration as it is then.
///
/// # Errors
/// It could not start, a part of it broke, or a second signal ended it at once.
pub async fn run(configured: Explained, outside: Outside) -> Result<(), DaemonError> {
    let mut signals = Signals::listen().map_err(DaemonError::Signals)?;
    notify::starting("starting: the store is opened");
    let grace = configured.config.shutdown_grace;
    let mut daemon = tokio::select! {
        started = Daemon::start(configured, outside) => started?,
        // Nothing was taken yet, so there is nothing to end in order.
        () = signals.stop_again() => return Ok(()),
    };
    notify::ready();
    let ended = daemon.until_stopped(&mut signals).await;
    notify::stopping();
    let stopping = daemon.stop(grace);
    tokio::select! {
        () = stopping => ended,
        () = signals.stop_again() => Err(DaemonError::Forced),
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
    async fn start(configured: Explained, mut outside: Outside) -> Result<Self, DaemonError> {
        let config = &configured.config;
        let client = Arc::new(CurrentClient::new(Client::new(&config.api)?));
        let clock = Clock::system();
        let Opened { store, connection, mut kind } = joining::open(config).await?;

        let seed = fastrand::u64(..);
        let mut core = schedule::Core::new(config.schedule.clone(), config.api.rate, clock.clone(), seed);
        match &kind {
            Kind::Own(path) => load(&mut core, &store, connection.in_flight(), path).await?,
            Kind::Shared(_) => {
                core.restore(&store.brake().await?);
                core.hold_none();
            }
        }
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
            store: store.clone(),
            writer: writer.clone(),
            clock: clock.clone(),
            health: health.clone(),
            rotate: rotations,
            finish: finish.clone(),
        });
        let starting = async {
            for sink in &config.sinks {
                sinks.start(sink).await?;
            }
            Ok::<_, DaemonError>(warn_of_unknown_sinks(&store, &config.sinks).await?)
        };
        match &mut kind {
            Kind::Own(_) => starting.await?,
            Kind::Shared(joining) => joining.while_renewing(starting).await?,
        }

        let socket = listen(outside.socket.take(), &config.intake)?;
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
            let dropped = schedule_task.run().await;
            if dropped > 0 {
                warn!(dropped, "polls were still running at the end of shutdown_grace; their PINs are polled after the next start");
            }
            "schedule"
        });
        let mut member = match kind {
            Kind::Own(_) => None,
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
            stop: stop.clone(),
            connections: Arc::default(),
        };
        let http = listener.serve(config, services.clone());
        let max_connections = config.intake.max_connections;
        parts.spawn(async move {
            intake::serve(socket, max_connections, services).await;
            "intake"
        });
        let pruning = retention::prune(writer.clone(), clock, config.store.retention, stop.clone());
        parts.spawn(async move {
            pruning.await;
            "retention"
        });
        let telling = notify::keep_told(schedule.clone(), writer.clone(), health, cluster, stop.clone());
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
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Stop(name) => {
                        info!(signal = name, "stopping: no new PINs are taken, running polls end");
                        return Ok(());
                    }
                    Signal::Reload => self.reload().await,
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
        }
    }

    /// Ends the parts in the order of the data, each within a limit.
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
        stop.cancel();
        // The parts keep to the grace themselves; the patience is for what they must not do.
        within(grace + FLUSH_PATIENCE, "intake and schedule", async {
            while let Some(ended) = parts.join_next().await {
                part(ended);
            }
        })
        .await;
        drop(parts);
        fault_point!("stopped-taking-and-not-flushed");
        within(FLUSH_PATIENCE, "store", async {
            if let Err(unavailable) = writer.flush().await {
                error!(%unavailable, "outcomes could not be written; their PINs are polled again after the next start");
            }
        })
        .await;
        finish.cancel();
        fault_point!("told-sinks-to-finish");
        within(FLUSH_PATIENCE, "sinks", sinks.ended()).await;
        // Until here it told that the daemon is stopping.
        within(FLUSH_PATIENCE, "HTTP server", http.stop()).await;
        if let Some(member) = member {
            within(FLUSH_PATIENCE, "cluster", member.leave()).await;
        }
        // Before the writer's connection: the last one to close folds the write-ahead log into the file, and
        // those that read can't.
        within(FLUSH_PATIENCE, "store", store.close()).await;
        // The sinks' writers go with them, ours goes here: now the writer's task ends.
        fault_point!("sinks-finished-and-store-open");
        drop((sinks, writer));
        within(FLUSH_PATIENCE, "store", async { while writing.join_next().await.is_some() {} }).await;
        info!("stopped");
    }
}

/// Loads every PIN in flight of this machine's own store.
async fn load(
    core: &mut schedule::Core,
    store: &Store,
    in_flight: usize,
    path: &Path,
) -> Result<(), DaemonError> {
    core.reserve(in_flight);
    notify::starting("starting: the PINs in flight are loaded");
    let damaged = |what| OpenError::Damaged { path: path.to_owned(), what };
    schedule::resume(core, store).await.map_err(|error| damaged(error.0.to_string()))?;
    if core.in_flight() != in_flight {
        let what = format!("of {in_flight} PINs in flight {} can be read", core.in_flight());
        return Err(damaged(what).into());
    }
    Ok(())
}

async fn broke(member: &mut Option<Member>) -> &'static str {
    match member {
        Some(member) => member.broke().await,
        None => std::future::pending().await,
    }
}

/// Listens at the socket that systemd passed, else at one of its own.
fn listen(passed: Option<Passed>, intake: &config::Intake) -> Result<Socket, SocketError> {
    let Some(passed) = passed else { return Socket::bind(&intake.socket, intake.mode) };
    if let Some(path) = passed.path().filter(|path| *path != intake.socket) {
        warn!(
            passed = %path.display(),
            configured = %intake.socket.display(),
            "the socket that was passed is not intake.socket, where the commands look for it: make them the same"
        );
    }
    Socket::adopt(passed)
}

/// What every sink is given.
struct Outbox {
    cursor: i64,
    store: Store,
    writer: Writer,
    clock: Clock,
    health: Health,
    rotate: watch::Receiver<u64>,
    finish: CancellationToken,
}

/// Opens a sink, so that one that can't be written stops the start, and starts its dispatcher.
async fn start_sink(
    config: &config::Sink,
    outbox: Outbox,
    sinks: &mut JoinSet<()>,
) -> Result<(), DaemonError> {
    match &config.kind {
        SinkKind::Stdout => start_ordered(config, StdoutSink, outbox, sinks).await,
        SinkKind::File { path, fsync } => {
            start_ordered(config, FileSink::new(path.clone(), *fsync), outbox, sinks).await
        }
        SinkKind::Webhook(webhook) => start_webhook(config, webhook, outbox, sinks),
    }
}

/// Never depends on the endpoint, which may be down.
fn start_webhook(
    config: &config::Sink,
    webhook: &config::Webhook,
    outbox: Outbox,
    sinks: &mut JoinSet<()>,
) -> Result<(), DaemonError> {
    let name = config.name.clone();
    let endpoint = Endpoint::new(webhook).map_err(|error| DaemonError::Sink {
        name: name.clone(),
        trouble: Trouble::Closed(error.to_string()),
    })?;
    let Outbox { cursor, store, writer, clock, health, rotate: _, finish } = outbox;
    sinks.spawn(WebhookSink { name, endpoint, cursor, store, writer, clock, health, finish }.run());
    Ok(())
}

async fn start_ordered(
    config: &config::Sink,
    sink: impl Ordered,
    outbox: Outbox,
    sinks: &mut JoinSet<()>,
) -> Result<(), DaemonError> {
    let Outbox { cursor, store, writer, clock, health, rotate, finish } = outbox;
    let name = config.name.clone();
    let mut dispatcher = Dispatcher { name, sink, cursor, store, writer, clock, health, rotate, finish };
    let opened = dispatcher.open().await;
    opened.map_err(|trouble| DaemonError::Sink { name: config.name.clone(), trouble })?;
    sinks.spawn(dispatcher.run());
    Ok(())
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

/// Waits for a part's end, and names it if it is late.
async fn within(limit: Duration, name: &str, end: impl Future<Output = ()>) {
    if timeout(limit, end).await.is_err() {
        warn!(part = name, seconds = limit.as_secs(), "did not end in time and is broken off");
    }
}
