//! The daemon: starts all parts (`start.rs`), runs them, and stops them in order.
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
mod start;
mod startup;
mod stop_limit;
mod warnings;

use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

pub use self::inherited::Inherited;
pub use self::reload::{Outside, SetLog};
use self::signals::Signal;
pub use self::signals::Signals;
use self::sink_set::SinkSet;
use self::startup::Member;
use self::stop_limit::StopLimit;
pub use self::stop_limit::needed_unit_timeout;
use crate::build;
use crate::config::{Explained, Setting, StoreUrl};
use crate::fault::fault_point;
use crate::http::tokens::TokensError;
use crate::http::{self, Http};
use crate::intake::SocketError;
use crate::pin::PinId;
use crate::poll::{Client, ClientError, Connection, Meaning};
use crate::protocol::stats::Build;
use crate::schedule;
use crate::services::Services;
use crate::sinks::Trouble;
use crate::store::{OpenError, Unavailable, postgres};

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
    /// Intake, schedule and what serves them. They end first.
    parts: Parts,
    /// The writer. Ends once every [`Writer`](crate::store::Writer) is dropped; then everything is durable.
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

impl Daemon {
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
                    #[cfg(feature = "fault-points")]
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

async fn broke(member: &mut Option<Member>) -> &'static str {
    match member {
        Some(member) => member.broke().await,
        None => std::future::pending().await,
    }
}

/// The name of a task that ended.
fn part(ended: Result<&'static str, JoinError>) -> &'static str {
    ended.unwrap_or_else(|failure| {
        error!(%failure, "a task of the daemon failed; this is a bug");
        "daemon"
    })
}
