//! The dispatcher of an ordered sink: reads ahead in the outbox, delivers, moves the cursor.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Health, Leave, Ordered, Trouble};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::fault::fault_point;
use crate::store::{Outcome, Progress, Record, Store, Unavailable, Writer};

/// Outcomes that are read ahead.
const BATCH: u32 = 512;

/// Between one try and the next while a sink is in trouble.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// Asks sinks to open their files again: its changes are the asking (SIGHUP).
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
    /// When it is cancelled the dispatcher delivers what is there, if it can, and ends.
    pub finish: CancellationToken,
    /// When it is asked to leave, the dispatcher ends behind its present batch.
    pub leave: Leave,
}

impl<S: Ordered> Dispatcher<S> {
    /// Opens the sink, and takes its word for how far it is if the store knows the line it ends with.
    ///
    /// # Errors
    /// The sink can't be written, or the store can't be read.
    pub async fn open(&mut self) -> Result<(), Trouble> {
        let last_line = self.sink.open().await?;
        if let Some(line) = last_line {
            let seq = self.seq_of(&line).await.map_err(|error| Trouble::Later(error.to_string()))?;
            if let Some(seq) = seq.filter(|seq| *seq > self.cursor) {
                info!(sink = self.name, from = self.cursor, to = seq, "the file is ahead of the cursor");
                self.advance(seq).await;
            }
        }
        let (cursor, name) = (self.cursor, self.name.as_str());
        self.health.update(name, |health| health.cursor = cursor);
        Ok(())
    }

    /// Opens the sink, as often as that takes, then [runs](Self::run).
    pub async fn open_and_run(mut self) {
        if self.recover(Trouble::Rotated).await.is_continue() {
            self.run().await;
        }
    }

    /// Delivers until `finish`, or until it leaves or the sink is closed for good.
    pub async fn run(mut self) {
        let mut newest = self.writer.newest();
        let mut orders = self.writer.orders();
        // What was ordered before the start is still to be done.
        orders.mark_changed();
        while !self.leave.leaves() {
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
                    if self.recover(Trouble::Rotated).await.is_break() {
                        return;
                    }
                }
                () = self.finish.cancelled() => {}
                () = self.leave.asked() => {}
            }
        }
    }

    /// Delivers a batch of what was ordered and one of what comes next, so that neither waits for the other's
    /// end; false if there is nothing of either.
    async fn step(&mut self, orders: &mut watch::Receiver<u64>) -> Result<bool, Trouble> {
        let replayed = self.replay(orders).await?;
        Ok(self.deliver_batch().await? || replayed)
    }

    /// Delivers what comes next; false if there is nothing.
    async fn deliver_batch(&mut self) -> Result<bool, Trouble> {
        if self.rotate.has_changed().unwrap_or(false) {
            self.rotate.mark_unchanged();
            return Err(Trouble::Rotated);
        }
        // Before the read, which sees at least all that was durable then.
        let newest = *self.writer.newest().borrow();
        let outcomes = self.store.outcomes_after(self.cursor, BATCH).await.map_err(later)?;
        let seqs: Vec<i64> = outcomes.iter().map(|outcome| outcome.seq).collect();
        if outcomes.is_empty() {
            // Retention removed what is between, as it may for a sink that was not there then.
            if newest > self.cursor {
                self.advance(newest).await;
            }
            // What stopped it, if anything did, stops it no more: nothing is left that it does not take.
            self.well();
            return Ok(false);
        }
        let (count, result) = self.sink.deliver(outcomes).await;
        if let Some(seq) = count.checked_sub(1).and_then(|last| seqs.get(last)) {
            fault_point!("delivered-and-cursor-behind");
            self.advance(*seq).await;
        }
        result.map(|()| {
            self.well();
            true
        })
    }

    /// Delivers a batch of what somebody ordered, if anything was; false if there is nothing. At a stop it is
    /// left for the next start: however much it is, the stop does not wait for it, nor break it off half-way.
    async fn replay(&mut self, orders: &mut watch::Receiver<u64>) -> Result<bool, Trouble> {
        if self.finish.is_cancelled() || !orders.has_changed().unwrap_or(false) {
            return Ok(false);
        }
        // Before the look, or an order that is carried out during it would be slept over.
        orders.mark_unchanged();
        let done = self.replay_batch().await;
        if done != Ok(false) {
            // Behind this batch there may be more; after trouble there is.
            orders.mark_changed();
        }
        done
    }

    /// The cursor is durable before anything is delivered again: after a crash the sink's last line may be one of
    /// these, and then tells nothing. So what a crash interrupts here is delivered once more, under the same `id`.
    async fn replay_batch(&mut self) -> Result<bool, Trouble> {
        let ordered = self.store.failed(&self.name, false, 0, BATCH).await.map_err(later)?;
        if ordered.is_empty() {
            return Ok(false);
        }
        self.writer.flush().await.map_err(later)?;
        let outcomes: Vec<Outcome> = ordered.into_iter().map(|(_, outcome)| outcome).collect();
        let mut delivered: Vec<i64> = outcomes.iter().map(|outcome| outcome.seq).collect();
        let (count, result) = self.sink.deliver(outcomes).await;
        delivered.truncate(count);
        let now = self.clock.wall();
        self.health.update(&self.name, |health| health.delivered(&delivered, now));
        self.writer.advance(Progress { sink: self.name.clone(), delivered, ..Progress::default() }).await;
        // Before the next look, or the same would be found again.
        self.writer.flush().await.map_err(later)?;
        result?;
        self.well();
        Ok(true)
    }

    async fn advance(&mut self, seq: i64) {
        self.cursor = seq;
        let progress = Progress { sink: self.name.clone(), cursor: Some(seq), ..Progress::default() };
        self.writer.advance(progress).await;
        let now = self.clock.wall();
        self.health.update(&self.name, |health| health.advance(seq, now));
    }

    /// Waits until the sink can be opened again; breaks if the daemon stops or the sink leaves first, or if it
    /// never will.
    async fn recover(&mut self, trouble: Trouble) -> std::ops::ControlFlow<()> {
        use std::ops::ControlFlow::{Break, Continue};
        let backoff = Backoff::new(FIRST_RETRY, 2.0, MAX_RETRY, 0.2);
        let mut random = fastrand::Rng::new();
        let mut trouble = trouble;
        for attempt in 0.. {
            if trouble != Trouble::Rotated {
                self.ill(&trouble);
                tokio::select! {
                    () = tokio::time::sleep(backoff.jittered(backoff.nth(attempt), &mut random)) => {}
                    () = self.finish.cancelled() => return Break(()),
                    () = self.leave.asked() => {}
                }
                if self.leave.leaves() {
                    return Break(());
                }
            }
            fault_point!("trouble-noticed");
            // A new file tells nothing about the old one's lines, so the cursor is durable before it is begun.
            let opened = match self.writer.flush().await {
                Ok(()) => {
                    fault_point!("cursor-durable-and-file-not-reopened");
                    self.open().await
                }
                Err(unavailable) => Err(later(unavailable)),
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

    /// Notes what stops the sink, and says so once.
    fn ill(&self, trouble: &Trouble) {
        let (name, now) = (self.name.as_str(), self.clock.wall());
        self.health.update(name, |health| {
            if health.trouble.is_none() {
                warn!(sink = name, %trouble, "the sink takes no outcomes; they are kept, and it is tried again");
            }
            let since = health.trouble.take().map_or(now, |(since, _)| since);
            health.trouble = Some((since, trouble.to_string()));
        });
    }

    fn well(&self) {
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

    /// The `seq` of a line that the store has to the letter. Any other line is not of this store: its `seq`
    /// would lead astray.
    async fn seq_of(&self, line: &str) -> Result<Option<i64>, Unavailable> {
        #[derive(serde::Deserialize)]
        struct SeqOnly {
            seq: i64,
        }
        let Ok(SeqOnly { seq }) = serde_json::from_str(line) else { return Ok(None) };
        let known = self.store.outcomes_after(seq.saturating_sub(1), 1).await?;
        Ok(known
            .first()
            .filter(|outcome| outcome.seq == seq && outcome.record == Record::from(line))
            .map(|o| o.seq))
    }
}

/// Waits for an outcome after `cursor`.
async fn newer_than(newest: &mut watch::Receiver<i64>, cursor: i64) {
    // The sender is the writer's task, which outlives the sinks.
    let _ = newest.wait_for(|newest| *newest > cursor).await;
}

fn later(unavailable: Unavailable) -> Trouble {
    Trouble::Later(unavailable.to_string())
}

#[cfg(test)]
#[path = "dispatch_tests.rs"]
mod tests;
