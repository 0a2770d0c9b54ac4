//! The daemon: opens, connects and runs all parts, and stops them in order.
//!
//! Promises that nothing is opened before the configuration is valid, that the failure of any part ends the daemon, and that
//! a stop loses nothing: the intake closes, running polls end, then the store and the sinks are flushed. Knows the parts
//! only by their interfaces.

mod inherited;
mod notify;
mod own_thread;
mod reload;
mod retention;
mod signals;
mod sink_set;
mod sink_start;
mod startup;
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

pub use self::inherited::Inherited;
use self::own_thread::on_own_thread;
pub use self::reload::{Outside, SetLog};
use self::signals::Signal;
pub use self::signals::Signals;
use self::sink_set::SinkSet;
use self::startup::{Kind, Member, Opened};
use self::stop_limit::StopLimit;
pub use self::stop_limit::needed_unit_timeout;
use crate::build;
use crate::clock::Clock;
use crate::config::{self, Config, Explained, Problem, Setting, StoreUrl};
use crate::fault::fault_point;
use crate::http::tokens::{Tokens, TokensError};
use crate::http::{self, Http};
use crate::intake::{self, InheritedSocket, Socket, SocketError};
use crate::outgoing::SharedRoom;
use crate::pin::PinId;
use crate::poll::{Client, ClientError, Connection, Meaning};
use crate::protocol::stats::Build;
use crate::pulse::Pulse;
use crate::schedule::{self, Schedule};
use crate::services::Services;
use crate::sinks::{Handover, Health, Outbox, Trouble};
use crate::store::{FailedCounts, OpenError, Store, Unavailable, Writer, Writes, postgres};

/// How long an interrupted start may take to give back what it took of a shared store.
const START_TIMEOUT: Duration = Duration::from_secs(20);

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
        "another node is registered as {name:?}, and its lease still runs: give each node its own `cluster.node`, or \
         stop that one"
    )]
    NameTaken { name: String },
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error(transparent)]
    Listen(#[from] http::ListenError),
    #[error(transparent)]
    Tokens(#[from] TokensError),
    #[error(transparent)]
    TlsFiles(#[from] http::FileError),
    #[error(transparent)]
    Load(#[from] Unavailable),
    #[error("the sink {name:?} can't be used: {trouble}")]
    Sink { name: String, trouble: Trouble },
    #[error("can't install signal handlers: {0}")]
    Signals(#[source] io::Error),
    #[error("the {0} ended while the daemon ran; this is a bug. All accepted PINs are in the store")]
    Broken(&'static str),
    #[error("stopped at once by a second signal; all accepted PINs are in the store")]
    Forced,
}

/// Runs until SIGTERM or SIGINT, and reloads the configuration on SIGHUP. The handlers in `signals` are installed before the
/// configuration is read.
///
/// # Errors
/// It could not start, a part failed, or a second signal forced an immediate end.
pub async fn run(configured: Explained, outside: Outside, mut signals: Signals) -> Result<(), DaemonError> {
    let Build { commit, date, target, features, sqlite } = build::build();
    info!(version = build::VERSION, %commit, %date, %target, %features, %sqlite, "starting");
    notify::starting("starting: opening the store");
    let grace = configured.config.shutdown_grace;
    let is_shared = matches!(configured.config.store.url, StoreUrl::Postgres { .. });
    let leaving = CancellationToken::new();
    let mut starting = Box::pin(Daemon::start(configured, outside, leaving.clone()));
    let mut daemon = tokio::select! {
        started = &mut starting => started?,
        // No PIN was accepted yet, so there is nothing to flush. But other nodes would wait for the lease.
        _ = signals.stop() => {
            leaving.cancel();
            let left = timeout(START_TIMEOUT, async {
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

/// The tasks that run until the daemon stops. Each returns its name.
#[derive(Default)]
struct Parts(JoinSet<&'static str>);

impl Parts {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(async move {
            task.await;
            name
        });
    }
}

struct Daemon {
    /// Intake, schedule and what serves them. End first.
    parts: Parts,
    /// The writer. Ends once every [`Writer`] handle is dropped; then everything is durable.
    writing: JoinSet<usize>,
    sinks: SinkSet,
    /// The membership, if nodes share the store. Ends when everything is written.
    member: Option<Member>,
    http: Http,
    services: Services,
    finish: CancellationToken,
    rotate: watch::Sender<u64>,
    // The rest is for reloads.
    outside: Outside,
    current: Explained,
    at_start: Vec<Setting>,
    deadline: watch::Sender<Duration>,
}

/// What the configuration names and the store contains. No task runs yet, but the lease of a shared store does.
struct OpenParts {
    client: Client,
    tokens: Option<Arc<Tokens>>,
    tls: Option<http::Tls>,
    core: schedule::Core,
    store: Store,
    connection: Box<dyn Writes>,
    kind: Kind,
}

/// All parts, connected. Only the writer and the sinks run, and nobody can submit a PIN yet.
struct WiredParts {
    services: Services,
    polls: schedule::Task<Client>,
    writing: JoinSet<usize>,
    sinks: SinkSet,
    kind: Kind,
    socket: Socket,
    listener: http::Listener,
    tokens: Option<Arc<Tokens>>,
    finish: CancellationToken,
    rotate: watch::Sender<u64>,
    deadline: watch::Sender<Duration>,
}

/// Reads the files that the configuration names, and opens the store. Cancelling `leaving` skips the wait for a lease.
async fn open(config: &Config, leaving: &CancellationToken) -> Result<OpenParts, DaemonError> {
    let client = Client::new(&config.api)?;
    let tokens = http::read_tokens(&config.http)?;
    let tls = http::Tls::open(&config.http)?;
    let seed = fastrand::u64(..);
    let mut core = schedule::Core::new(config.schedule.clone(), config.api.rate, Clock::system(), seed);
    let Opened { store, connection, kind } = startup::open(config, &mut core, leaving).await?;
    Ok(OpenParts { client, tokens, tls, core, store, connection, kind })
}

/// Connects the parts by channels, checks that each sink can be written, and binds the sockets.
async fn wire(
    opened: OpenParts,
    config: &Config,
    inherited: &mut Inherited,
) -> Result<WiredParts, DaemonError> {
    let OpenParts { client, tokens, tls, core, store, connection, mut kind } = opened;
    let clock = core.clock().clone();
    let (schedule, inbox, events) = Schedule::channel();
    let (writer, writer_task) = Writer::new(connection, inbox, config.intake.max_in_flight);
    let mut writing = JoinSet::new();
    writing.spawn(writer_task.run());

    let (stop, finish) = (CancellationToken::new(), CancellationToken::new());
    let (rotate, rotations) = watch::channel(0);
    let health = Health::default();
    let mut sinks = SinkSet::new(Outbox {
        name: String::new(),
        cursor: 0,
        store: store.clone(),
        writer: writer.clone(),
        clock: clock.clone(),
        health: health.clone(),
        rotate: rotations,
        finish: finish.clone(),
        handover: Handover::default(),
    });
    start_sinks(&mut sinks, config, &store, &mut kind).await?;

    let socket = listen(inherited.socket.take(), &config.intake).await?;
    let listener = http::Listener::bind(config, inherited.http.take(), tls).await?;
    let polls = schedule::Task {
        core,
        poller: Arc::new(client.clone()),
        writer: writer.clone(),
        events,
        concurrency: config.api.concurrency,
        stop: stop.clone(),
        grace: config.shutdown_grace,
    };
    let (deadline, deadline_seen) = watch::channel(config.schedule.deadline);
    let services = Services {
        schedule,
        store,
        writer,
        cluster: None,
        clock,
        deadline: deadline_seen,
        health,
        api: client,
        socket: socket.trouble(),
        stop,
        failed_counts: FailedCounts::default(),
        max_in_flight: config.intake.max_in_flight,
        places: intake::places(config.intake.max_connections),
        room: SharedRoom::default(),
    };
    Ok(WiredParts {
        services,
        polls,
        writing,
        sinks,
        kind,
        socket,
        listener,
        tokens,
        finish,
        rotate,
        deadline,
    })
}

impl Daemon {
    async fn start(
        configured: Explained,
        mut outside: Outside,
        leaving: CancellationToken,
    ) -> Result<Self, DaemonError> {
        configured.warnings.iter().for_each(warn_of_secret);
        let config = &configured.config;
        let opened = open(config, &leaving).await?;
        let in_flight = opened.core.in_flight();
        let wired = wire(opened, config, &mut outside.inherited).await?;
        let daemon = Self::spawn(wired, configured, outside).await?;
        let config = &daemon.current.config;
        info!(
            socket = %config.intake.socket.display(),
            store = %config.store.url,
            in_flight,
            "ready: PINs are accepted and polled"
        );
        Ok(daemon)
    }

    /// Starts to poll, joins the cluster if nodes share the store, and then serves clients.
    async fn spawn(wired: WiredParts, configured: Explained, outside: Outside) -> Result<Self, DaemonError> {
        let WiredParts {
            mut services,
            polls,
            writing,
            sinks,
            kind,
            socket,
            listener,
            tokens,
            finish,
            rotate,
            deadline,
        } = wired;
        let mut parts = Parts::default();
        spawn_polls(&mut parts, polls, services.api.clone(), services.stop.clone());
        let member = match kind {
            Kind::Own => None,
            Kind::Shared(joining) => {
                let Services { schedule, writer, health, stop, .. } = services.clone();
                let member = joining.join(schedule, writer, health, stop);
                Some(wait_for_slots(member, &mut parts, &services.stop).await?)
            }
        };
        services.cluster = member.as_ref().map(|member| member.cluster.clone());
        let reloads = rotate.subscribe();
        let http = serve(&configured.config, socket, listener, tokens, services.clone(), reloads, &mut parts);
        let at_start = configured.settings.clone();
        let current = configured;
        Ok(Self {
            parts,
            writing,
            sinks,
            member,
            http,
            services,
            finish,
            rotate,
            outside,
            current,
            at_start,
            deadline,
        })
    }

    /// Waits for the signal to stop. If a part ends before that, it has failed.
    async fn until_stopped(&mut self, signals: &mut Signals) -> Result<(), DaemonError> {
        let signal = loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Stop(name) => break name,
                    // A sink may take long to hand over or to open. A stop does not wait for it.
                    Signal::Reload => tokio::select! {
                        biased;
                        name = signals.stop() => break name,
                        () = self.reload() => {}
                    },
                    #[cfg(feature = "stall")]
                    Signal::Stall => self.services.schedule.stall().await,
                },
                Some(ended) = self.parts.0.join_next() => return Err(DaemonError::Broken(part(ended))),
                // The daemon holds a `Writer`, so the task can end only by a failure.
                Some(ended) = self.writing.join_next() => {
                    return Err(DaemonError::Broken(part(ended.map(|_| "store's writer"))));
                }
                // A sink that is closed for good is no failure; the others continue.
                failure = self.sinks.broke() => return Err(DaemonError::Broken(part(Err(failure)))),
                part = broke(&mut self.member) => return Err(DaemonError::Broken(part)),
                () = self.http.ended() => return Err(DaemonError::Broken("HTTP server")),
            }
        };
        info!(signal, "stopping: no new PINs are accepted, running polls end");
        Ok(())
    }

    /// Ends the parts in the order of the data flow, each within a limit and all within one.
    async fn stop(self, grace: Duration) {
        let Self {
            mut parts, mut writing, mut sinks, member, http, services, finish, rotate: _rotate, ..
        } = self;
        let limit = StopLimit::new(grace);
        services.stop.cancel();
        // The parts observe the grace themselves; the limit is for one that hangs.
        limit
            .longer_step(grace, "intake and schedule", async {
                while let Some(ended) = parts.0.join_next().await {
                    part(ended);
                }
            })
            .await;
        drop(parts);
        fault_point!("stopped-taking-and-not-flushed");
        limit.step("flush", async {
            if let Err(unavailable) = services.writer.flush().await {
                error!(%unavailable, "outcomes could not be written; their PINs are polled again after the next start");
            }
        })
        .await;
        finish.cancel();
        fault_point!("sinks-asked-to-finish");
        limit.step("sinks", sinks.ended()).await;
        // Until here HTTP has reported that the daemon is stopping.
        limit.step("HTTP server", http.stop()).await;
        if let Some(member) = member {
            limit.step("cluster", member.leave()).await;
        }
        // Readers close before the writer: the last connection to close merges the write-ahead log into the file, which only
        // the writer can.
        limit.step("store readers", services.store.close()).await;
        // These are the last `Writer` handles, so the writer's task ends now.
        fault_point!("sinks-finished-and-store-open");
        drop((sinks, services));
        limit.step("writer", async { while writing.join_next().await.is_some() {} }).await;
        info!("stopped");
    }
}

impl schedule::Poll for Client {
    async fn poll(&self, pin: &PinId, connection: Connection) -> Meaning {
        Client::poll(self, pin, connection).await
    }
}

/// Starts the sinks. If nodes share the store, renews the lease meanwhile.
async fn start_sinks(
    sinks: &mut SinkSet,
    config: &Config,
    store: &Store,
    kind: &mut Kind,
) -> Result<(), DaemonError> {
    let starting = async {
        sinks.start(&config.sinks).await?;
        Ok(warn_of_unknown_sinks(store, &config.sinks).await?)
    };
    match kind {
        Kind::Own => starting.await,
        Kind::Shared(joining) => joining.while_renewing(starting).await,
    }
}

/// Starts what polls: the schedule, and the renewal of the client's connections.
fn spawn_polls(parts: &mut Parts, task: schedule::Task<Client>, client: Client, stop: CancellationToken) {
    parts.spawn("schedule", run_schedule(task));
    parts.spawn("renewal of connections", async move {
        stop.run_until_cancelled(client.renew_connections()).await;
    });
}

/// Runs the schedule on its own thread until the daemon stops.
async fn run_schedule(task: schedule::Task<Client>) {
    match on_own_thread(|| task.run()).await {
        Ok(0) => {}
        Ok(dropped) => {
            warn!(
                dropped,
                "polls were still running at the end of shutdown_grace; their PINs are polled after the next start"
            );
        }
        Err(error) => error!(%error, "the system has no thread for the schedule"),
    }
}

/// Waits until this node has loaded its share of the PINs, and starts to serve questions about other nodes.
async fn wait_for_slots(
    mut member: Member,
    parts: &mut Parts,
    stop: &CancellationToken,
) -> Result<Member, DaemonError> {
    notify::starting("starting: loading this node's share of the PINs");
    member.is_ready().await?;
    if let Some(waiting) = member.waiting.take() {
        parts.spawn("waiting for other nodes", waiting.run(stop.clone()));
    }
    Ok(member)
}

/// Starts everything that answers clients, administrators and the service manager.
fn serve(
    config: &Config,
    socket: Socket,
    listener: http::Listener,
    tokens: Option<Arc<Tokens>>,
    services: Services,
    reloads: watch::Receiver<u64>,
    parts: &mut Parts,
) -> Http {
    let Services { schedule, writer, clock, health, cluster, stop, .. } = services.clone();
    let (pulse, keep_up) = Pulse::of(schedule, writer.clone(), notify::ask_every(), stop.clone());
    let http = listener.serve(config, services.clone(), pulse.clone(), tokens, reloads);
    parts.spawn("pulse", keep_up);
    parts.spawn("intake", intake::serve(socket, services));
    parts.spawn("index of older outcomes", retention::index_older(writer.clone(), stop.clone()));
    parts.spawn("retention", retention::prune(writer, clock, config.store.retention, stop.clone()));
    parts.spawn("status", notify::keep_notifying(pulse, health, cluster, stop));
    http
}

async fn broke(member: &mut Option<Member>) -> &'static str {
    match member {
        Some(member) => member.broke().await,
        None => std::future::pending().await,
    }
}

/// Listens on the socket that systemd passed, or else on one of its own.
async fn listen(passed: Option<InheritedSocket>, intake: &config::Intake) -> Result<Socket, SocketError> {
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

/// Warns of a secret that other users can read.
fn warn_of_secret(warning: &Problem) {
    let Problem { key, origin, reason, .. } = warning;
    warn!(key, origin, "{reason}");
}

/// Warns of removed sinks. Their cursors remain, and keep all later outcomes from being pruned.
async fn warn_of_unknown_sinks(store: &Store, sinks: &[config::Sink]) -> Result<(), Unavailable> {
    for (name, _) in store.cursors().await? {
        if !sinks.iter().any(|sink| sink.name == name) {
            warn!(
                sink = name,
                "this sink is no longer configured, but has a cursor: outcomes are kept for it until \
                 `pinwatch sinks forget` removes it"
            );
        }
    }
    Ok(())
}

/// The name of a task that ended.
fn part(ended: Result<&'static str, JoinError>) -> &'static str {
    ended.unwrap_or_else(|failure| {
        error!(%failure, "a task of the daemon failed; this is a bug");
        "daemon"
    })
}
