//! NDJSON at `POST /v1/pins`: a PIN a line, answered line by line as commits complete.
//!
//! Promises an answer to every line that is not blank, in order, and that a client may send all of its lines before it reads
//! any answer. A body that stalls or breaks off ends with a line that says so; what was answered before is durable.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Api;
use super::call::{BODY_STALL, NDJSON};
use crate::http::problem::Problem;
use crate::http::room::hold;
use crate::http::tokens::Client;
use crate::lines::{self, Line, Lines};
use crate::operations::{self, shutting_down};
use crate::outgoing::{Gone, Outgoing, SMALL, STALL};
use crate::pin::PinId;
use crate::protocol::{self, Code, Refusal, parse_fields, submit::Request};
use crate::store::Submitted;
use crate::submits::{self, BATCH, at_capacity};

/// How much is read while the lines before it are being committed, in bytes.
const READ: usize = 256 * 1024;

/// The memory of a running request, in bytes: what was read, and what was made from it.
const COST: usize = 2 * READ;

/// Submits the lines of the body. The first batch decides the status.
pub async fn submit(api: Arc<Api>, client: Client, body: Body) -> Result<Response, Problem> {
    let charge = client.room.take(COST).await?;
    let (outgoing, incoming) = Outgoing::new(api.services.room.clone());
    let (decide, decided) = oneshot::channel();
    let is_whole = Arc::new(AtomicBool::new(false));
    let mut stream = Stream {
        api: api.clone(),
        client,
        outgoing,
        source: Source { body, lines: Lines::default(), has_more: false, ended: None },
        decide: Some(decide),
    };
    // A task of its own, so that it keeps reading the body while the client does not read answers.
    let whole = is_whole.clone();
    api.tasks.spawn(async move {
        // A client that is gone gets no answer.
        whole.store(stream.run().await.is_ok(), Ordering::Release);
        drop((stream, charge));
    });
    // A task that ends without a decision has panicked.
    decided.await.unwrap_or_else(|_| Err(Problem::internal()))?;
    let answers = unfold(Some((incoming, is_whole)), async |answers| {
        let (mut incoming, is_whole) = answers?;
        match incoming.next().await {
            Some((bytes, room)) => Some((Ok(hold(bytes, room)), Some((incoming, is_whole)))),
            None if is_whole.load(Ordering::Acquire) => None,
            // An error, so that a cut-off answer does not look complete.
            None => Some((Err(io::Error::from(io::ErrorKind::TimedOut)), None)),
        }
    });
    let answers = Body::from_stream(answers);
    Ok((StatusCode::ACCEPTED, [(CONTENT_TYPE, HeaderValue::from_static(NDJSON))], answers).into_response())
}

/// The lines of one request on their way to the store.
struct Stream {
    api: Arc<Api>,
    client: Client,
    outgoing: Outgoing,
    source: Source,
    /// Sends the handler the first result: that answers follow, or a problem. `None` after that.
    decide: Option<oneshot::Sender<Result<(), Problem>>>,
}

/// The body, cut into lines.
struct Source {
    body: Body,
    lines: Lines,
    /// Whether more arrived between two reads.
    has_more: bool,
    /// How the body ended; what was read before may still be in `lines`.
    ended: Option<End>,
}

/// How a body ended.
#[derive(Debug, Clone, Copy)]
enum End {
    /// As it should.
    Whole,
    Broken,
}

impl Source {
    /// Waits for more of the body, unless some came meanwhile. Returns the end once all that came before was taken.
    async fn read(&mut self) -> Option<End> {
        if !self.has_more && self.ended.is_none() {
            self.read_frame().await;
        }
        if std::mem::take(&mut self.has_more) { None } else { self.ended }
    }

    /// Reads on, up to [`READ`], for as long as this is polled: hyper gives a few KiB at a time, and a commit of so few lines
    /// takes as long as one of thousands.
    async fn read_on(&mut self) -> Infallible {
        while self.ended.is_none() && self.lines.buffer.len() < READ {
            self.read_frame().await;
        }
        pending().await
    }

    async fn read_frame(&mut self) {
        match self.body.frame().await {
            None => self.ended = Some(End::Whole),
            Some(Err(_)) => self.ended = Some(End::Broken),
            // Trailers are of no interest.
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.lines.buffer.extend_from_slice(&data);
                    self.has_more = true;
                }
            }
        }
    }
}

impl Stream {
    async fn run(&mut self) -> Result<(), Gone> {
        let stop = self.api.services.stop.clone();
        loop {
            let read = tokio::select! {
                read = timeout(BODY_STALL, self.source.read()) => read,
                () = stop.cancelled() => return self.end_with(shutting_down()).await,
                () = self.outgoing.closed() => return Err(Gone),
            };
            match read {
                Ok(None) => self.answer_lines(false).await?,
                Ok(Some(End::Whole)) => {
                    self.answer_lines(true).await?;
                    self.decide(Ok(()));
                    return Ok(());
                }
                Ok(Some(End::Broken)) => {
                    let message = "the body broke off, so its last line was not accepted";
                    return self.end_with(Code::InvalidRequest.because(message)).await;
                }
                Err(_) => {
                    let seconds = BODY_STALL.as_secs();
                    let message = format!(
                        "no part of the body came for {seconds} s; lines without an answer were not accepted"
                    );
                    return self.end_with(Code::Timeout.because(message)).await;
                }
            }
        }
    }

    /// Answers every whole line that was read; at the end of the body also the last, with or without its newline.
    async fn answer_lines(&mut self, is_end: bool) -> Result<(), Gone> {
        let mut submits = Vec::new();
        loop {
            let mut line = self.source.lines.next_line();
            if line.is_none() && is_end {
                line = self.source.lines.last_line();
            }
            let Some(line) = line else { break };
            let request = match line {
                Line::Whole(line) if line.trim_ascii().is_empty() => continue,
                Line::Whole(line) => str::from_utf8(&line)
                    .map_err(|_| Code::InvalidJson.because("the line is not UTF-8"))
                    .and_then(parse_fields),
                Line::TooLong => Err(lines::too_long()),
            };
            match request {
                Ok(request) => {
                    submits.push(request);
                    if submits.len() == BATCH {
                        self.submit(std::mem::take(&mut submits)).await?;
                    }
                }
                Err(refusal) => {
                    self.submit(std::mem::take(&mut submits)).await?;
                    self.refuse(&refusal).await?;
                }
            }
        }
        self.submit(submits).await
    }

    async fn submit(&mut self, submits: Vec<Request>) -> Result<(), Gone> {
        if submits.is_empty() {
            return Ok(());
        }
        let ids: Vec<PinId> = submits.iter().map(|submit| submit.pin_id.clone()).collect();
        let committing = operations::submit(&self.api.services, submits, Some(self.client.name.shared()));
        let result = tokio::select! {
            result = committing => result,
            never = self.source.read_on() => match never {},
        };
        let taken =
            |states: &Vec<Submitted>| states.iter().filter(|state| **state != Submitted::AtCapacity).count();
        let taken = result.as_ref().map_or(0, taken);
        self.api.audit.submitted(&self.client.name, taken);
        if self.decide.is_some() && taken == 0 {
            let refusal = result.err().or_else(|| ids.first().map(at_capacity));
            self.decide(Err(refusal.map_or_else(Problem::internal, Problem::from)));
            return Err(Gone);
        }
        self.decide(Ok(()));
        let answering = submits::answer(&self.api.services, &self.outgoing, &ids, result);
        // A client that leaves its answers unread for this long gets no more of them.
        timeout(STALL, answering).await.unwrap_or(Err(Gone))
    }

    /// Answers a line that is refused.
    async fn refuse(&mut self, refusal: &Refusal) -> Result<(), Gone> {
        self.decide(Ok(()));
        let room = timeout(STALL, self.outgoing.room(SMALL)).await.unwrap_or(Err(Gone))?;
        self.outgoing.send(room, protocol::refused(refusal))
    }

    /// Says why the answers end here; with a problem if there were none.
    async fn end_with(&mut self, refusal: Refusal) -> Result<(), Gone> {
        if self.decide.is_some() {
            self.decide(Err(refusal.into()));
            return Ok(());
        }
        self.refuse(&refusal).await
    }

    fn decide(&mut self, decision: Result<(), Problem>) {
        if let Some(decide) = self.decide.take() {
            // If the client is gone, so is its handler.
            let _ = decide.send(decision);
        }
    }
}
