//! The dispatcher of an ordered sink: reads ahead in the outbox, delivers, and moves the cursor.
//!
//! Promises that the cursor never passes an undelivered outcome. Must not know what a sink writes to.

use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info};

use super::{Ordered, Outbox, Trouble};
use crate::backoff::Backoff;
use crate::fault::fault_point;
use crate::store::{Outcome, Progress};

/// The most outcomes to read ahead.
const BATCH: u32 = 512;

/// The pauses between attempts while a sink is in trouble.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(5);

/// The pause between checks whether an idle sink could still deliver.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// One sink and its outbox.
pub struct Dispatcher<S> {
    pub sink: S,
    pub outbox: Outbox,
}

impl<S: Ordered> Dispatcher<S> {
    /// Opens the sink, and moves the cursor if the sink already has more outcomes.
    ///
    /// # Errors
    /// The sink can't be written, or the store can't be read.
    pub async fn open(&mut self) -> Result<(), Trouble> {
        let reached = self.sink.open(&self.outbox.store, self.outbox.cursor).await?;
        if let Some(seq) = reached.filter(|seq| *seq > self.outbox.cursor) {
            info!(
                sink = self.outbox.name,
                from = self.outbox.cursor,
                to = seq,
                "the file is ahead of the cursor"
            );
            self.advance(seq).await;
        }
        let (cursor, name) = (self.outbox.cursor, self.outbox.name.as_str());
        self.outbox.health.update(name, |health| health.cursor = cursor);
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
        let mut newest = self.outbox.writer.newest();
        let mut commands = self.outbox.writer.commands();
        // Replays that were requested before the start are still due.
        commands.mark_changed();
        while !self.outbox.handover.accept() {
            match self.step(&mut commands).await {
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
            if self.outbox.finish.is_cancelled() {
                return;
            }
            tokio::select! {
                () = newer_than(&mut newest, self.outbox.cursor) => {}
                _ = commands.changed() => commands.mark_changed(),
                _ = self.outbox.rotate.changed() => {
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
                () = self.outbox.finish.cancelled() => {}
                () = self.outbox.handover.requested() => {}
            }
        }
    }

    /// Delivers one batch of replays and one of new outcomes, so that neither waits for all of the other. Returns false if there
    /// is neither.
    async fn step(&mut self, commands: &mut watch::Receiver<u64>) -> Result<bool, Trouble> {
        let replayed = self.replay(commands).await?;
        Ok(self.deliver_batch().await? || replayed)
    }

    /// Delivers the next batch of new outcomes; returns false if there is none.
    async fn deliver_batch(&mut self) -> Result<bool, Trouble> {
        if self.outbox.rotate.has_changed().unwrap_or(false) {
            self.outbox.rotate.mark_unchanged();
            self.sink.adopt();
            return Err(Trouble::Rotated);
        }
        // Read before the outbox, so that the outbox has at least these outcomes.
        let newest = *self.outbox.writer.newest().borrow();
        let outcomes = self.outbox.store.outcomes_after(self.outbox.cursor, BATCH).await?;
        let seqs: Vec<i64> = outcomes.iter().map(|outcome| outcome.seq).collect();
        if outcomes.is_empty() {
            // Retention removed the outcomes between, as it may before a sink is configured.
            if newest > self.outbox.cursor {
                self.advance(newest).await;
            }
            // Nothing is left that the sink refuses, so any trouble is over.
            self.report_recovery();
            return Ok(false);
        }
        let (count, result) = self.sink.deliver(outcomes).await;
        self.count(count);
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
    async fn replay(&mut self, commands: &mut watch::Receiver<u64>) -> Result<bool, Trouble> {
        if self.outbox.finish.is_cancelled() || !commands.has_changed().unwrap_or(false) {
            return Ok(false);
        }
        // Before the query, or a request that arrives during it would be missed.
        commands.mark_unchanged();
        let done = self.replay_batch().await;
        if done != Ok(false) {
            // There may be another batch; after trouble there is.
            commands.mark_changed();
        }
        done
    }

    /// Makes the cursor durable before the replay: after a crash the sink's last line may be a replayed one, which says nothing
    /// about the cursor. A replay that a crash interrupts is delivered once more, with the same `id`.
    async fn replay_batch(&mut self) -> Result<bool, Trouble> {
        let requested = self.outbox.store.failed(&self.outbox.name, false, 0, BATCH).await?;
        if requested.is_empty() {
            return Ok(false);
        }
        self.outbox.writer.flush().await?;
        let outcomes: Vec<Outcome> = requested.into_iter().map(|(_, outcome)| outcome).collect();
        let mut delivered: Vec<i64> = outcomes.iter().map(|outcome| outcome.seq).collect();
        let (count, result) = self.sink.deliver(outcomes).await;
        self.count(count);
        delivered.truncate(count);
        let now = self.outbox.clock.wall();
        self.outbox.health.update(&self.outbox.name, |health| health.delivered(&delivered, now));
        self.outbox
            .writer
            .advance(Progress { sink: self.outbox.name.clone(), delivered, ..Progress::default() })
            .await;
        // Durable before the next query, or it would find the same ones again.
        self.outbox.writer.flush().await?;
        result?;
        self.report_recovery();
        Ok(true)
    }

    fn count(&self, delivered: usize) {
        self.outbox.health.update(&self.outbox.name, |health| health.delivered += delivered as u64);
    }

    async fn advance(&mut self, seq: i64) {
        self.outbox.cursor = seq;
        let progress = Progress { sink: self.outbox.name.clone(), cursor: Some(seq), ..Progress::default() };
        self.outbox.writer.advance(progress).await;
        let now = self.outbox.clock.wall();
        self.outbox.health.update(&self.outbox.name, |health| health.advance(seq, now));
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
                let wait = backoff.jittered(backoff.nth(attempt), &mut random);
                self.report_trouble(&trouble, wait);
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    _ = self.outbox.rotate.changed() => self.sink.adopt(),
                    () = self.outbox.finish.cancelled() => return Break(()),
                    () = self.outbox.handover.requested() => {}
                }
                if self.outbox.handover.accept() {
                    return Break(());
                }
            }
            fault_point!("trouble-noticed");
            // A new file says nothing about the lines in the old one, so the cursor must be durable before the file is begun.
            let opened = match self.outbox.writer.flush().await {
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
            if self.outbox.finish.is_cancelled() {
                return Break(());
            }
        }
        Break(())
    }

    /// Reports why the sink accepts nothing; it is tried again after `wait`.
    fn report_trouble(&self, trouble: &Trouble, wait: Duration) {
        let Outbox { name, clock, health, .. } = &self.outbox;
        let now = clock.wall();
        health.trouble(name, &trouble.to_string(), now);
        health.update(name, |health| health.next_attempt = Some(now + wait));
    }

    fn report_recovery(&self) {
        self.outbox.health.recovered(&self.outbox.name);
    }

    fn close(&self, why: &str) {
        let (name, now) = (self.outbox.name.as_str(), self.outbox.clock.wall());
        error!(sink = name, why, "the sink is closed until the next start; its outcomes are kept");
        self.outbox.health.update(name, |health| {
            health.trouble = Some((now, why.to_owned()));
            health.closed = true;
            (health.next_attempt, health.open_since) = (None, None);
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
