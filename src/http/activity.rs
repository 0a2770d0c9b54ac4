//! Tracks whether a connection waits for its client or is answering requests.
//!
//! Promises a deadline for every wait for the client, and that the connection's place counts as idle exactly while no request is
//! being answered. A request is being answered until the last piece of its body was taken. Must not know requests.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::Version;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::pace;
use crate::places::Place;

/// How long the head of a request may take: the first one from accepting the connection, without the TLS handshake, each further
/// one from its first byte. A head fits into a few packets.
pub const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// How long a connection is kept without a request. Above the usual 60 s of proxies and of Prometheus' scrapes, so that the
/// client closes first, and no request arrives on a connection that is about to end.
pub const IDLE_LIMIT: Duration = Duration::from_secs(75);

/// The activity of one connection.
#[derive(Debug)]
pub struct Activity {
    place: Place,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// How many requests are being answered.
    answering: usize,
    /// Since when it waits for its client, if it does.
    waits_since: Instant,
    /// When the first byte of a further head arrived.
    head_since: Option<Instant>,
    version: Option<Version>,
    /// The number of the next request.
    next: u64,
    /// HTTP/2: since when a piece of an answer waits until the client has room for it, by request.
    blocked: BTreeMap<u64, Instant>,
}

impl Activity {
    pub fn new(place: Place) -> Arc<Self> {
        let state = State {
            answering: 0,
            waits_since: Instant::now(),
            head_since: None,
            version: None,
            next: 0,
            blocked: BTreeMap::new(),
        };
        Arc::new(Self { place, state: Mutex::new(state) })
    }

    /// Notes the end of the TLS handshake: the time for the first request begins.
    pub fn is_open(&self) {
        self.lock().waits_since = Instant::now();
    }

    /// Notes that bytes from the client arrived.
    fn came(&self) {
        let mut state = self.lock();
        // HTTP/2 has bytes without a request: pings, settings.
        let is_head = state.answering == 0 && state.version.is_some_and(|version| version < Version::HTTP_2);
        if is_head && state.head_since.is_none() {
            state.head_since = Some(Instant::now());
        }
    }

    /// Notes a request; it is being answered until the result is dropped.
    pub fn begins(self: &Arc<Self>, version: Version) -> Answering {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.answering += 1;
        (state.version, state.head_since) = (Some(version), None);
        self.place.now_busy();
        Answering { activity: self.clone(), number }
    }

    /// Returns by when the client must act; `None` while it is the daemon's turn.
    pub fn deadline(&self) -> Option<Instant> {
        let state = self.lock();
        let reads = state.blocked.values().min().map(|since| *since + pace::TIMEOUT);
        let asks = (state.answering == 0).then(|| match (state.version, state.head_since) {
            (None, _) => state.waits_since + HEAD_LIMIT,
            (Some(_), Some(head)) => head + HEAD_LIMIT,
            (Some(_), None) => state.waits_since + IDLE_LIMIT,
        });
        reads.into_iter().chain(asks).min()
    }

    /// Waits until the connection must end because another one got its place.
    pub async fn evicted(&self) {
        self.place.evicted().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is being answered, until this is dropped.
#[derive(Debug)]
pub struct Answering {
    activity: Arc<Activity>,
    number: u64,
}

impl Drop for Answering {
    fn drop(&mut self) {
        let mut state = self.activity.lock();
        state.blocked.remove(&self.number);
        state.answering -= 1;
        if state.answering == 0 {
            state.waits_since = Instant::now();
            self.activity.place.now_idle();
        }
    }
}

/// Something that is held while a body is being sent.
pub trait Held: Send + Unpin + 'static {
    /// The body is asked for its next piece.
    fn asked(&self) {}
    /// The body has given a piece.
    fn gave(&self) {}
}

impl Held for Place {}

impl Held for Answering {
    fn asked(&self) {
        self.activity.lock().blocked.remove(&self.number);
    }

    fn gave(&self) {
        let mut state = self.activity.lock();
        // HTTP/2 asks for the next piece once the client had room for this one; of an HTTP/1 connection `pace` notices.
        if state.version == Some(Version::HTTP_2) {
            state.blocked.insert(self.number, Instant::now());
        }
    }
}

/// A body that holds something until it was taken.
///
/// It is given in pieces, and HTTP/2 asks for the next one only once the client had room for this one. So an answer that
/// nobody reads is held, and counts, however short it is.
#[derive(Debug)]
pub struct Holding<H> {
    body: Body,
    held: H,
    /// What is left of the last frame of `body`.
    rest: Bytes,
    has_given: bool,
}

impl<H: Held> Holding<H> {
    pub fn new(body: Body, held: H) -> Self {
        Self { body, held, rest: Bytes::new(), has_given: false }
    }
}

impl<H: Held> HttpBody for Holding<H> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.held.asked();
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let length = self.rest.len().min(pace::LEAST);
        let piece = self.rest.split_to(length);
        self.has_given = true;
        self.held.gave();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    /// Reports the end only after the last piece was taken, so that the piece is held until then.
    fn is_end_stream(&self) -> bool {
        !self.has_given && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(hint.lower().saturating_add(rest));
        hint
    }
}

/// The body of a request, which notes what the client sends: over HTTP/2 too, a client may send a long body before it
/// reads the answers to its beginning.
#[derive(Debug)]
pub struct Sending<B> {
    body: B,
    activity: Arc<Activity>,
    number: u64,
    /// How many bytes arrived since the last note.
    came: usize,
}

impl<B> Sending<B> {
    pub fn new(body: B, answering: &Answering) -> Self {
        Self { body, activity: answering.activity.clone(), number: answering.number, came: 0 }
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Sending<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            self.came += frame.data_ref().map_or(0, Bytes::len);
            if self.came >= pace::LEAST {
                self.came = 0;
                if let Some(since) = self.activity.lock().blocked.get_mut(&self.number) {
                    *since = Instant::now();
                }
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection that notes when bytes come.
#[derive(Debug)]
pub struct Noted<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Noted<S> {
    pub fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.came();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
