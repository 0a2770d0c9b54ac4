//! Serves `/metrics`, `/healthz` and `/readyz` over HTTP if `http.listen` is set.
//!
//! Promises that no client can harm the daemon: the number of connections, their duration and the size of requests are
//! bounded, and no answer waits long for a silent part. Read-only. `docs/metrics.md` documents it for users.

mod failures;
mod gather;
mod health;
mod problem;
mod room;
mod serve;
pub mod tokens;
mod v1;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use self::health::Status;
use self::tokens::{Tokens, TokensError};
use crate::config::{self, Config};
use crate::metrics::{self, Recorded};
use crate::pulse::Pulse;
use crate::services::Services;
use crate::text::json_line;

/// How often the recorded samples are sorted into their histogram buckets.
const UPKEEP: Duration = Duration::from_secs(1);

/// The address can't be listened on.
#[derive(Debug, Error)]
#[error("can't listen for HTTP at {address} (http.listen): {source}")]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// The listening socket; nothing if HTTP is off.
pub struct Listener(Option<(TcpListener, &'static Recorded)>);

/// The server's tasks; none if HTTP is off. Dropping this ends them.
pub struct Http {
    tasks: JoinSet<()>,
    /// Tasks of handlers. They end by themselves when the daemon stops.
    handlers: TaskTracker,
    api: Option<Arc<v1::Api>>,
    tokens: watch::Sender<Option<Arc<Tokens>>>,
    stop: CancellationToken,
}

/// Reads the tokens of the API; `None` if there is no `http.tokens_file`.
///
/// # Errors
/// The file can't be read, others could change it, or a line of it is wrong.
pub fn read_tokens(http: &config::Http) -> Result<Option<Arc<Tokens>>, TokensError> {
    http.tokens_file.as_deref().map(Tokens::read).transpose().map(|tokens| tokens.map(Arc::new))
}

/// What the handlers need.
struct Server {
    services: Services,
    pulse: Pulse,
    limits: Limits,
    recorded: &'static Recorded,
    started: Timestamp,
}

/// The configured limits, for comparison with the current numbers.
struct Limits {
    in_flight: usize,
    polls: usize,
    connections: usize,
}

impl Listener {
    /// Listens and starts to record metrics if `http.listen` is set.
    ///
    /// # Errors
    /// The address can't be bound.
    pub async fn bind(config: &Config) -> Result<Self, ListenError> {
        let Some(address) = config.http.listen else { return Ok(Self(None)) };
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| ListenError { address, source })?;
        Ok(Self(Some((listener, metrics::install()))))
    }

    /// Starts to serve.
    pub fn serve(
        self,
        config: &Config,
        services: Services,
        pulse: Pulse,
        tokens: Option<Arc<Tokens>>,
    ) -> Http {
        let stop = CancellationToken::new();
        let (mut tasks, handlers) = (JoinSet::new(), TaskTracker::new());
        let (tokens, current) = watch::channel(tokens);
        let mut api = None;
        if let Some((listener, recorded)) = self.0 {
            if let Ok(address) = listener.local_addr() {
                info!(%address, "metrics and health are served over HTTP");
            }
            let limits = Limits {
                in_flight: config.intake.max_in_flight,
                polls: config.api.concurrency,
                connections: config.intake.max_connections,
            };
            let started = services.clock.wall();
            let v1 = v1::Api::new(services.clone(), current, handlers.clone());
            let router = router(Server { services, pulse, limits, recorded, started });
            let router = router.nest("/v1", v1::router(v1.clone()));
            tasks.spawn(upkeep(recorded, v1.clone(), stop.clone()));
            api = Some(v1);
            tasks.spawn(serve::serve(listener, router, stop.clone()));
        }
        Http { tasks, handlers, api, tokens, stop }
    }
}

impl Http {
    /// Waits until a task has ended. Before [`Http::stop`] that happens only by a bug.
    pub async fn ended(&mut self) {
        match self.tasks.join_next().await {
            None => std::future::pending().await,
            Some(Ok(())) => {}
            Some(Err(failure)) => error!(%failure, "the HTTP server failed; this is a bug"),
        }
    }

    /// From now on, these tokens are valid and no others.
    pub fn renew_tokens(&self, tokens: Option<Arc<Tokens>>) {
        self.tokens.send_replace(tokens);
    }

    /// Stops the tasks, after a moment for answers under way.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        // Their connections are gone, so they have nobody to answer.
        self.handlers.close();
        self.handlers.wait().await;
        if let Some(api) = self.api {
            api.finish();
        }
    }
}

/// Keeps recorded samples from piling up between scrapes, and logs sums of submits.
async fn upkeep(recorded: &'static Recorded, api: Arc<v1::Api>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(UPKEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        recorded.upkeep();
        api.upkeep();
    }
}

fn router(server: Server) -> Router {
    Router::new()
        .route("/metrics", get(answer_metrics))
        .route("/healthz", get(answer_alive))
        .route("/readyz", get(answer_ready))
        .with_state(Arc::new(server))
}

async fn answer_metrics(State(server): State<Arc<Server>>) -> Response {
    let mut text = gather::gather(&server).await;
    text.push_str(&server.recorded.render());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn answer_alive(State(server): State<Arc<Server>>) -> Response {
    let alive = health::alive(&server);
    json(alive.alive, &alive)
}

async fn answer_ready(State(server): State<Arc<Server>>) -> Response {
    let ready = health::ready(&server).await;
    json(ready.status < Status::NotReady, &ready)
}

fn json(good: bool, answer: &impl serde::Serialize) -> Response {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let text = serde_json::to_string(answer).expect("a struct of strings always serializes");
    // It may quote databases and webhook receivers, and people read it on terminals.
    let mut text = json_line(text).into_owned();
    text.push('\n');
    (status, [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], text).into_response()
}
