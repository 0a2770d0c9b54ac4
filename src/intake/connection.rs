//! Serves one client: reads lines, answers each in order, and commits neighbouring submits together.
//!
//! Guarantees an answer to every line that was read while the connection lasts, and a time limit for every wait for
//! the client. Must not know how a request is answered.

use std::time::Duration;

use futures_util::stream::{FuturesOrdered, StreamExt};
use serde::Serialize;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::time::{Instant, interval, timeout_at};
use tracing::{debug, info};

use crate::lines::{self, Line, Lines};
use crate::operations::{self, Failure, cancelled_state, in_time, outcome_of, shutting_down};
use crate::outgoing::{Gone, Outgoing, PIECE, Room, SMALL, STALL, write_out};
use crate::pin::PinId;
use crate::places::Place;
use crate::protocol::{self, Code, MAX_ANSWER, Refusal, Request, parse, submit};
use crate::services::Services;
use crate::submits::{self, BATCH, BATCH_BYTES, line};

/// The most cancels that run at the same time.
const CANCELS: usize = 512;

/// The most bytes that one read adds.
const READ: usize = 128 * 1024;

/// How long a client may take from the first byte of a line to its last.
const LINE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a client may send nothing while no answer is due.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// How often a connection that waits or follows checks whether its client is still connected.
const LOOK: Duration = Duration::from_secs(1);

/// Serves one client until it hangs up or stalls, the connection gives way to a new one, or the daemon stops.
pub async fn serve(stream: UnixStream, services: &Services, place: Place) {
    let (reader, writer) = stream.into_split();
    let (outgoing, incoming) = Outgoing::new(services.room.clone());
    let reading = async {
        let lines = Lines::default();
        let mut connection = Connection { services, outgoing, reader, lines, place: &place };
        // A client that is gone gets no answer, so its error has no reader.
        let _ = connection.run().await;
    };
    let cut = protocol::refused(&Code::Timeout.because(format!(
        "answers were left unread for {} s, so this connection is closed; continue a tail with \"from\"",
        STALL.as_secs()
    )));
    let served = async {
        let (_, written) = tokio::join!(reading, write_out(incoming, writer, cut.as_bytes()));
        if let Err(stalled) = written {
            info!("a connection was cut: {stalled}");
        }
    };
    tokio::select! {
        () = served => {}
        () = place.evicted() => debug!("an idle connection was closed to make room for a new one"),
    }
}

pub(super) struct Connection<'a> {
    pub(super) services: &'a Services,
    pub(super) outgoing: Outgoing,
    reader: OwnedReadHalf,
    lines: Lines,
    place: &'a Place,
}

impl Connection<'_> {
    async fn run(&mut self) -> Result<(), Gone> {
        // Whether the client is in the middle of a line, and when the present wait began.
        let mut waiting = (false, Instant::now());
        loop {
            let has_answered = self.answer_lines().await?;
            if self.services.stop.is_cancelled() {
                return Ok(());
            }
            self.lines.buffer.reserve(READ);
            let in_the_middle = self.lines.in_the_middle();
            // Restarts the limit only after an answer or at a line's beginning: if every byte restarted it, a line
            // could take forever.
            if has_answered || in_the_middle != waiting.0 {
                waiting = (in_the_middle, Instant::now());
            }
            let until = waiting.1 + if in_the_middle { LINE_TIMEOUT } else { IDLE_TIMEOUT };
            self.place.now_idle();
            let read = tokio::select! {
                read = timeout_at(until, self.reader.read_buf(&mut self.lines.buffer)) => read,
                () = self.services.stop.cancelled() => continue,
                () = self.outgoing.closed() => return Err(Gone),
            };
            self.place.now_busy();
            match read {
                Ok(Ok(0)) => return self.end_of_stream().await,
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Err(Gone),
                // Closes without a message: a client could take it for the answer to a request that it is just
                // sending.
                Err(_) if !in_the_middle => return Ok(()),
                Err(_) => {
                    let seconds = LINE_TIMEOUT.as_secs();
                    let message =
                        format!("a line began {seconds} s ago and did not end; the connection is closed");
                    return self.refuse(Code::Timeout.because(message)).await;
                }
            }
        }
    }

    /// Refuses a last line without a newline: it may be cut off, and half a PIN ID must not be submitted.
    async fn end_of_stream(&mut self) -> Result<(), Gone> {
        if !self.lines.in_the_middle() {
            return Ok(());
        }
        let message = "the last line has no newline, so it may be cut off; it was not accepted";
        self.refuse(Code::InvalidRequest.because(message)).await
    }

    /// Answers every complete line that was read; returns whether there was any.
    ///
    /// Gathers neighbouring submits, and neighbouring cancels, because each alone would wait for a commit of its own.
    async fn answer_lines(&mut self) -> Result<bool, Gone> {
        let (mut submits, mut cancels) = (Vec::new(), Vec::new());
        let (mut gathered, mut any) = (0, false);
        while let Some(line) = self.lines.next_line() {
            any = true;
            if let Line::Whole(line) = &line {
                gathered += line.len();
            }
            let request = match line {
                _ if self.services.stop.is_cancelled() => Err(shutting_down()),
                Line::Whole(line) => parse(&line),
                Line::TooLong => Err(lines::too_long()),
            };
            match request {
                Ok(Request::Submit(submit)) => {
                    self.cancel_all(std::mem::take(&mut cancels)).await?;
                    submits.push(submit);
                    if submits.len() == BATCH || gathered >= BATCH_BYTES {
                        gathered = 0;
                        self.submit(std::mem::take(&mut submits)).await?;
                    }
                }
                Ok(Request::Cancel(cancel)) => {
                    self.submit(std::mem::take(&mut submits)).await?;
                    cancels.push(cancel.pin_id);
                    if cancels.len() == CANCELS {
                        self.cancel_all(std::mem::take(&mut cancels)).await?;
                    }
                }
                other => {
                    self.submit(std::mem::take(&mut submits)).await?;
                    self.cancel_all(std::mem::take(&mut cancels)).await?;
                    match other {
                        Ok(request) => self.answer(request).await?,
                        Err(refusal) => self.refuse(refusal).await?,
                    }
                }
            }
        }
        // At most one of the two lists is not empty here.
        self.submit(submits).await?;
        self.cancel_all(cancels).await?;
        Ok(any)
    }

    /// Withdraws PINs together, and answers in the order of the requests once all have their outcome. Does not keep
    /// large records meanwhile, but reads each again when its turn comes.
    async fn cancel_all(&mut self, pins: Vec<PinId>) -> Result<(), Gone> {
        let cancels = pins.into_iter().map(async |pin| {
            let record = operations::cancel(self.services, &pin).await;
            (pin, record.map(|record| Some(record).filter(|record| record.len() <= SMALL)))
        });
        let outcomes: Vec<_> = cancels.collect::<FuturesOrdered<_>>().collect().await;
        for (pin, record) in outcomes {
            let room =
                self.outgoing.room(if matches!(record, Ok(None)) { MAX_ANSWER } else { PIECE }).await?;
            let record = match record {
                Ok(Some(record)) => Ok(record),
                Ok(None) => outcome_of(self.services, &pin).await.map(|outcome| outcome.record),
                Err(failure) => Err(failure),
            };
            self.send_line(room, record.map(|record| line(&pin, cancelled_state(&record), &record)))?;
        }
        Ok(())
    }

    async fn submit(&mut self, submits: Vec<submit::Request>) -> Result<(), Gone> {
        if submits.is_empty() {
            return Ok(());
        }
        let ids: Vec<PinId> = submits.iter().map(|submit| submit.pin_id.clone()).collect();
        let result = operations::submit(self.services, submits, None).await;
        submits::answer(self.services, &self.outgoing, &ids, result).await
    }

    async fn answer(&mut self, request: Request) -> Result<(), Gone> {
        let services = self.services;
        match request {
            // `answer_lines` gathers submits and cancels; these arms only make the match complete.
            Request::Submit(request) => self.submit(vec![request]).await,
            Request::Cancel(request) => self.cancel_all(vec![request.pin_id]).await,
            Request::Show(request) => self.reply(in_time(operations::show(services, request))).await,
            Request::List(request) => self.reply(in_time(operations::list(services, request))).await,
            Request::Count(request) => self.reply(in_time(operations::count(services, request))).await,
            Request::CancelMatching(request) => {
                self.reply(operations::cancel_matching(services, request)).await
            }
            Request::Wait(request) => self.reply(operations::wait(services, request, self.hang_up())).await,
            Request::Tail(request) => self.tail(request).await,
            Request::Stats(_) => self.reply(in_time(operations::stats(services))).await,
            Request::Schedule(_) => self.reply(in_time(operations::schedule(services))).await,
            Request::Nodes(_) => self.reply(in_time(operations::nodes(services))).await,
            Request::Ping(_) => self.reply(async { Ok(operations::ping()) }).await,
            Request::DeadLetters(request) => {
                self.reply(in_time(operations::dead_letters(services, request))).await
            }
            Request::Replay(request) => self.reply(operations::replay(services, request)).await,
            Request::Drop(request) => self.reply(operations::drop(services, request)).await,
            Request::ForgetSink(request) => self.reply(operations::forget_sink(services, request)).await,
        }
    }

    /// Reserves room for the answer, then computes and sends it.
    async fn reply<A: Serialize>(
        &self,
        answer: impl Future<Output = Result<A, Failure>>,
    ) -> Result<(), Gone> {
        let room = self.outgoing.room(MAX_ANSWER).await?;
        self.send(room, answer.await)
    }

    /// Sends an answer or a refusal.
    pub(super) fn send<A: Serialize>(&self, room: Room, answer: Result<A, Failure>) -> Result<(), Gone> {
        self.send_line(room, answer.map(|answer| protocol::answer(&answer)))
    }

    fn send_line(&self, room: Room, answer: Result<impl Into<Vec<u8>>, Failure>) -> Result<(), Gone> {
        match answer {
            Ok(line) => self.outgoing.send(room, line),
            Err(Failure::Refused(refusal)) => self.outgoing.send(room, protocol::refused(&refusal)),
            Err(Failure::ClientGone) => Err(Gone),
        }
    }

    /// Waits until the client has closed the connection. A client that only stops writing, as `nc -N` does, is still
    /// there.
    pub(super) async fn hang_up(&self) {
        let mut look = interval(LOOK);
        loop {
            tokio::select! {
                _ = look.tick() => {}
                () = self.outgoing.closed() => return,
            }
            let stream: &UnixStream = self.reader.as_ref();
            let mut asked = [rustix::event::PollFd::new(stream, rustix::event::PollFlags::empty())];
            let hung_up = rustix::event::PollFlags::HUP | rustix::event::PollFlags::ERR;
            let answer = rustix::event::poll(&mut asked, Some(&rustix::time::Timespec::default()));
            if answer.is_ok() && asked[0].revents().intersects(hung_up) {
                return;
            }
        }
    }

    pub(super) async fn refuse(&self, refusal: Refusal) -> Result<(), Gone> {
        let room = self.outgoing.room(SMALL).await?;
        self.outgoing.send(room, protocol::refused(&refusal))
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
