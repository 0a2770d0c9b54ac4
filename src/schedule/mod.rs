//! Decides when each PIN is polled: one task owns all PINs in flight, their timers and the running polls.
//!
//! Guarantees one verdict for every PIN it accepts, unless it gives the PIN's slot up, and keeps it until the store's writer has
//! it; runs no more polls at once than `api.concurrency`, and starts no more per second than `api.rate` allows. Due PINs,
//! answers, commits and questions wake the task. Must not know sockets, SQL or HTTP: the caller passes the [`Poll`] that sends
//! polls. [`core`] has its rules, without a runtime.

mod ages;
mod brake;
mod core;
pub mod learn;
mod polls;
mod queue;
mod rate;
mod recent;
mod slots;
mod table;

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::OptionFuture;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::error;

pub use self::ages::AGE_BANDS;
pub use self::brake::Reason;
pub use self::core::{Cancelled, Core, Counts, Learned, Refusal, Ticket};
use self::learn::overview::Snapshot;
use self::learn::plan::Plan;
use self::polls::Polls;
pub use self::slots::SlotEvent;
pub use self::table::{Entry, Stage};
use crate::config;
use crate::outcome::{Deliveries, Verdict};
use crate::pin::PinId;
use crate::poll::{Connection, Meaning};
use crate::store::{Committed, Outcome, Record, SavedSchedule, Writer};

/// The most events that may wait for the schedule; senders then wait.
const INBOX: usize = 256;

/// The most events processed before polls get their turn.
const EVENTS_AT_ONCE: usize = 64;

/// How often the task looks for PINs that are past their deadline and its grace without a last poll.
const EXPIRE_EVERY: Duration = Duration::from_secs(20);

/// How often the task checks how late polls are. Often, so that a short load is not mistaken for a steady one.
const LATENESS_EVERY: Duration = Duration::from_secs(2);

/// Asks the API about one PIN.
pub trait Poll: Send + Sync + 'static {
    /// Returns what the answer means; every failure has a meaning too. Ends within a time limit.
    fn poll(&self, pin: &PinId, connection: Connection) -> impl Future<Output = Meaning> + Send;
}

/// What the schedule receives.
pub enum Event {
    Committed(Committed),
    Ask(Ask),
    Slots(SlotEvent),
    Reconfigure(Box<Settings>),
    /// Test builds only: blocks the task, so that a test sees the watchdog act.
    #[cfg(feature = "fault-points")]
    Stall,
}

/// The part of the configuration that can change while the schedule runs.
#[derive(Debug, Clone)]
pub struct Settings {
    pub schedule: config::Schedule,
    pub rate: Option<NonZeroU32>,
    pub concurrency: usize,
    /// Whether the API or the credentials changed.
    pub renewed: bool,
}

impl From<Committed> for Event {
    fn from(committed: Committed) -> Self {
        Self::Committed(committed)
    }
}

/// A question, with the channel for its answer.
pub enum Ask {
    Live(Vec<PinId>, oneshot::Sender<Vec<Option<Live>>>),
    Wait(PinId, oneshot::Sender<Option<oneshot::Receiver<Record>>>),
    Cancel(PinId, oneshot::Sender<Option<oneshot::Receiver<Record>>>),
    Stats(oneshot::Sender<Stats>),
    Overview(oneshot::Sender<Overview>),
}

/// What is known of a PIN in flight, for people.
#[derive(Debug, Clone)]
pub struct Live {
    pub submitted_at: Timestamp,
    pub deadline_at: Timestamp,
    pub polls: u32,
    pub seen: Option<Deliveries>,
    /// When the last answer came, and what it was if it held no deliveries.
    pub last_answer: Option<(Timestamp, Option<Arc<str>>)>,
    pub next: Next,
}

/// What happens to a PIN next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The PIN is polled at this time.
    Due(Timestamp),
    /// The PIN is polled at this time at the earliest, because the brake is on.
    Braked(Timestamp, Reason),
    /// The PIN is polled at this time for the last time.
    Deadline(Timestamp),
    /// A poll is running.
    Polling,
    /// The outcome is being written.
    Finishing,
}

/// The counts and states of the schedule.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    pub in_flight: usize,
    /// The same PINs by their age, in the order of [`AGE_BANDS`].
    pub in_flight_by_age: [u64; AGE_BANDS.len()],
    pub due: usize,
    pub polling: usize,
    pub finishing: usize,
    pub brake: Option<(Reason, Option<Timestamp>)>,
    /// Since when polling has been paused for that reason.
    pub brake_since: Option<Timestamp>,
    /// How most PINs are refused and since when; `None` if they are not.
    pub refused_everywhere: Option<(Refusal, Timestamp)>,
    /// The rate limit in force, in polls per second; `None` if there is no limit.
    pub rate: Option<f64>,
    /// The polls that may run at once.
    pub concurrency: usize,
    /// How long the most overdue PIN has been due, and since when polls are late; `None` unless they have been late for a minute.
    pub late: Option<(Duration, Timestamp)>,
    pub counts: Counts,
    /// `None` if `schedule.adapt` is "off".
    pub learned: Option<Learned>,
}

/// What decides when PINs are polled.
#[derive(Debug, Clone)]
pub struct Overview {
    pub adapt: config::Adapt,
    pub snapshot: Snapshot,
    /// Unless `schedule.adapt` is "off".
    pub learned: Option<Learned>,
}

/// A handle for questions to the schedule. Cheap to clone.
#[derive(Clone)]
pub struct Schedule {
    inbox: mpsc::Sender<Event>,
}

/// The schedule has ended because the daemon is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the daemon is stopping")]
pub struct Stopping;

impl Schedule {
    /// Makes a handle for questions, a sender for the store's commits, and the receiver of both.
    pub fn channel() -> (Self, mpsc::Sender<Event>, mpsc::Receiver<Event>) {
        let (inbox, events) = mpsc::channel(INBOX);
        (Self { inbox: inbox.clone() }, inbox, events)
    }

    /// Returns what is known of these PINs; `None` for a PIN that is not in flight.
    pub async fn live(&self, pins: Vec<PinId>) -> Result<Vec<Option<Live>>, Stopping> {
        self.ask(|reply| Ask::Live(pins, reply)).await
    }

    /// Returns a receiver for the outcome of a PIN in flight; `None` if the PIN is not in flight.
    pub async fn wait(&self, pin: PinId) -> Result<Option<oneshot::Receiver<Record>>, Stopping> {
        self.ask(|reply| Ask::Wait(pin, reply)).await
    }

    /// Withdraws a PIN; returns a receiver for its outcome, which arrives once the store has it. The outcome is the
    /// cancel's, or an earlier one that was still being written. `None` if the PIN is not in flight.
    pub async fn cancel(&self, pin: PinId) -> Result<Option<oneshot::Receiver<Record>>, Stopping> {
        self.ask(|reply| Ask::Cancel(pin, reply)).await
    }

    /// Returns the counts and states of the schedule.
    pub async fn stats(&self) -> Result<Stats, Stopping> {
        self.ask(Ask::Stats).await
    }

    /// What decides when PINs are polled.
    pub async fn overview(&self) -> Result<Overview, Stopping> {
        self.ask(Ask::Overview).await
    }

    /// Applies a new configuration; PINs keep the due times that they already have.
    pub async fn reconfigure(&self, settings: Settings) -> Result<(), Stopping> {
        self.inbox.send(Event::Reconfigure(Box::new(settings))).await.map_err(|_| Stopping)
    }

    #[cfg(feature = "fault-points")]
    pub async fn stall(&self) {
        let _ = self.inbox.send(Event::Stall).await;
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(Event::Ask(ask(reply))).await.map_err(|_| Stopping)?;
        answer.await.map_err(|_| Stopping)
    }
}

/// The schedule's task.
pub struct Task<P> {
    pub core: Core,
    pub poller: Arc<P>,
    pub writer: Writer,
    pub events: mpsc::Receiver<Event>,
    pub concurrency: usize,
    pub stop: CancellationToken,
    /// How long running polls may take to end after `stop`.
    pub grace: Duration,
}

impl<P: Poll> Task<P> {
    /// Runs until `stop`, and then until the running polls have ended and the writer has all verdicts, or until the
    /// grace is over. Returns how many polls and verdicts were dropped; the store still has their PINs in flight.
    pub async fn run(self) -> usize {
        let Self { core, poller, writer, events, concurrency, stop, grace } = self;
        let running = Running {
            core,
            polls: Polls::new(|ticket| polls::poll(&*poller, ticket)),
            writer,
            concurrency,
            verdicts: VecDeque::new(),
            unsaved: None,
            waiters: HashMap::new(),
            planning: None,
        };
        running.run(events, stop, grace).await
    }
}

struct Running<S, F> {
    core: Core,
    polls: Polls<S, F>,
    writer: Writer,
    concurrency: usize,
    /// Verdicts for which the writer had no room. The core bounds them by pausing polls.
    verdicts: VecDeque<Verdict>,
    /// What to save for the next start, if the writer had no room for it.
    unsaved: Option<SavedSchedule>,
    waiters: HashMap<PinId, Vec<oneshot::Sender<Record>>>,
    /// A plan that another thread is computing from what was learned.
    planning: Option<JoinHandle<Option<Plan>>>,
}

impl<S: Fn(Ticket) -> F, F: Future<Output = (Ticket, Meaning)>> Running<S, F> {
    async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        stop: CancellationToken,
        grace: Duration,
    ) -> usize {
        let mut batch = Vec::with_capacity(EVENTS_AT_ONCE);
        let mut give_up = None;
        let mut expire = tokio::time::interval(EXPIRE_EVERY);
        expire.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lateness = tokio::time::interval(LATENESS_EVERY);
        lateness.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Created once, not again for each answer.
        let mut stopped = pin!(stop.cancelled());
        loop {
            // Takes answers here too, because clients that never stop asking would keep them waiting forever:
            // `select!` is biased.
            while let Some((ticket, meaning)) = self.polls.try_answer() {
                self.answered(ticket, meaning);
            }
            let stopping = stop.is_cancelled();
            let wake = if stopping { give_up } else { self.start_polls() };
            self.hand_over();
            if stopping && self.polls.is_empty() && self.verdicts.is_empty() {
                return 0;
            }
            tokio::select! {
                biased;
                () = &mut stopped, if !stopping => {
                    give_up = Some(tokio::time::Instant::now() + grace);
                    self.core.keep_all();
                }
                count = events.recv_many(&mut batch, EVENTS_AT_ONCE) => {
                    debug_assert!(count > 0, "the daemon holds a sender for as long as the schedule runs");
                    for event in batch.drain(..) {
                        self.handle(event);
                    }
                }
                Some((ticket, meaning)) = self.polls.answer() => self.answered(ticket, meaning),
                Some(plan) = OptionFuture::from(self.planning.as_mut()) => self.planned(plan),
                () = self.writer.room(), if !self.verdicts.is_empty() || self.unsaved.is_some() => {}
                _ = expire.tick() => self.verdicts.extend(self.core.expired()),
                _ = lateness.tick() => self.core.watch_lateness(),
                () = sleep_until(wake), if wake.is_some() => {
                    if stopping {
                        return self.polls.len() + self.verdicts.len();
                    }
                }
            }
        }
    }

    /// Starts every poll that is due and admitted; returns when to check again.
    fn start_polls(&mut self) -> Option<tokio::time::Instant> {
        while self.polls.len() < self.concurrency {
            match self.core.next_poll() {
                Ok(ticket) => self.polls.start(ticket),
                Err(again) => return again.map(|moment| self.core.clock().instant(moment)),
            }
        }
        None
    }

    fn answered(&mut self, ticket: Ticket, meaning: Meaning) {
        let Some(verdict) = self.core.answered(ticket, meaning) else { return };
        self.verdicts.push_back(verdict);
        if self.planning.is_none()
            && let Some(problem) = self.core.problem()
        {
            self.planning = Some(tokio::task::spawn_blocking(move || problem.solve()));
        }
    }

    fn planned(&mut self, plan: Result<Option<Plan>, JoinError>) {
        self.planning = None;
        match plan {
            Ok(plan) => self.core.adopt(plan),
            Err(error) => {
                error!(%error, "no new schedule could be computed from what was learned: the previous one stays")
            }
        }
    }

    /// Passes the writer as many verdicts as it has room for.
    fn hand_over(&mut self) {
        // Only the newest state matters.
        if let Some(schedule) = self.core.take_unsaved().or_else(|| self.unsaved.take()) {
            self.unsaved = self.writer.try_save_schedule(schedule).err();
        }
        while let Some(verdict) = self.verdicts.pop_front() {
            if let Err(verdict) = self.writer.try_finish(verdict) {
                self.verdicts.push_front(verdict);
                return;
            }
        }
    }

    fn handle(&mut self, event: Event) {
        // A client that asked may be gone; then nobody needs the answer.
        match event {
            Event::Committed(Committed::Accepted(pins)) => pins.iter().for_each(|pin| self.core.accept(pin)),
            Event::Committed(Committed::Finished(outcomes)) => outcomes.iter().for_each(|o| self.finished(o)),
            Event::Committed(Committed::Cancel(pins)) => pins.iter().for_each(|pin| {
                if let Cancelled::Now(verdict) = self.core.cancel(pin) {
                    self.verdicts.push_back(verdict);
                }
            }),
            Event::Committed(Committed::Gone(pins)) => pins.iter().for_each(|pin| self.gone(pin)),
            Event::Ask(Ask::Live(pins, reply)) => {
                let _ = reply.send(pins.iter().map(|pin| Some(self.live(self.core.entry(pin)?))).collect());
            }
            Event::Ask(Ask::Wait(pin, reply)) => {
                let waiter = self.core.entry(&pin).is_some().then(|| self.add_waiter(pin));
                let _ = reply.send(waiter);
            }
            Event::Ask(Ask::Cancel(pin, reply)) => {
                let waiter = match self.core.cancel(&pin) {
                    Cancelled::Unknown => None,
                    Cancelled::Finishing => Some(self.add_waiter(pin)),
                    Cancelled::Now(verdict) => {
                        self.verdicts.push_back(verdict);
                        Some(self.add_waiter(pin))
                    }
                };
                let _ = reply.send(waiter);
            }
            Event::Ask(Ask::Stats(reply)) => {
                let _ = reply.send(self.stats());
            }
            Event::Ask(Ask::Overview(reply)) => {
                let _ = reply.send(self.core.overview());
            }
            Event::Slots(event) => self.handle_slots(event),
            Event::Reconfigure(settings) => {
                let Settings { schedule, rate, concurrency, renewed } = *settings;
                if renewed {
                    self.core.renew();
                }
                // A plan made for the old settings might break the new limits.
                self.planning = None;
                self.core.reconfigure(schedule, rate);
                self.concurrency = concurrency;
            }
            #[cfg(feature = "fault-points")]
            Event::Stall => loop {
                std::thread::park();
            },
        }
    }

    fn finished(&mut self, outcome: &Outcome) {
        self.core.finished(&outcome.pin);
        for waiter in self.waiters.remove(&outcome.pin).into_iter().flatten() {
            let _ = waiter.send(outcome.record.clone());
        }
    }

    fn add_waiter(&mut self, pin: PinId) -> oneshot::Receiver<Record> {
        let (sender, receiver) = oneshot::channel();
        let waiters = self.waiters.entry(pin).or_default();
        // Removes waiters that gave up, so that they do not accumulate while a PIN stays in flight.
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(sender);
        receiver
    }

    fn live(&self, entry: &Entry) -> Live {
        let wall = |moment| self.core.clock().wall_of(moment);
        Live {
            submitted_at: wall(entry.submitted),
            deadline_at: wall(entry.deadline),
            polls: entry.polls,
            seen: entry.seen.clone(),
            last_answer: entry.last_answer.as_ref().map(|last| (wall(last.at), last.trouble.clone())),
            next: match (entry.stage, self.core.brake()) {
                (Stage::Polling, _) => Next::Polling,
                (Stage::Finishing, _) => Next::Finishing,
                (Stage::Waiting { due, .. }, Some((reason, until))) => {
                    Next::Braked(wall(until.map_or(due, |until| until.max(due))), reason)
                }
                (Stage::Waiting { due, .. }, None) if due >= entry.deadline => Next::Deadline(wall(due)),
                (Stage::Waiting { due, .. }, None) => Next::Due(wall(due)),
            },
        }
    }

    fn stats(&mut self) -> Stats {
        let (due, in_flight_by_age) = (self.core.due(), self.core.in_flight_by_age());
        let wall = |moment| self.core.clock().wall_of(moment);
        Stats {
            in_flight: self.core.in_flight(),
            in_flight_by_age,
            due,
            polling: self.polls.len(),
            finishing: self.core.finishing(),
            brake: self.core.brake().map(|(reason, until)| (reason, until.map(wall))),
            brake_since: self.core.brake_since().map(wall),
            refused_everywhere: self.core.refused_everywhere().map(|(since, refusal)| (refusal, wall(since))),
            rate: self.core.rate(),
            concurrency: self.concurrency,
            late: self.core.late().map(|(longest, since)| (longest, wall(since))),
            counts: self.core.counts.clone(),
            learned: self.core.learned(),
        }
    }
}

async fn sleep_until(instant: Option<tokio::time::Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
