//! Actions on many PINs or outcomes, which run until they are done, stopped, or the daemon stops.
//!
//! Promises that each job works in the bounded parts of `operations/`, one after another, so that no other writer waits long;
//! that there are at most [`MOST_RUNNING`]; and that the results of the last [`MOST_SHOWN`] stay visible. Must not know requests
//! or pages.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::http::tasks::Tasks;
use crate::http::tokens::Name;
use crate::operations::{self, Failure};
use crate::protocol::count::Answer;
use crate::protocol::filter::Filter;
use crate::protocol::{cancel_matching, drop, replay};
use crate::services::Services;

/// The most jobs at once.
const MOST_RUNNING: usize = 4;

/// The most jobs that are shown. Above this, the oldest that has ended is forgotten.
const MOST_SHOWN: usize = 20;

/// What a job does.
#[derive(Debug, Clone)]
pub enum Action {
    /// Withdraws the PINs in flight that match.
    Cancel(Filter),
    /// Delivers all dead letters of a sink again.
    Replay { sink: String },
    /// Drops all dead letters of a sink.
    Drop { sink: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Running,
    Done,
    Stopped,
    Failed(String),
}

/// The progress of a job.
#[derive(Debug, Clone)]
pub struct Progress {
    pub number: u64,
    pub action: Action,
    /// The name of the token with which it was begun.
    pub by: Name,
    pub began: Timestamp,
    /// What the preview counted.
    pub expected: u64,
    pub done: u64,
    pub state: State,
}

/// The jobs, newest first.
#[derive(Clone)]
pub struct Jobs {
    services: Services,
    tasks: Tasks,
    shown: Arc<Mutex<VecDeque<(Progress, CancellationToken)>>>,
}

/// There are [`MOST_RUNNING`] jobs already.
#[derive(Debug)]
pub struct TooMany;

impl Action {
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Cancel(_) => "cancel",
            Self::Replay { .. } => "replay",
            Self::Drop { .. } => "drop",
        }
    }

    /// The words of its button.
    pub fn title(&self) -> &'static str {
        match self {
            Self::Cancel(_) => "Cancel all that match",
            Self::Replay { .. } => "Deliver all again",
            Self::Drop { .. } => "Drop all",
        }
    }

    /// What is counted.
    pub fn things(&self, count: u64) -> &'static str {
        match (self, count) {
            (Self::Cancel(_), 1) => "PIN",
            (Self::Cancel(_), _) => "PINs",
            (_, 1) => "dead letter",
            _ => "dead letters",
        }
    }

    pub fn warning(&self) -> &'static str {
        match self {
            Self::Cancel(_) => {
                "Each ends with the outcome “cancelled”, which goes to every sink. This can't be undone. PINs that come after this count are left alone."
            }
            Self::Replay { .. } => {
                "Each is delivered again with its original id, so a receiver can recognize what it already has."
            }
            Self::Drop { .. } => "The sink never gets these outcomes. This can't be undone.",
        }
    }
}

/// The action with its filter, in words.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancel(filter) if filter.is_empty() => f.write_str("Cancel every PIN in flight"),
            Self::Cancel(filter) => write!(f, "Cancel all PINs in flight with: {filter}"),
            Self::Replay { sink } => write!(f, "Deliver all dead letters of the sink {sink} again"),
            Self::Drop { sink } => write!(f, "Drop all dead letters of the sink {sink}"),
        }
    }
}

impl Jobs {
    pub fn new(services: Services, tasks: Tasks) -> Self {
        Self { services, tasks, shown: Arc::default() }
    }

    pub fn all(&self) -> Vec<Progress> {
        self.lock().iter().map(|(progress, _)| progress.clone()).collect()
    }

    /// Starts a job, which leaves out everything that came after `counted_at`. If `is_exact`, it withdraws no more PINs than were
    /// `expected`: their status changes, so more can match by then.
    ///
    /// # Errors
    /// Too many run.
    pub fn begin(
        &self,
        action: Action,
        by: &Name,
        (expected, is_exact): (u64, bool),
        counted_at: Timestamp,
    ) -> Result<(), TooMany> {
        let stop = self.services.stop.child_token();
        let number = {
            let mut shown = self.lock();
            let running = shown.iter().filter(|(job, _)| job.state == State::Running).count();
            if running >= MOST_RUNNING {
                return Err(TooMany);
            }
            let (number, began) =
                (shown.front().map_or(1, |(job, _)| job.number + 1), self.services.clock.wall());
            let (action, by) = (action.clone(), by.clone());
            shown.push_front((
                Progress { number, action, by, began, expected, done: 0, state: State::Running },
                stop.clone(),
            ));
            if shown.len() > MOST_SHOWN {
                let oldest = shown.iter().rposition(|(job, _)| job.state != State::Running);
                oldest.and_then(|oldest| shown.remove(oldest));
            }
            number
        };
        info!(token = %by, job = number, what = %action, "a job was begun on the status page");
        let jobs = self.clone();
        self.tasks.spawn(async move {
            let most = if is_exact { expected } else { u64::MAX };
            let state = match jobs.run(number, &action, most, counted_at, &stop).await {
                Ok(state) => state,
                Err(Failure::Refused(refusal)) => State::Failed(refusal.message.into_owned()),
                Err(Failure::ClientGone) => State::Stopped,
            };
            let done = jobs.change(number, |job| {
                job.state = state.clone();
                job.done
            });
            let done = done.unwrap_or_default();
            match state {
                State::Failed(why) => warn!(job = number, done, why, "a job of the status page failed"),
                state => info!(
                    job = number,
                    done,
                    stopped = state == State::Stopped,
                    "a job of the status page has ended"
                ),
            }
        });
        Ok(())
    }

    /// Stops a job once its current part is done. Does not undo the parts before.
    pub fn stop(&self, number: u64) {
        if let Some((_, stop)) = self.lock().iter().find(|(job, _)| job.number == number) {
            stop.cancel();
        }
    }

    async fn run(
        &self,
        number: u64,
        action: &Action,
        most: u64,
        counted_at: Timestamp,
        stop: &CancellationToken,
    ) -> Result<State, Failure> {
        let services = &self.services;
        let before = services.clock.wall().duration_since(counted_at).try_into().unwrap_or_default();
        let (began, mut done, mut after) = (Instant::now(), 0, None);
        // Leaves out everything that came after the preview.
        let as_counted =
            |filter: &Filter| filter.as_of(began.elapsed().saturating_add(before), services.clock.wall());
        while !stop.is_cancelled() {
            let Answer { count, next } = match action {
                Action::Cancel(filter) => {
                    let left = u32::try_from(most.saturating_sub(done)).unwrap_or(u32::MAX);
                    let Some(limit) = NonZeroU32::new(left) else { return Ok(State::Done) };
                    let (filter, limit) = (as_counted(filter), Some(limit));
                    let request = cancel_matching::Request { filter, all: true, limit, after };
                    operations::cancel_matching(services, request).await?
                }
                Action::Replay { sink } => {
                    let (sink, filter) = (sink.clone(), as_counted(&Filter::default()));
                    let request =
                        replay::Request { sink, filter, all: true, dead: true, after, ..Default::default() };
                    operations::replay(services, request).await?
                }
                Action::Drop { sink } => {
                    let (sink, filter) = (sink.clone(), as_counted(&Filter::default()));
                    let request = drop::Request { sink, filter, all: true, after, ..Default::default() };
                    operations::drop(services, request).await?
                }
            };
            done += count;
            self.change(number, |job| job.done = done);
            if next.is_none() {
                return Ok(State::Done);
            }
            after = next;
        }
        Ok(State::Stopped)
    }

    fn change<T>(&self, number: u64, change: impl FnOnce(&mut Progress) -> T) -> Option<T> {
        self.lock().iter_mut().find(|(job, _)| job.number == number).map(|(job, _)| change(job))
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Progress, CancellationToken)>> {
        // Each change is complete in itself, so a panic elsewhere leaves nothing half-done.
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
