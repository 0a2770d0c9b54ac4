//! Serves `/metrics`, `/healthz`, `/readyz`, the status page at `/` and the API at `/v1` over HTTP if `http.listen` is set or
//! systemd passed a TCP socket.
//!
//! Promises that no client can harm the daemon or keep another one from an answer: connections, their duration and the size of
//! requests are bounded (`serve.rs`, `connection.rs`), and no answer waits long for a silent part. Whether a client may ask is
//! decided before a handler runs: by TLS (`tls.rs`), by the host that a request names (`host.rs`), and at `/v1` by a token
//! (`tokens.rs`). `docs/http.md`, `docs/http-api.md` and `docs/metrics.md` document it for users.

mod activity;
mod admission;
mod certificates;
mod connection;
mod failures;
mod gather;
mod health;
mod history;
mod host;
mod pace;
mod page;
mod peer;
mod problem;
mod room;
mod serve;
mod tasks;
mod tls;
pub mod tokens;
mod v1;

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use self::admission::Admission;
pub use self::certificates::{FileError, load as load_certificates};
use self::connection::Front;
use self::failures::Failures;
use self::history::History;
use self::host::Hosts;
pub use self::problem::CODES as PROBLEM_CODES;
use self::tasks::Tasks;
pub use self::tls::Tls;
use self::tokens::{Tokens, TokensError};
use crate::config::{self, Config};
use crate::metrics::{self, Recorded};
use crate::operations::findings::Status;
use crate::pulse::Pulse;
use crate::services::Services;
use crate::text::json_line;

/// How often the recorded samples are sorted into their histogram buckets.
const UPKEEP: Duration = Duration::from_secs(1);

/// Scrapes that are answered at once.
const MAX_SCRAPES: usize = 32;

/// Why HTTP is not served.
#[derive(Debug, Error)]
pub enum ListenError {
    #[error("can't listen for HTTP at {address} (http.listen): {source}")]
    Address { address: SocketAddr, source: io::Error },
    #[error("the TCP socket that was passed (LISTEN_FDS) can't be used: {0}. Check the .socket unit")]
    Passed(#[source] io::Error),
    #[error(
        "the TCP socket that was passed (LISTEN_FDS) listens at {0}, where anybody between client and daemon can read \
         plain HTTP; give http.tls_cert and http.tls_key, or allow it: http.allow_remote = true"
    )]
    Open(SocketAddr),
}

/// The listening socket; nothing if HTTP is off.
pub struct Listener(Option<Listening>);

struct Listening {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
    recorded: &'static Recorded,
}

/// The server's tasks; none if HTTP is off. Dropping this ends them.
pub struct Http {
    tasks: JoinSet<()>,
    /// The tasks of requests.
    requests: Tasks,
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
    tls: Option<Arc<Tls>>,
}

/// The configured limits, for comparison with the current numbers.
struct Limits {
    in_flight: usize,
    polls: usize,
    connections: usize,
}

impl Listener {
    /// Listens and starts to record metrics if `http.listen` is set or a socket was passed.
    ///
    /// # Errors
    /// The address can't be bound, or the passed socket can't be used.
    pub async fn bind(
        config: &Config,
        passed: Option<StdListener>,
        tls: Option<Tls>,
    ) -> Result<Self, ListenError> {
        let listener = match (passed, config.http.listen) {
            (Some(passed), _) => adopt(passed).map_err(ListenError::Passed)?,
            (None, Some(address)) => {
                let listener = TcpListener::bind(address).await;
                listener.map_err(|source| ListenError::Address { address, source })?
            }
            (None, None) => return Ok(Self(None)),
        };
        let address = listener.local_addr().map_err(ListenError::Passed)?;
        if !config.http.may_listen_at(address) {
            return Err(ListenError::Open(address));
        }
        let recorded = metrics::install();
        Ok(Self(Some(Listening { listener, address, tls: tls.map(Arc::new), recorded })))
    }

    /// Starts to serve. Reads the TLS files again when they change, and when `reloads` does.
    pub fn serve(
        self,
        config: &Config,
        services: Services,
        pulse: Pulse,
        tokens: Option<Arc<Tokens>>,
        reloads: watch::Receiver<u64>,
    ) -> Http {
        let stop = CancellationToken::new();
        let (mut tasks, requests) = (JoinSet::new(), Tasks::new());
        let (tokens, current) = watch::channel(tokens);
        let mut api = None;
        if let Some(Listening { listener, address, tls, recorded }) = self.0 {
            info!(%address, tls = tls.is_some(), "metrics, health and the status page are served over HTTP");
            let limits = Limits {
                in_flight: config.intake.max_in_flight,
                polls: config.api.concurrency,
                connections: config.intake.max_connections,
            };
            let started = services.clock.wall();
            let hosts = Hosts::new(&config.http, address);
            let (history, sampled) = (History::default(), services.clone());
            let failures = Failures::default();
            let page = page::Page::new(
                services.clone(),
                history.clone(),
                current.clone(),
                requests.clone(),
                failures.clone(),
                tls.is_some(),
            );
            let v1 = v1::Api::new(services.clone(), current, requests.clone(), failures);
            let server = Server { services, pulse, limits, recorded, started, tls: tls.clone() };
            let router = router(server).merge(v1::router(v1.clone())).merge(page::router(page.clone()));
            tasks.spawn(history::sample(history, sampled, stop.clone()));
            tasks.spawn(page.keep_current(stop.clone()));
            tasks.spawn(upkeep(recorded, v1.clone(), stop.clone()));
            api = Some(v1);
            if let Some(tls) = tls.clone() {
                tasks.spawn(tls.keep_current(reloads, stop.clone()));
            }
            let front = Arc::new(Front { router, tls, hosts, tasks: requests.clone() });
            tasks.spawn(serve::serve(listener, front, stop.clone()));
        }
        Http { tasks, requests, api, tokens, stop }
    }
}

/// Uses a socket that was passed, as it is.
fn adopt(passed: StdListener) -> io::Result<TcpListener> {
    passed.set_nonblocking(true)?;
    TcpListener::from_std(passed)
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

    /// Makes these tokens valid, and no others.
    pub fn renew_tokens(&self, tokens: Option<Arc<Tokens>>) {
        self.tokens.send_replace(tokens);
    }

    /// Stops the tasks, after a moment for answers under way.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        // Their connections are gone, so they have nobody to answer.
        self.requests.end(serve::GRACE).await;
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
    // Each scrape asks the store.
    let scrapes = Admission::new(MAX_SCRAPES, |_| {
        let later = [(RETRY_AFTER, "1"), (CONTENT_TYPE, "text/plain; charset=utf-8")];
        (StatusCode::SERVICE_UNAVAILABLE, later, "too many scrapes at once: try again in a second\n")
            .into_response()
    });
    Router::new()
        .route("/metrics", get(answer_metrics).route_layer(from_fn_with_state(scrapes, Admission::admit)))
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
