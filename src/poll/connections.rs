//! The connections to the API that are kept between polls.
//!
//! Promises that a kept HTTP/1 connection is reused only if nothing arrived on it; only after a rest, unless the limit of open
//! connections is reached; and not for an hour after a stray answer. That limit is twice the polls that may run at once, but at
//! least [`FEWEST_OPEN`]. HTTP/2 knows which answer belongs to which request, so it has one connection for all polls.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http2;
use hyper::{Request, Response};
use hyper_util::client::legacy::connect::Connection as _;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::watch;

use super::answer::MAX_BODY;
use super::connector::{Connector, Stream};
use super::content::too_large;
use super::error::ClientError;
use super::failure::Failure;
use super::http1::{Found, Http1, Open, Resting, Strayed};
use super::strays::Strays;
use crate::config::Api;
use crate::http_client::failure::detail;
use crate::http_client::{HTTP2_PING_INTERVAL, HTTP2_PING_TIMEOUT};

/// How long a kept connection may be idle. Less than load balancers commonly allow (60 s, some 30 s), so that pinwatch nearly
/// always closes it first.
pub(super) const LONGEST_REST: Duration = Duration::from_secs(20);

/// How long a connection rests between two polls, as stray answers come within milliseconds of the good one. If none has rested
/// long enough, a new one is opened, up to the limit. Above about 40 polls a second for each poll that may run at once, polls
/// reuse the connection that has rested longest.
const REST: Duration = Duration::from_millis(50);

/// The least limit of open connections, even if fewer polls may run at once: consecutive polls take turns on them.
const FEWEST_OPEN: usize = 32;

/// The present set of connections; a set that was replaced may still carry running polls.
pub(super) struct Connections {
    connector: Connector,
    /// The one that has rested longest is at the front.
    http1: Mutex<VecDeque<Resting>>,
    http2: watch::Sender<Option<Http2>>,
    /// Counts those that are open, resting or not.
    open: Open,
    most_open: usize,
}

type Http2 = http2::SendRequest<Empty<Bytes>>;

/// Where a request goes.
pub(super) enum Route {
    /// Also whether it had an answer already.
    Http1(Box<Http1>, bool),
    Http2(Http2),
}

/// Whether an answer may belong to another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Its connection had no other request, or HTTP/2 says which request it belongs to.
    None,
    /// There was another request; so far, nothing speaks against the answer.
    Reused,
    /// There was another request, and more than this answer came.
    Strayed,
}

impl Connections {
    pub fn new(api: &Api, origin: &str) -> Result<Self, ClientError> {
        Ok(Self {
            connector: Connector::new(api, origin)?,
            http1: Mutex::default(),
            http2: watch::Sender::default(),
            open: Open::default(),
            most_open: (2 * api.concurrency).max(FEWEST_OPEN),
        })
    }

    /// Returns a kept connection, or a new one.
    pub async fn route(&self, strays: &Strays) -> Result<Route, Failure> {
        if let Some(sender) = usable(&self.http2.borrow()) {
            return Ok(Route::Http2(sender.clone()));
        }
        while let Some(mut resting) = self.take(strays) {
            match resting.look() {
                Found::Nothing => return Route::http1(resting).await,
                Found::Closed => {}
                Found::Stray => strays.note(),
            }
        }
        // The first poll that needs HTTP/2 opens the connection for all that wait.
        let mut opened = self.http2.subscribe();
        let by_another = async {
            let opened = opened.wait_for(|sender| usable(sender).is_some()).await.ok()?;
            opened.clone()
        };
        tokio::select! {
            biased;
            Some(sender) = by_another => Ok(Route::Http2(sender)),
            route = self.new_route() => {
                if let Ok(Route::Http2(sender)) = &route {
                    self.http2.send_replace(Some(sender.clone()));
                }
                route
            }
        }
    }

    /// Opens a new connection, which no other poll uses.
    pub async fn new_route(&self) -> Result<Route, Failure> {
        let stream = self.connector.connect().await?;
        if stream.connected().is_negotiated_h2() {
            http2(stream).await
        } else {
            Route::http1(Resting::new(stream, self.open.clone())).await
        }
    }

    /// Keeps a connection for another poll.
    pub fn keep(&self, resting: Resting, strays: &Strays) {
        if strays.recent().is_none() {
            let mut kept = self.kept();
            kept.push_back(resting);
            if self.open() > self.most_open {
                kept.pop_front();
            }
        }
    }

    /// Closes connections that have rested for too long.
    pub fn close_idle(&self, strays: &Strays) {
        let mut kept = self.kept();
        while let Some(mut idle) = kept.pop_front_if(|resting| resting.rested() >= LONGEST_REST) {
            if idle.look() == Found::Stray {
                strays.note();
            }
        }
    }

    /// Takes the last one that has rested long enough, so that surplus connections stay idle and are closed.
    fn take(&self, strays: &Strays) -> Option<Resting> {
        self.close_idle(strays);
        let mut kept = self.kept();
        if strays.recent().is_some() {
            kept.clear();
        }
        match kept.partition_point(|resting| resting.rested() >= REST) {
            0 if self.open() >= self.most_open => kept.pop_front(),
            0 => None,
            rested => kept.remove(rested - 1),
        }
    }

    /// The number of open connections, including those in use.
    fn open(&self) -> usize {
        // One more is our own.
        Arc::strong_count(&self.open) - 1
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Resting>> {
        // Each change is complete in itself, so a panic elsewhere leaves no partial state.
        self.http1.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn usable(sender: &Option<Http2>) -> Option<&Http2> {
    sender.as_ref().filter(|sender| !sender.is_closed())
}

async fn http2(stream: Stream) -> Result<Route, Failure> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP2_PING_INTERVAL)
        .keep_alive_timeout(HTTP2_PING_TIMEOUT)
        .handshake(stream)
        .await
        .map_err(Failure::Lost)?;
    // Ends with its last sender or with the connection; the poll that waits for an answer gets the error.
    tokio::spawn(connection);
    Ok(Route::Http2(sender))
}

impl Route {
    async fn http1(resting: Resting) -> Result<Self, Failure> {
        let is_used = resting.is_used();
        let http1 = Http1::new(resting).await.map_err(Failure::Lost)?;
        Ok(Self::Http1(Box::new(http1), is_used))
    }

    pub fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// Sends a request and waits for the head of its answer.
    pub async fn send(&mut self, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, Failure> {
        match self {
            Self::Http1(http1, _) => http1.send(request).await,
            Self::Http2(sender) => sender.send_request(request).await,
        }
        .map_err(Failure::Lost)
    }

    /// The whole body as received, or what went wrong. Never holds more than [`MAX_BODY`] and one chunk.
    pub async fn body(&mut self, body: Incoming) -> Result<Bytes, String> {
        match self {
            Self::Http1(http1, _) => http1.drive(whole(body)).await,
            Self::Http2(_) => whole(body).await,
        }
    }

    /// Whether an answer on this route may belong to an earlier request.
    pub fn doubt(&self) -> Doubt {
        match self {
            Self::Http1(_, true) => Doubt::Reused,
            Self::Http1(_, false) | Self::Http2(_) => Doubt::None,
        }
    }

    /// Returns the connection after a whole answer, if it is HTTP/1 and reusable.
    ///
    /// # Errors
    /// More than the answer came: on a reused connection, either may be the stray one.
    pub fn into_resting(self) -> Result<Option<Resting>, Strayed> {
        match self {
            Self::Http1(http1, _) => http1.into_resting(),
            Self::Http2(_) => Ok(None),
        }
    }
}

async fn whole(mut body: Incoming) -> Result<Bytes, String> {
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(too_large());
    }
    // Nearly every body comes in one chunk, which is not copied.
    let (mut first, mut whole) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the body is cut off or broken: {}", detail(&error)))?;
        let Ok(chunk) = frame.into_data() else { continue };
        if first.len() + whole.len() + chunk.len() > MAX_BODY {
            return Err(too_large());
        }
        if first.is_empty() && whole.is_empty() {
            first = chunk;
            continue;
        }
        whole.extend_from_slice(&std::mem::take(&mut first));
        whole.extend_from_slice(&chunk);
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}
