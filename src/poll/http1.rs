//! One HTTP/1 connection: carries one request at a time, and detects bytes that arrive between two requests.
//!
//! Promises that a connection is kept only after a whole answer with nothing after it. Between two requests no HTTP code reads
//! the connection, so any byte on it is a stray answer. Must not know PINs.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::rt::{Read, ReadBuf};
use hyper::{Request, Response};
use hyper_rustls::MaybeHttpsStream;
use rustix::net::{RecvFlags, recv};
use tokio::time::{Instant, timeout};

use super::connector::{Stream, socket};

/// The longest time that an answer is assumed to need.
const SLOWEST: Duration = Duration::from_secs(1);

/// A connection between two requests.
pub(super) struct Resting {
    stream: Stream,
    since: Instant,
    /// How long its slowest answer took.
    slowest: Duration,
    open: Open,
}

/// Counts the open connections: each holds a clone.
pub(super) type Open = Arc<()>;

/// Something on a connection that should be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// It is closed, or TLS has a message: not to be reused, and no fault.
    Closed,
    /// An answer without a request, or a part of one.
    Stray,
}

impl Resting {
    pub fn new(stream: Stream, open: Open) -> Self {
        Self { stream, since: Instant::now(), slowest: Duration::ZERO, open }
    }

    /// How long it has rested.
    pub fn rested(&self) -> Duration {
        self.since.elapsed()
    }

    /// Whether it had an answer already.
    pub fn is_used(&self) -> bool {
        !self.slowest.is_zero()
    }

    /// What is on the connection now.
    pub fn look(&mut self) -> Found {
        match self.poll_read(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(found) => found,
            // The runtime may not have noticed yet what the system has received.
            Poll::Pending => {
                let is_tls = matches!(*self.stream, MaybeHttpsStream::Https(_));
                match recv(socket(&self.stream), &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
                    Err(error) if io::Error::from(error).kind() == io::ErrorKind::WouldBlock => {
                        Found::Nothing
                    }
                    Ok((_, 1..)) if !is_tls => Found::Stray,
                    Ok(_) | Err(_) => Found::Closed,
                }
            }
        }
    }

    /// Waits for bytes as long as its slowest answer took. If the answer before was a stray one, the right one is still to come.
    pub async fn watch(&mut self, margin: Duration) -> Found {
        let time = self.slowest + margin;
        match timeout(time, poll_fn(|cx| self.poll_read(cx))).await {
            Ok(found) => found,
            Err(_) => self.look(),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Found> {
        let mut byte = [0; 1];
        let mut buffer = ReadBuf::new(&mut byte);
        Pin::new(&mut self.stream).poll_read(cx, buffer.unfilled()).map(|read| match read {
            Ok(()) if !buffer.filled().is_empty() => Found::Stray,
            Ok(()) | Err(_) => Found::Closed,
        })
    }
}

/// A connection with a running request.
pub(super) struct Http1 {
    sender: http1::SendRequest<Empty<Bytes>>,
    connection: http1::Connection<Stream, Empty<Bytes>>,
    /// The connection has ended; it must not be polled again.
    is_done: bool,
    sent: Instant,
    slowest: Duration,
    open: Open,
}

impl Http1 {
    pub async fn new(resting: Resting) -> Result<Self, hyper::Error> {
        let (sender, connection) = http1::handshake(resting.stream).await?;
        let (sent, slowest, open) = (Instant::now(), resting.slowest, resting.open);
        Ok(Self { sender, connection, is_done: false, sent, slowest, open })
    }

    pub async fn send(&mut self, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, hyper::Error> {
        let answer = self.sender.send_request(request);
        self.drive(answer).await
    }

    /// Drives the connection while waiting for something from it. It has no task of its own, which would cost each poll two task
    /// switches.
    pub async fn drive<F: Future>(&mut self, awaited: F) -> F::Output {
        let mut awaited = pin!(awaited);
        poll_fn(|cx| match awaited.as_mut().poll(cx) {
            Poll::Pending => {
                // The waiting poll gets its error.
                self.is_done = self.is_done || self.connection.poll_without_shutdown(cx).is_ready();
                awaited.as_mut().poll(cx)
            }
            ready => ready,
        })
        .await
    }

    /// Returns the connection after a whole answer, if it is reusable. `Err` if more than the answer came.
    pub fn into_resting(mut self) -> Result<Option<Resting>, Strayed> {
        let took = self.sent.elapsed().clamp(Duration::from_nanos(1), SLOWEST);
        let mut cx = Context::from_waker(Waker::noop());
        let has_ended = self.is_done || self.connection.poll_without_shutdown(&mut cx).is_ready();
        let is_ready = !has_ended && self.sender.is_ready();
        let parts = self.connection.into_parts();
        if !parts.read_buf.is_empty() {
            return Err(Strayed);
        }
        let slowest = self.slowest.max(took);
        Ok(is_ready.then(|| Resting { stream: parts.io, since: Instant::now(), slowest, open: self.open }))
    }
}

/// More than the answer came on a connection.
pub(super) struct Strayed;
