//! The server: HTTP/1.1 and HTTP/2 without TLS (prior knowledge), on one port.
//!
//! Guarantees that every task it starts ends with it, that [`Settings::max_pins`] and the number of open connections
//! bound its memory, and that it holds no lock while it waits. Must not know what a PIN's life is like
//! ([`life`](super::life)) or what a fault does ([`faults`](super::faults)).

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fastrand::Rng;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use percent_encoding::percent_decode_str;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::answers;
use super::counts::Counts;
use super::faults::{self, Fault, InvalidFault};
use super::life::{Known, Life, scaled, stable_hash};
use super::pins::Pins;
use super::script::Script;
use super::settings::Settings;
use crate::outcome::SmsStatus;
use crate::pin::PinId;

/// How long running requests may continue when the simulator stops. Short, because a stalled one never ends.
const GRACE: Duration = Duration::from_millis(500);

/// The pause after a failed `accept`, for example when file descriptors are exhausted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The place of the PIN ID in [`Settings::path`].
const PLACEHOLDER: &str = "{pinId}";

/// Why a simulator can't start.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("--fault: {0}")]
    Fault(#[from] InvalidFault),
    #[error("the path {0:?} is not one that begins with / and has {PLACEHOLDER} in it once")]
    Path(String),
    #[error("the key or the user name and password can't be sent in a header")]
    Credentials,
    #[error("the listening socket has no address: {0}")]
    Listener(#[source] io::Error),
}

/// A running simulator. It ends when it is dropped; [`Simulator::stop`] first sends the last answers.
pub struct Simulator {
    addr: SocketAddr,
    shared: Arc<Shared>,
    stopping: CancellationToken,
    /// The one task that owns all others.
    task: JoinSet<()>,
}

impl Simulator {
    /// Serves on this socket from now on. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The settings contradict each other, or the socket has no address.
    pub fn start(settings: Settings, listener: TcpListener) -> Result<Self, StartError> {
        let addr = listener.local_addr().map_err(StartError::Listener)?;
        let shared = Arc::new(Shared::new(settings)?);
        let stopping = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(accept(listener, Arc::clone(&shared), stopping.clone()));
        Ok(Self { addr, shared, stopping, task })
    }

    /// Returns the address at which it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the `api.base_url` for this simulator.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Returns the counts so far.
    pub fn counts(&self) -> Counts {
        self.shared.count(|counts| *counts)
    }

    /// Accepts no more connections, gives running requests half a second, and ends.
    pub async fn stop(mut self) -> Counts {
        self.stopping.cancel();
        while self.task.join_next().await.is_some() {}
        self.shared.count(|counts| *counts)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, stopping: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopping.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((io, _)) => {
                    connections.spawn(serve(io, Arc::clone(&shared), stopping.clone()));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(GRACE, ended).await.is_err() {
        connections.shutdown().await;
    }
}

/// Serves one connection to its end. HTTP/2 spawns a task per stream, which ends with the connection.
async fn serve(io: TcpStream, shared: Arc<Shared>, stopping: CancellationToken) {
    // An answer is one small write, which must not wait for the acknowledgement of the previous one.
    let _ = io.set_nodelay(true);
    let service = TowerToHyperService::new(answer.with_state(shared));
    let builder = Builder::new(TokioExecutor::new());
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    // An error means that the client left or that a fault was requested; both are normal here.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let settings = &shared.settings;
    let number = shared.count(|counts| {
        counts.requests += 1;
        counts.requests - 1
    });
    let mut rng = Rng::with_seed(stable_hash(settings.life.seed, &number.to_le_bytes()));
    let answer = shared.decide(&request, &mut rng);
    drop(request);

    let delay = settings.latency.saturating_add(scaled(settings.jitter, rng.f64()));
    if !delay.is_zero() {
        sleep(delay).await;
    }
    match answer {
        Answer::Right(json) => {
            shared.count(|counts| counts.answered(StatusCode::OK));
            answers::json(json)
        }
        Answer::Error(response) => {
            shared.count(|counts| counts.answered(response.status()));
            response
        }
        Answer::Fault(fault, right) => {
            shared.count(|counts| match fault {
                Fault::Status(status) => counts.answered(status),
                _ => counts.spoiled += 1,
            });
            faults::spoil(fault, right, settings.slow_every, &mut rng).await
        }
    }
}

/// The answer to a request.
enum Answer {
    Right(Bytes),
    Error(Response),
    /// The fault, and the correct answer that it replaces.
    Fault(Fault, Bytes),
}

impl Answer {
    fn error(status: StatusCode, text: &str) -> Self {
        Self::Error(answers::error(status, text))
    }
}

/// What all connections share.
struct Shared {
    settings: Settings,
    /// The settings' path before and after the PIN ID.
    path: (String, String),
    /// Every accepted `Authorization` header.
    credentials: Vec<HeaderValue>,
    pins: Pins,
    counts: Mutex<Counts>,
    started: Instant,
    /// The last second of the rate limit, and its requests.
    window: Mutex<(u64, u32)>,
}

impl Shared {
    fn new(settings: Settings) -> Result<Self, StartError> {
        faults::check(&settings.faults)?;
        let (username, password) = settings.user();
        let path = settings.path().replace("{username}", username);
        let path = path
            .split_once(PLACEHOLDER)
            .filter(|(before, after)| before.starts_with('/') && !after.contains(PLACEHOLDER))
            .map(|(before, after)| (before.to_owned(), after.to_owned()))
            .ok_or_else(|| StartError::Path(path.clone()))?;
        let is_basic = settings.preset.is_basic();
        let key = (!is_basic).then(|| format!("App {}", settings.key));
        let basic = (is_basic || settings.basic.is_some())
            .then(|| format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))));
        let credentials = key
            .into_iter()
            .chain(basic)
            .map(HeaderValue::try_from)
            .collect::<Result<_, _>>()
            .map_err(|_| StartError::Credentials)?;
        Ok(Self {
            path,
            credentials,
            pins: Pins::new(settings.max_pins),
            counts: Mutex::default(),
            started: Instant::now(),
            window: Mutex::default(),
            settings,
        })
    }

    /// Changes or reads the counts.
    fn count<T>(&self, change: impl FnOnce(&mut Counts) -> T) -> T {
        // A number is never half written, so what a panic left behind is good.
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn decide(&self, request: &Request, rng: &mut Rng) -> Answer {
        let Some(encoded) = self.pin_of(request.uri()) else {
            return Answer::error(StatusCode::NOT_FOUND, "There is nothing at this path.");
        };
        if request.method() != Method::GET {
            return Answer::error(StatusCode::METHOD_NOT_ALLOWED, "Only GET is allowed here.");
        }
        let given = request.headers().get(AUTHORIZATION);
        if !given.is_some_and(|given| self.credentials.contains(given)) {
            self.count(|counts| counts.bad_keys += 1);
            return Answer::error(StatusCode::UNAUTHORIZED, "Invalid login details");
        }
        let decoded = percent_decode_str(encoded).decode_utf8().unwrap_or(Cow::Borrowed(encoded));
        let pin: &str = &decoded;
        if let Err(error) = pin.parse::<PinId>() {
            return Answer::error(StatusCode::BAD_REQUEST, &error.to_string());
        }

        let life = &self.settings.life;
        let now = self.started.elapsed();
        let (age, new) = self.pins.age(stable_hash(life.seed, pin.as_bytes()), now);
        if new {
            self.count(|counts| counts.pins += 1);
        }
        if !self.admits(now) {
            return Answer::Error(answers::throttled(HeaderValue::from_static("1")));
        }
        let (life, always) = match Script::of(pin) {
            None => (Life::of(life, pin), None),
            Some(Script::Life(life)) => (life, None),
            Some(Script::Always(fault)) => {
                let delivered = Known::Sms(SmsStatus::Delivered);
                (Life::single(delivered, None, delivered), Some(fault))
            }
            Some(Script::Unheard) => {
                let text = "pinwatch simulate --help lists what can stand after sim- in a PIN ID.";
                return Answer::error(StatusCode::BAD_REQUEST, text);
            }
        };
        if let Some(fault) = always.or_else(|| faults::draw(&self.settings.faults, rng)) {
            return Answer::Fault(fault, self.settings.preset.body(pin, life.at(age)));
        }
        if age < self.settings.known_after {
            return Answer::error(StatusCode::NOT_FOUND, "Requested PIN not found.");
        }
        Answer::Right(self.settings.preset.body(pin, life.at(age)))
    }

    fn pin_of<'a>(&self, uri: &'a Uri) -> Option<&'a str> {
        let has_query = self.path.0.contains('?') || self.path.1.contains('?');
        let path = if has_query { uri.path_and_query()?.as_str() } else { uri.path() };
        let pin = path.strip_prefix(&*self.path.0)?.strip_suffix(&*self.path.1)?;
        Some(pin).filter(|pin| !pin.contains(['/', '&']))
    }

    /// Counts a request against the rate limit; returns whether it is within the limit.
    fn admits(&self, now: Duration) -> bool {
        let Some(limit) = self.settings.rate_limit else { return true };
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.0 < now.as_secs() {
            *window = (now.as_secs(), 0);
        }
        let is_within = window.1 < limit.get();
        window.1 += u32::from(is_within);
        is_within
    }
}
