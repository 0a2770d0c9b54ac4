//! One client: reads lines, answers each in order, submits what waits together in one go.

use std::time::Duration;

use futures_util::stream::{FuturesOrdered, StreamExt};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::time::{Instant, interval, timeout, timeout_at};
use tracing::{debug, info, warn};

use super::answer;
use super::lines::{Line, Lines, MAX_LINE};
use super::outgoing::{Gone, MAX_ANSWER, Outgoing, PIECE, Pieces, Room, SMALL, STALL, SharedRoom, write_out};
use super::request::{Code, Refusal, Request, Submit, parse};
use super::{Services, elsewhere, upkeep};
use crate::pin::PinId;
use crate::places::Place;
use crate::schedule::Stopping;
use crate::store::{Fate, NewPin, Outcome, Record, Submitted, Unavailable};

/// Submits that are handed to the store together.
const BATCH: usize = 4096;

/// Cancels that are under way together.
const CANCELS: usize = 512;

/// Submits that are handed to the store together, in bytes of their lines, about.
const BATCH_BYTES: usize = 1024 * 1024;

/// How much is read at once, in bytes.
const READ: usize = 128 * 1024;

/// How long a client may take from the first byte of a line to its last.
const LINE_PATIENCE: Duration = Duration::from_secs(60);

/// How long a client may ask nothing, if it does not wait for anything either.
const IDLE_PATIENCE: Duration = Duration::from_secs(300);

/// How long the store may take to answer.
pub(super) const STORE_PATIENCE: Duration = Duration::from_secs(30);

/// How often a connection that waits or follows looks whether its client is still there.
const LOOK: Duration = Duration::from_secs(1);

/// Serves one client until it hangs up, stalls or the daemon stops.
pub async fn serve(stream: UnixStream, services: &Services, room: SharedRoom, place: Place) {
    let (reader, writer) = stream.into_split();
    let (outgoing, incoming) = Outgoing::new(room);
    let reading = async {
        let lines = Lines::default();
        let mut connection = Connection { services, outgoing, reader, lines, place: &place };
        // Gone: nobody is left to be told anything.
        let _ = connection.run().await;
    };
    let cut = answer::refused(&Code::Timeout.because(format!(
        "answers were left unread for {} s, so this connection is closed; a tail goes on with \"from\"",
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
        () = place.gives_way() => debug!("a connection was idle and gave way to a new one"),
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
        // Since when the client is waited for, and whether it is in the middle of a line.
        let mut waiting = (false, Instant::now());
        loop {
            let has_answered = self.answer_lines().await?;
            if self.services.stop.is_cancelled() {
                return Ok(());
            }
            self.lines.buffer.reserve(READ);
            let in_the_middle = self.lines.in_the_middle();
            // Not with every byte, or a line could take for ever.
            if has_answered || in_the_middle != waiting.0 {
                waiting = (in_the_middle, Instant::now());
            }
            let until = waiting.1 + if in_the_middle { LINE_PATIENCE } else { IDLE_PATIENCE };
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
                // Without a word: it could be taken for the answer to a request that is on its way.
                Err(_) if !in_the_middle => return Ok(()),
                Err(_) => {
                    let seconds = LINE_PATIENCE.as_secs();
                    let message =
                        format!("a line began {seconds} s ago and did not end; the connection is closed");
                    return self.refuse(Code::Timeout.because(message)).await;
                }
            }
        }
    }

    /// A line without its newline may have been cut off: half a PIN ID must not pass for one.
    async fn end_of_stream(&mut self) -> Result<(), Gone> {
        if !self.lines.in_the_middle() {
            return Ok(());
        }
        let message = "the last line has no newline, so it may be cut off; it was not taken";
        self.refuse(Code::InvalidRequest.because(message)).await
    }

    /// Answers every whole line that was read; gives whether there was any. Submits are gathered until something else
    /// comes, and so are cancels: each alone would wait for a commit of its own.
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
                Line::TooLong => Err(Code::LineTooLong
                    .because(format!("a line has at most {} KiB; this one was skipped", MAX_LINE / 1024))),
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
                Ok(Request::Cancel(pin)) => {
                    self.submit(std::mem::take(&mut submits)).await?;
                    cancels.push(pin);
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
        // Of one kind there are none left when the other comes.
        self.submit(submits).await?;
        self.cancel_all(cancels).await?;
        Ok(any)
    }

    /// Withdraws PINs that were asked for one after the other, together; answers in that order when all have ended. A
    /// large record is not kept until its turn comes, but read again then.
    async fn cancel_all(&mut self, pins: Vec<PinId>) -> Result<(), Gone> {
        let cancels = pins.into_iter().map(async |pin| {
            let record = self.cancel(&pin).await;
            (pin, record.map(|record| Some(record).filter(|record| record.len() <= SMALL)))
        });
        let ended: Vec<_> = cancels.collect::<FuturesOrdered<_>>().collect().await;
        for (pin, record) in ended {
            let room =
                self.outgoing.room(if matches!(record, Ok(None)) { MAX_ANSWER } else { PIECE }).await?;
            let record = match record {
                Ok(Some(record)) => Ok(record),
                Ok(None) => self.outcome_of(&pin).await.map(|outcome| outcome.record),
                Err(ended) => Err(ended),
            };
            self.told(room, record.map(|record| answer::cancelled(&pin, &record)))?;
        }
        Ok(())
    }

    async fn submit(&mut self, submits: Vec<Submit>) -> Result<(), Gone> {
        if submits.is_empty() {
            return Ok(());
        }
        let ids: Vec<PinId> = submits.iter().map(|submit| submit.pin.clone()).collect();
        let now = self.services.clock.date();
        let new = submits.into_iter().map(|submit| NewPin {
            submitted_at: now,
            // A deadline is at most a year away, so this only ends where the calendar does.
            deadline_at: now
                .wall
                .saturating_add(submit.deadline.unwrap_or(*self.services.deadline.borrow()))
                .unwrap_or(now.wall),
            pin: submit.pin,
            reference: submit.reference,
            metadata: submit.metadata,
            again: submit.again,
        });
        let result = timeout(STORE_PATIENCE, self.services.writer.submit(new.collect())).await;
        let mut pieces = Pieces::new(&self.outgoing);
        match result {
            Ok(Ok(mut states)) => {
                forget_most(&mut states);
                for (pin, state) in ids.iter().zip(&states) {
                    if let Submitted::Finished(None) = state {
                        pieces.flush()?;
                        let room = self.outgoing.room(MAX_ANSWER).await?;
                        let record = self.outcome_of(pin).await.map(|outcome| outcome.record);
                        self.told(room, record.map(|record| answer::finished_before(pin, &record)))?;
                    } else {
                        pieces.add(|out| answer::submitted(pin, state, out)).await?;
                    }
                }
            }
            Ok(Err(unavailable)) => {
                let line = answer::refused(&unavailable.into());
                for _ in &ids {
                    pieces.add(|out| out.extend_from_slice(line.as_bytes())).await?;
                }
            }
            Err(_) => {
                let line = answer::refused(&Code::StoreUnavailable.because(
                    "the store did not answer in time: whether the PIN was accepted is not known; submit it again",
                ));
                for _ in &ids {
                    pieces.add(|out| out.extend_from_slice(line.as_bytes())).await?;
                }
            }
        }
        pieces.flush()
    }

    async fn answer(&mut self, request: Request) -> Result<(), Gone> {
        match request {
            // Submits and cancels are gathered before they come here.
            Request::Submit(submit) => self.submit(vec![submit]).await,
            Request::Cancel(pin) => self.cancel_all(vec![pin]).await,
            Request::Show(pin) => self.reply(in_time(self.show(pin))).await,
            Request::Wait { pin, timeout } => self.reply(self.wait(pin, timeout)).await,
            Request::List { limit, after } => self.reply(in_time(self.list(limit, &after))).await,
            Request::Tail { start, follow, positions } => self.tail(start, follow, positions).await,
            Request::DeadLetters { sink, which, after, limit } => {
                let letters = upkeep::dead_letters(self.services, sink.as_deref(), which, &after, limit);
                self.reply(in_time(letters)).await
            }
            Request::Replay { sink, which, only_dead } => {
                self.reply(upkeep::replay(self.services, sink, which, only_dead)).await
            }
            Request::Drop { sink, which } => self.reply(upkeep::drop(self.services, sink, which)).await,
            Request::ForgetSink { sink } => self.reply(upkeep::forget_sink(self.services, sink)).await,
            Request::Stats => self.reply(in_time(self.stats())).await,
            Request::Nodes => self.reply(in_time(elsewhere::nodes(self.services))).await,
            Request::Ping => self.reply(async { Ok(answer::pong()) }).await,
        }
    }

    /// Takes room, then has the answer made and sends it.
    async fn reply(&self, answer: impl Future<Output = Result<String, Ended>>) -> Result<(), Gone> {
        let room = self.outgoing.room(MAX_ANSWER).await?;
        self.told(room, answer.await)
    }

    /// Sends the client an answer.
    pub(super) fn told(&self, room: Room, answered: Result<String, Ended>) -> Result<(), Gone> {
        match answered {
            Ok(line) => self.outgoing.send(room, line),
            Err(Ended::Refused(refusal)) => self.outgoing.send(room, answer::refused(&refusal)),
            Err(Ended::Gone) => Err(Gone),
        }
    }

    async fn show(&self, pin: PinId) -> Result<String, Ended> {
        let live = self.services.schedule.live(vec![pin.clone()]).await?;
        if let Some(Some(live)) = live.first() {
            let stored = self.services.store.submission(&pin).await?;
            return Ok(answer::in_flight(&pin, Ok(live), stored.as_ref()));
        }
        if let Some(answer) = elsewhere::show(self.services, &pin).await? {
            return Ok(answer);
        }
        let outcome = self.outcome_of(&pin).await?;
        let sinks = self.services.store.sinks_of(outcome.seq).await?;
        let health = self.services.health.all();
        Ok(answer::finished(&outcome, &sinks, &health))
    }

    async fn cancel(&self, pin: &PinId) -> Result<Record, Ended> {
        loop {
            if let Some(outcome) = self.services.schedule.cancel(pin.clone()).await? {
                let outcome = timeout(STORE_PATIENCE, outcome).await.map_err(|_| {
                    Code::StoreUnavailable.because("the PIN is withdrawn, but the store can't be written now")
                })?;
                match outcome {
                    Ok(record) => return Ok(record),
                    // Its slot went to another node meanwhile.
                    Err(_) if self.services.cluster.is_some() && !self.services.stop.is_cancelled() => {
                        continue;
                    }
                    Err(_) => return Err(Stopping.into()),
                }
            }
            return match &self.services.cluster {
                Some(cluster) => elsewhere::cancel(self.services, cluster, pin).await,
                None => self.outcome_of(pin).await.map(|outcome| outcome.record),
            };
        }
    }

    /// Waits for the outcome. The schedule is asked first and the store second: a PIN that leaves in between
    /// is found in the store.
    async fn wait(&self, pin: PinId, limit: Option<Duration>) -> Result<String, Ended> {
        // What is longer than the clock can count is no limit.
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        loop {
            if let Some(outcome) = self.services.schedule.wait(pin.clone()).await? {
                match self.while_client_is_there(outcome, until).await? {
                    Ok(record) => return Ok(answer::ended(&pin, &record)),
                    // Its slot went to another node meanwhile.
                    Err(_) if self.services.cluster.is_some() && !self.services.stop.is_cancelled() => {
                        continue;
                    }
                    Err(_) => return Err(Stopping.into()),
                }
            }
            let Some(cluster) = &self.services.cluster else {
                return Ok(answer::ended(&pin, &self.outcome_of(&pin).await?.record));
            };
            let fate = match cluster.fate(&pin).await? {
                Fate::InFlight => {
                    let ended = cluster.ended(pin.clone());
                    self.while_client_is_there(ended, until).await?.map_err(|_| Stopping)?
                }
                fate => fate,
            };
            return Ok(answer::ended(&pin, &elsewhere::record(fate, &pin)?));
        }
    }

    async fn while_client_is_there<T>(
        &self,
        awaited: impl Future<Output = T>,
        until: Option<Instant>,
    ) -> Result<T, Ended> {
        tokio::select! {
            // In this order: an outcome that is there beats a limit of zero.
            biased;
            told = awaited => Ok(told),
            () = self.hang_up() => Err(Ended::Gone),
            () = self.services.stop.cancelled() => Err(Stopping.into()),
            () = sleep(until) => Err(Code::Timeout.because("the PIN has no outcome yet").into()),
        }
    }

    async fn outcome_of(&self, pin: &PinId) -> Result<Outcome, Ended> {
        outcome_of(self.services, pin).await
    }

    async fn list(&self, limit: u32, after: &str) -> Result<String, Ended> {
        let page = self.services.store.in_flight_after(after, limit).await?;
        let page = page.ok_or_else(|| {
            Code::InvalidRequest
                .because(r#""after" is neither what an answer gave as "next" nor a PIN that is in flight"#)
        })?;
        let pins = page.pins.iter().map(|(pin, _)| pin.pin.clone());
        let live = self.services.schedule.live(pins.collect()).await?;
        let view = match &self.services.cluster {
            Some(cluster) if live.iter().any(Option::is_none) => Some(cluster.shared.look().await?),
            _ => None,
        };
        Ok(answer::list(&page, &live, view.as_ref()))
    }

    async fn stats(&self) -> Result<String, Ended> {
        let schedule = self.services.schedule.stats().await?;
        let Services { store, writer, failed_counts, .. } = self.services;
        let failed = failed_counts.get(writer.ordered(), store.failed_counts()).await?;
        let cursors = self.services.store.cursors().await?;
        let newest = *self.services.writer.newest().borrow();
        let trouble = self.services.writer.trouble().map(|trouble| {
            let since = self.services.clock.wall() - trouble.since.elapsed();
            (since, trouble.what)
        });
        let connections = self.services.places.count();
        let health = self.services.health.all();
        let mut stats = answer::stats(&schedule, newest, trouble, connections, &health, &cursors, &failed);
        let now = self.services.clock.wall();
        stats["strayAnswers"] =
            self.services.api.borrow().strays().map(|stray| answer::strays(&stray, now)).into();
        if let Some(cluster) = elsewhere::numbers(self.services).await? {
            stats["cluster"] = cluster;
        }
        Ok(answer::line(&serde_json::json!({"ok": true, "stats": stats})))
    }

    /// Waits until the client has hung up: not only stopped writing, as `nc -N` does, but closed.
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
        self.outgoing.send(room, answer::refused(&refusal))
    }
}

/// Keeps only so many records as a batch of requests may have bytes: while the client does not read, they take memory
/// that no answer is charged for. The others are read again when it is their turn.
fn forget_most(states: &mut [Submitted]) {
    let mut bytes = 0;
    for state in states {
        if let Submitted::Finished(Some(record)) = state {
            bytes += record.len();
            if bytes > BATCH_BYTES {
                *state = Submitted::Finished(None);
            }
        }
    }
}

/// The newest outcome of a PIN, or the refusal that there is none.
pub(super) async fn outcome_of(services: &Services, pin: &PinId) -> Result<Outcome, Ended> {
    let outcome = services.store.outcome_of(pin).await?;
    outcome.ok_or_else(|| Code::NotFound.because(unknown(pin)).into())
}

/// Why there is nothing to tell of a PIN.
pub(super) fn unknown(pin: &PinId) -> String {
    format!("PIN {pin} was never submitted, or its outcome is older than store.retention")
}

/// Why a question has no answer.
pub(super) enum Ended {
    Refused(Refusal),
    Gone,
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Gone> for Ended {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<Stopping> for Ended {
    fn from(_: Stopping) -> Self {
        Self::Refused(shutting_down())
    }
}

impl From<Unavailable> for Ended {
    fn from(unavailable: Unavailable) -> Self {
        warn!(error = %unavailable.0, "a question could not be answered from the store");
        Self::Refused(unavailable.into())
    }
}

impl From<Unavailable> for Refusal {
    fn from(unavailable: Unavailable) -> Self {
        Code::StoreUnavailable.because(format!("{unavailable}; try again later"))
    }
}

/// An answer from the store, or the refusal that there is none in time.
async fn in_time(answer: impl Future<Output = Result<String, Ended>>) -> Result<String, Ended> {
    timeout(STORE_PATIENCE, answer).await.unwrap_or_else(|_| {
        let seconds = STORE_PATIENCE.as_secs();
        let message = format!("the store did not answer within {seconds} s; try again later");
        Err(Code::StoreUnavailable.because(message).into())
    })
}

fn shutting_down() -> Refusal {
    Code::ShuttingDown.because("the daemon is stopping: try again when it is back")
}

async fn sleep(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
