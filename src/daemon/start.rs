//! Starts the daemon: opens what the configuration names, connects the parts, and lets them run.
//!
//! Promises that nobody can submit a PIN before everything that can fail at a start has succeeded, and that a shared store's
//! lease is renewed throughout. Must not know how the daemon ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::inherited::Inherited;
use super::own_thread::on_own_thread;
use super::reload::Outside;
use super::sink_set::SinkSet;
use super::startup::{self, Kind, Member, Opened};
use super::warnings::{warn_of_secret, warn_of_unknown_sinks};
use super::{Daemon, DaemonError, Parts, notify, retention};
use crate::clock::Clock;
use crate::config::{self, Config, Explained};
use crate::http::tokens::Tokens;
use crate::http::{self, Http};
use crate::intake::{self, InheritedSocket, Socket, SocketError};
use crate::outgoing::SharedRoom;
use crate::poll::Client;
use crate::pulse::Pulse;
use crate::schedule::{self, Schedule};
use crate::services::Services;
use crate::sinks::{Handover, Health, Outbox};
use crate::store::{FailedCounts, Store, Writer, Writes};

/// What the configuration names and the store contains. No task runs yet, but the lease of a shared store already does.
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
    pub(super) async fn start(
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
