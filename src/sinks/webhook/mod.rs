//! The sink `webhook`: sends each outcome to a URL at least once.
//!
//! Promises that every outcome is delivered or becomes a dead letter in the store, whatever the endpoint does and whenever the
//! daemon is killed: the cursor is durable and never passes an outcome that is not durably settled. After a crash some outcomes
//! are sent again, under the same `webhook-id`. Outcomes are not ordered. A failing outcome delays no other; an endpoint that is
//! down is only probed, which avoids a thundering herd when it is back.
//!
//! [`state`] has the rules, without a runtime; [`endpoint`] makes the requests; this module is the one task that owns the running
//! deliveries. New outcomes, ended deliveries, delivery commands, timers and the stop wake it. Must not know polls.

mod advice;
mod batch;
mod batch_size;
mod circuit_breaker;
mod endpoint;
mod ledger;
mod redact;
mod reporter;
mod request;
mod response;
#[cfg(test)]
mod simulation;
mod state;
#[cfg(test)]
mod state_tests;
mod test_delivery;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tracing::{error, warn};

use self::batch::Now;
use self::endpoint::Rest;
pub use self::endpoint::{Endpoint, SetupError};
use self::reporter::Reporter;
use self::response::Answer;
use self::state::{State, Ticket};
use super::Outbox;
use crate::clock::Clock;
use crate::store::Unavailable;

/// The pause between two attempts to read a store that can't be read.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// How long running deliveries may take to end when the sink hands over; less than a reload waits.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The most outcomes that are read at once.
const READ_AT_ONCE: u32 = 1024;

/// Delivers until the outbox says that the sink must finish or hand over. Dropping the future cancels its deliveries; the next
/// start sends their outcomes again.
pub async fn run_webhook(endpoint: Endpoint, outbox: Outbox) {
    let task = Task {
        state: State::new(outbox.name.clone(), endpoint.rules, outbox.cursor, fastrand::u64(..)),
        reporter: Reporter::new(outbox.name.clone(), outbox.health.clone()),
        deliveries: Deliveries::new(endpoint.max_rests()),
        renew_at: Instant::now() + endpoint.webhook.pool_max_age,
        was_open: false,
        endpoint: Arc::new(endpoint),
        newest: outbox.writer.newest(),
        commands: outbox.writer.commands(),
        read_again_at: None,
        outbox,
    };
    task.run().await;
}

struct Task {
    outbox: Outbox,
    endpoint: Arc<Endpoint>,
    newest: watch::Receiver<i64>,
    commands: watch::Receiver<u64>,
    state: State,
    reporter: Reporter,
    deliveries: Deliveries,
    /// When the connections become too old for another request.
    renew_at: Instant,
    was_open: bool,
    /// The store could not be read; the next attempt is not before this moment.
    read_again_at: Option<Instant>,
}

impl Task {
    async fn run(mut self) {
        loop {
            self.work().await;
            self.end_deliveries().await;
            if self.outbox.finish.is_cancelled() || self.outbox.handover.accept() {
                break;
            }
            // The handover request was withdrawn.
        }
        self.reporter.log_dead_letters(now(&self.outbox.clock));
    }

    /// Delivers until the sink must end.
    async fn work(&mut self) {
        while !self.outbox.finish.is_cancelled() && !self.outbox.handover.is_requested() {
            if self.commands.has_changed().unwrap_or(false) {
                self.commands.mark_unchanged();
                self.state.forget_failed();
            }
            self.report().await;
            self.read().await;
            self.renew_connections().await;
            self.start();
            self.report().await;
            self.wait().await;
        }
    }

    /// Waits for the running deliveries; for a limited time, unless the daemon stops. The endpoint may be replaced because it
    /// hangs: its successor then sends the cancelled outcomes again, under the same ID.
    async fn end_deliveries(&mut self) {
        let give_up_at = Instant::now() + LEAVE_TIMEOUT;
        loop {
            let ended = tokio::select! {
                ended = self.deliveries.ended() => ended,
                () = sleep_until(give_up_at), if !self.outbox.finish.is_cancelled() => None,
            };
            let Some((ticket, answer)) = ended else { return };
            self.state.ended(ticket, answer, now(&self.outbox.clock));
            self.report().await;
        }
    }

    /// Waits until there may be something to do, and applies the answers of ended deliveries.
    async fn wait(&mut self) {
        let wants = self.state.wants_outcomes().filter(|_| self.read_again_at.is_none());
        let after = wants.map_or(i64::MAX, |(after, _)| after);
        let wake_at = self.state.wake_at().map(|moment| self.outbox.clock.instant(moment));
        let wake_at = wake_at.into_iter().chain(self.read_again_at).min();
        tokio::select! {
            Some((ticket, answer)) = self.deliveries.ended() => {
                self.state.ended(ticket, answer, now(&self.outbox.clock));
                // One step for all that ended together.
                while let Some((ticket, answer)) = self.deliveries.ended_already() {
                    self.state.ended(ticket, answer, now(&self.outbox.clock));
                }
            }
            // An error means that the writer has ended, which the daemon notices.
            Ok(_) = self.newest.wait_for(|newest| *newest > after) => {}
            Ok(()) = self.commands.changed() => self.commands.mark_changed(),
            () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {}
            () = self.outbox.finish.cancelled() => {}
            () = self.outbox.handover.requested() => {}
        }
    }

    /// Replaces the connections when they get too old, and when the endpoint accepts nothing any more: its name may have another
    /// address by now, and the server at the old one may know nothing of the receiver.
    async fn renew_connections(&mut self) {
        let is_open = self.state.is_open();
        let opens = is_open && !self.was_open;
        self.was_open = is_open;
        if !opens && self.renew_at > Instant::now() {
            return;
        }
        self.renew_at = Instant::now() + self.endpoint.webhook.pool_max_age;
        let endpoint = self.endpoint.clone();
        match spawn_blocking(move || endpoint.renew_connections()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(sink = self.outbox.name, %error, "the connections can't be replaced, so the old ones are used");
            }
            Err(failure) => {
                error!(sink = self.outbox.name, %failure, "replacing the connections failed; this is a bug");
            }
        }
    }

    fn start(&mut self) {
        while let Some((ticket, outcomes, connection)) = self.state.next(now(&self.outbox.clock)) {
            let (endpoint, date) = (self.endpoint.clone(), self.outbox.clock.wall());
            let delivery = async move { endpoint.deliver(&outcomes, connection, date).await };
            self.deliveries.start(ticket, delivery);
        }
    }

    /// Reads ahead as far as the rules ask.
    async fn read(&mut self) {
        if self.read_again_at.is_some_and(|at| at > Instant::now()) {
            return;
        }
        let read = self.read_store().await;
        if let (Err(unavailable), None) = (&read, self.read_again_at) {
            warn!(sink = self.outbox.name, %unavailable, "outcomes can't be read from the store; it is tried again");
        }
        self.read_again_at = read.err().map(|_| Instant::now() + STORE_RETRY);
    }

    async fn read_store(&mut self) -> Result<(), Unavailable> {
        while let Some((after, limit)) = self.state.wants_failed() {
            // The query would miss steps that are not durable yet.
            self.outbox.writer.flush().await?;
            let rows = self.outbox.store.failed(&self.outbox.name, false, after, limit).await?;
            let past = |time| self.outbox.clock.moment_of_past(time);
            self.state.take_failed(rows, limit, now(&self.outbox.clock), past);
        }
        let newest = *self.newest.borrow();
        if let Some((after, limit)) = self.state.wants_outcomes().filter(|(after, _)| newest > *after) {
            let limit = limit.min(READ_AT_ONCE);
            let outcomes = self.outbox.store.outcomes_after(after, limit).await?;
            // Retention may have removed the newest outcome; then there are none up to it.
            let all_to = if outcomes.is_empty() { newest } else { after };
            self.state.take_outcomes(outcomes, all_to);
        }
        Ok(())
    }

    /// Writes the sink's progress to the store and to its health.
    async fn report(&mut self) {
        let now = now(&self.outbox.clock);
        if let Some(step) = self.state.step() {
            self.reporter.failed(&step.failed, now);
            self.reporter.delivered(&step.delivered, now);
            self.outbox.writer.advance(step).await;
        }
        let delivered = self.state.take_delivered();
        self.reporter.health(self.state.cursor(), delivered, self.state.trouble(), now);
        let wall = |moment| self.outbox.clock.wall_of(moment);
        let next_attempt = self.state.next_attempt(now.moment);
        self.reporter.attempts(next_attempt.map(wall), self.state.open_since().map(wall));
    }
}

fn now(clock: &Clock) -> Now {
    Now { moment: clock.now(), date: clock.date() }
}

/// The running deliveries. Dropping this cancels them.
struct Deliveries {
    tasks: JoinSet<(Answer, Option<Rest>)>,
    tickets: HashMap<Id, Ticket>,
    /// Tasks that read the rest of successful answers, so that their connections can be reused.
    rests: JoinSet<()>,
    max_rests: usize,
}

impl Deliveries {
    fn new(max_rests: usize) -> Self {
        Self { tasks: JoinSet::new(), tickets: HashMap::new(), rests: JoinSet::new(), max_rests }
    }

    fn start(
        &mut self,
        ticket: Ticket,
        delivery: impl Future<Output = (Answer, Option<Rest>)> + Send + 'static,
    ) {
        let task = self.tasks.spawn(delivery);
        self.tickets.insert(task.id(), ticket);
    }

    /// The next delivery to end; `None` if none runs.
    async fn ended(&mut self) -> Option<(Ticket, Answer)> {
        let ended = self.tasks.join_next_with_id().await?;
        self.settle(ended)
    }

    /// A delivery that has already ended.
    fn ended_already(&mut self) -> Option<(Ticket, Answer)> {
        let ended = self.tasks.try_join_next_with_id()?;
        self.settle(ended)
    }

    fn settle(&mut self, ended: Result<(Id, (Answer, Option<Rest>)), JoinError>) -> Option<(Ticket, Answer)> {
        let (id, (answer, rest)) = ended.unwrap_or_else(|failure| {
            error!(%failure, "a delivery failed; this is a bug. It is tried again");
            (failure.id(), (Answer::none("the delivery failed; this is a bug"), None))
        });
        while self.rests.try_join_next().is_some() {}
        // Above the limit, the connections are closed.
        if let Some(rest) = rest.filter(|_| self.rests.len() < self.max_rests) {
            self.rests.spawn(rest.read());
        }
        Some((self.tickets.remove(&id)?, answer))
    }
}
