//! The dispatcher of an ordered sink: reads ahead in the outbox, delivers, and moves the cursor.
//!
//! Promises that the cursor never passes an undelivered outcome. Must not know what a sink writes to.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Handover, Health, Ordered, Trouble};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::fault::fault_point;
use crate::store::{Outcome, Progress, Store, Writer};

/// The most outcomes to read ahead.
const BATCH: u32 = 512;

/// The pauses between attempts while a sink is in trouble.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(5);

/// The pause between checks whether an idle sink could still deliver.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Each change asks the sinks to reopen their files (SIGHUP).
pub type Rotate = watch::Receiver<u64>;

/// One sink and its cursor.
pub struct Dispatcher<S> {
    pub name: String,
    pub sink: S,
    /// The durable cursor at the start.
    pub cursor: i64,
    pub store: Store,
    pub writer: Writer,
    pub clock: Clock,
    pub health: Health,
    pub rotate: Rotate,
    /// Cancelled at a stop: the dispatcher delivers what the outbox has, if it can, and ends.
    pub finish: CancellationToken,
    /// Requested by a reload: the dispatcher ends after its present batch.
    pub handover: Handover,
}

impl<S: Ordered> Dispatcher<S> {
    /// Opens the sink, and moves the cursor if the sink already has more outcomes.
    ///
    /// # Errors
    /// The sink can't be written, or the store can't be read.
    pub async fn open(&mut self) -> Result<(), Trouble> {
        let reached = self.sink.open(&self.store, self.cursor).await?;
        if let Some(seq) = reached.filter(|seq| *seq > self.cursor) {
            info!(sink = self.name, from = self.cursor, to = seq, "the file is ahead of the cursor");
            self.advance(seq).await;
        }
        let (cursor, name) = (self.cursor, self.name.as_str());
        self.health.update(name, |health| health.cursor = cursor);
        Ok(())
    }

    /// Opens the sink, with retries, then [runs](Self::run).
    pub async fn open_and_run(mut self) {
        if self.recover(Trouble::Rotated).await.is_continue() {
            self.run().await;
        }
    }

    /// Delivers until `finish`, a handover, or the sink is closed for good.
    pub async fn run(mut self) {
        let mut newest = self.writer.newest();
        let mut orders = self.writer.orders();
        // Replays that were requested before the start are still due.
        orders.mark_changed();
        while !self.handover.accept() {
            match self.step(&mut orders).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(Trouble::Closed(why)) => return self.close(&why),
                Err(trouble) => {
                    if self.recover(trouble).await.is_break() {
                        return;
                    }
                    continue;
                }
            }
            if self.finish.is_cancelled() {
                return;
            }
            tokio::select! {
                () = newer_than(&mut newest, self.cursor) => {}
                _ = orders.changed() => orders.mark_changed(),
                _ = self.rotate.changed() => {
                    self.sink.adopt();
                    if self.recover(Trouble::Rotated).await.is_break() {
                        return;
                    }
                }
                () = tokio::time::sleep(CHECK_INTERVAL) => {
                    if let Err(trouble) = self.sink.check().await
                        && self.recover(trouble).await.is_break()
                    {
                        return;
                    }
                }
                () = self.finish.cancelled() => {}
                () = self.handover.requested() => {}
            }
        }
    }

    /// Delivers one batch of replays and one of new outcomes, so that neither waits for all of the other. Returns false if there
    /// is neither.
    async fn step(&mut self, orders: &mut watch::Receiver<u64>) -> Result<bool, Trouble> {
        let replayed = self.replay(orders).await?;
        Ok(self.deliver_batch().await? || replayed)
    }

    /// Delivers the next batch of new outcomes; returns false if there is none.
    async fn deliver_batch(&mut self) -> Result<bool, Trouble> {
        if self.rotate.has_changed().unwrap_or(false) {
            self.rotate.mark_unchanged();
            self.sink.adopt();
            return Err(Trouble::Rotated);
        }
        // Read before the outbox, so that the outbox has at least these outcomes.
        let newest = *self.writer.newest().borrow();
        let outcomes = self.store.outcomes_after(self.cursor, BATCH).await?;
        let seqs: Vec<i64> = outcomes.iter().map(|outcome| outcome.seq).collect();
        if outcomes.is_empty() {
            // Retention removed the outcomes between, as it may before a sink is configured.
            if newest > self.cursor {
                self.advance(newest).await;
            }
            // Nothing is left that the sink refuses, so any trouble is over.
            self.report_recovery();
            return Ok(false);
        }
        let (count, result) = self.sink.deliver(outcomes).await;
        if let Some(seq) = count.checked_sub(1).and_then(|last| seqs.get(last)) {
            fault_point!("delivered-and-cursor-behind");
            self.advance(*seq).await;
        }
        result.map(|()| {
            self.report_recovery();
            true
        })
    }

    /// Delivers one batch of requested replays; returns false if there is none. During a stop, replays are left for the next
    /// start: a stop neither waits for them nor cuts them off.
    async fn replay(&mut self, orders: &mut watch::Receiver<u64>) -> Result<bool, Trouble> {
        if self.finish.is_cancelled() || !orders.has_changed().unwrap_or(false) {
            return Ok(false);
        }
        // Before the query, or a request that arrives during it would be missed.
        orders.mark_unchanged();
        let done = self.replay_batch().await;
        if done != Ok(false) {
            // There may be another batch; after trouble there is.
            orders.mark_changed();
        }
        done
    }

    /// Makes the cursor durable before the replay: after a crash the sink's last line may be a replayed one, which says nothing
    /// about the cursor. A replay that a crash interrupts is delivered once more, with the same `id`.
    async fn replay_batch(&mut self) -> Result<bool, Trouble> {
        let ordered = self.store.failed(&self.name, false, 0, BATCH).await?;
        if ordered.is_empty() {
            return Ok(false);
        }
        self.writer.flush().await?;
        let outcomes: Vec<Outcome> = ordered.into_iter().map(|(_, outcome)| outcome).collect();
        let mut delivered: Vec<i64> = outcomes.iter().map(|outcome| outcome.seq).collect();
        let (count, result) = self.sink.deliver(outcomes).await;
        delivered.truncate(count);
        let now = self.clock.wall();
        self.health.update(&self.name, |health| health.delivered(&delivered, now));
        self.writer.advance(Progress { sink: self.name.clone(), delivered, ..Progress::default() }).await;
        // Durable before the next query, or it would find the same ones again.
        self.writer.flush().await?;
        result?;
        self.report_recovery();
        Ok(true)
    }

    async fn advance(&mut self, seq: i64) {
        self.cursor = seq;
        let progress = Progress { sink: self.name.clone(), cursor: Some(seq), ..Progress::default() };
        self.writer.advance(progress).await;
        let now = self.clock.wall();
        self.health.update(&self.name, |health| health.advance(seq, now));
    }

    /// Waits until the sink can be opened again. Breaks if the daemon stops or the sink hands over first, or if it is closed for
    /// good.
    async fn recover(&mut self, trouble: Trouble) -> std::ops::ControlFlow<()> {
        use std::ops::ControlFlow::{Break, Continue};
        let backoff = Backoff::new(FIRST_RETRY, 2.0, MAX_RETRY, 0.2);
        let mut random = fastrand::Rng::new();
        let mut trouble = trouble;
        for attempt in 0.. {
            if trouble != Trouble::Rotated {
                self.report_trouble(&trouble);
                tokio::select! {
                    () = tokio::time::sleep(backoff.jittered(backoff.nth(attempt), &mut random)) => {}
                    _ = self.rotate.changed() => self.sink.adopt(),
                    () = self.finish.cancelled() => return Break(()),
                    () = self.handover.requested() => {}
                }
                if self.handover.accept() {
                    return Break(());
                }
            }
            fault_point!("trouble-noticed");
            // A new file says nothing about the lines in the old one, so the cursor must be durable before the file is begun.
            let opened = match self.writer.flush().await {
                Ok(()) => {
                    fault_point!("cursor-durable-and-file-not-reopened");
                    self.open().await
                }
                Err(unavailable) => Err(unavailable.into()),
            };
            match opened {
                Ok(()) => return Continue(()),
                Err(Trouble::Closed(why)) => {
                    self.close(&why);
                    return Break(());
                }
                Err(again) => trouble = again,
            }
            if self.finish.is_cancelled() {
                return Break(());
            }
        }
        Break(())
    }

    /// Records what stops the sink, and logs it once.
    fn report_trouble(&self, trouble: &Trouble) {
        let (name, now) = (self.name.as_str(), self.clock.wall());
        self.health.update(name, |health| {
            if health.trouble.is_none() {
                warn!(sink = name, %trouble, "the sink takes no outcomes; they are kept, and it is tried again");
            }
            let since = health.trouble.take().map_or(now, |(since, _)| since);
            health.trouble = Some((since, trouble.to_string()));
        });
    }

    fn report_recovery(&self) {
        let name = self.name.as_str();
        self.health.update(name, |health| {
            if health.trouble.take().is_some() {
                info!(sink = name, "the sink takes outcomes again");
            }
        });
    }

    fn close(&self, why: &str) {
        let (name, now) = (self.name.as_str(), self.clock.wall());
        error!(sink = name, why, "the sink is closed until the next start; its outcomes are kept");
        self.health.update(name, |health| {
            health.trouble = Some((now, why.to_owned()));
            health.closed = true;
        });
    }
}

/// Waits for an outcome after `cursor`.
async fn newer_than(newest: &mut watch::Receiver<i64>, cursor: i64) {
    // Never an error: the sender is the writer's task, which outlives the sinks.
    let _ = newest.wait_for(|newest| *newest > cursor).await;
}

#[cfg(test)]
#[path = "dispatch_tests.rs"]
mod tests;
