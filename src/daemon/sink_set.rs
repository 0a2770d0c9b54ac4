//! Owns the running sinks: starts them, replaces them on a reload, and waits for their end.
//!
//! Promises that a reload replaces all sinks or none, that no cursor has two dispatchers, and that a sink which hangs is
//! waited for and not cut off, because its delivery may still succeed. Does not know the kinds of sinks.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use thiserror::Error;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};
use tracing::{error, info};

use super::sink_start::{self, SinkTask, Start};
use super::{DaemonError, Unavailable};
use crate::config;
use crate::fault::fault_point;
use crate::sinks::{Handover, Outbox};
use crate::store::DeliveryCommand;

/// How long a sink may take to finish its present batch before it hands over.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(10);

/// The running sinks, and what each of them needs.
pub struct SinkSet {
    running: Vec<Running>,
    /// A template: its name, cursor and handover belong to no sink.
    common: Outbox,
}

struct Running {
    config: config::Sink,
    handover: Handover,
    tasks: JoinSet<()>,
}

/// A prepared reload; committing it cannot fail.
pub struct Prepared {
    opened: Vec<Opened>,
    ended: Vec<Ended>,
    /// The opened sinks that had no cursor before.
    added: Vec<String>,
}

struct Opened {
    config: config::Sink,
    handover: Handover,
    cursor: i64,
    task: SinkTask,
}

/// A sink that has ended for the reload, and its cursor.
struct Ended {
    config: config::Sink,
    cursor: i64,
}

/// Why the sinks were not replaced. All of them continue as before.
#[derive(Debug, Error)]
pub enum CantReplace {
    #[error(transparent)]
    Start(#[from] DaemonError),
    #[error(
        "the sink {0:?} can't be changed or removed: its present delivery did not end within {seconds} s. It continues \
         as before. See what delays its disk or its endpoint, then reload again",
        seconds = HANDOVER_TIMEOUT.as_secs()
    )]
    Busy(String),
}

impl From<Unavailable> for CantReplace {
    fn from(unavailable: Unavailable) -> Self {
        Self::Start(unavailable.into())
    }
}

impl SinkSet {
    pub fn new(common: Outbox) -> Self {
        Self { running: Vec::new(), common }
    }

    /// Starts the sinks, each at its cursor; a sink without a cursor gets one. After an error none runs, and none has got a
    /// cursor.
    pub async fn start(&mut self, sinks: &[config::Sink]) -> Result<(), DaemonError> {
        let known = self.common.store.cursors().await?;
        let prepared = self.open_all(sinks, &known, Vec::new()).await?;
        self.commit(prepared);
        Ok(())
    }

    /// Ends the running sinks that are not wanted, and opens the wanted ones that do not run. After an error everything is
    /// as before. If it is dropped half-way, by a stop, each sink's outcomes stay for the next start.
    pub async fn prepare(&mut self, wanted: &[config::Sink]) -> Result<Prepared, CantReplace> {
        let known = self.common.store.cursors().await?;
        let ended = self.end_unwanted(|sink| !wanted.iter().any(|wanted| wanted.is_same(sink))).await?;
        Ok(self.open_all(wanted, &known, ended).await?)
    }

    /// Commits a prepared reload; returns the changes in words.
    pub fn commit(&mut self, prepared: Prepared) -> Vec<String> {
        let Prepared { opened, ended, added: _ } = prepared;
        let mut changes = Vec::new();
        for Opened { config, handover, cursor, task } in opened {
            let was = ended.iter().any(|old| old.config.name == config.name);
            changes.push(format!("sink {} {}", config.name, if was { "changed" } else { "added" }));
            // Before anybody can look: a sink without health counts as removed. The trouble was its predecessor's, and so was
            // the circuit breaker.
            self.common.health.update(&config.name, |health| {
                health.cursor = health.cursor.max(cursor);
                (health.trouble, health.closed) = (None, false);
                (health.next_attempt, health.open_since) = (None, None);
            });
            self.run(config, handover, task);
        }
        for Ended { config, cursor: _ } in ended {
            if !self.running.iter().any(|running| running.config.name == config.name) {
                self.common.health.forget(&config.name);
                changes.push(format!("sink {} removed", config.name));
            }
        }
        changes
    }

    /// Undoes a prepared reload: removes new cursors, and restarts the sinks that had ended.
    pub async fn undo(&mut self, prepared: Prepared) {
        let Prepared { opened, ended, added } = prepared;
        drop(opened);
        for name in added {
            self.common.health.forget(&name);
            // If that fails, it remains as a removed sink, which the next start reports.
            let _ = self.common.writer.command(DeliveryCommand::Unregister { sink: name }).await;
        }
        for old in ended {
            self.restart(old).await;
        }
    }

    /// Opens the wanted sinks that do not run.
    async fn open_all(
        &mut self,
        wanted: &[config::Sink],
        known: &[(String, i64)],
        ended: Vec<Ended>,
    ) -> Result<Prepared, DaemonError> {
        let mut prepared = Prepared { opened: Vec::new(), ended, added: Vec::new() };
        for sink in wanted {
            if self.running.iter().any(|running| running.config.name == sink.name) {
                continue;
            }
            let is_new = !known.iter().any(|(known, _)| *known == sink.name);
            if is_new {
                prepared.added.push(sink.name.clone());
            }
            match self.open(sink, is_new).await {
                Ok(opened) => prepared.opened.push(opened),
                Err(error) => {
                    self.undo(prepared).await;
                    return Err(error);
                }
            }
        }
        Ok(prepared)
    }

    async fn open(&self, config: &config::Sink, is_new: bool) -> Result<Opened, DaemonError> {
        let from_oldest = config.from == config::From::Oldest;
        // The writer works in order, so this cursor includes everything that the predecessor delivered.
        let cursor = self.common.writer.register(config.name.clone(), from_oldest).await?;
        fault_point!("sink-registered");
        let handover = Handover::default();
        let start = if is_new { Start::New } else { Start::AtCursor };
        let task = sink_start::open(config, self.outbox(config, cursor, &handover), start).await?;
        Ok(Opened { config: config.clone(), handover, cursor, task })
    }

    /// Ends some sinks after their present batch. If one of them takes too long, none is ended.
    async fn end_unwanted(
        &mut self,
        goes: impl Fn(&config::Sink) -> bool,
    ) -> Result<Vec<Ended>, CantReplace> {
        let give_up_at = Instant::now() + HANDOVER_TIMEOUT;
        for running in self.running.iter().filter(|running| goes(&running.config)) {
            running.handover.request();
        }
        let mut busy = None;
        for running in self.running.iter_mut().filter(|running| goes(&running.config)) {
            if timeout_at(give_up_at, join(&mut running.tasks)).await.is_ok() {
                continue;
            }
            if running.handover.withdraw() {
                busy = busy.or_else(|| Some(running.config.name.clone()));
            } else {
                // It has already agreed, and waits for nothing more.
                join(&mut running.tasks).await;
            }
        }
        let (ended, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|r| goes(&r.config) && r.tasks.is_empty());
        self.running = stay;
        let health = self.common.health.all();
        let cursor = |sink: &config::Sink| health.get(&sink.name).map_or(0, |health| health.cursor);
        let ended =
            ended.into_iter().map(|r| Ended { cursor: cursor(&r.config), config: r.config }).collect();
        let Some(busy) = busy else { return Ok(ended) };
        for old in ended {
            self.restart(old).await;
        }
        Err(CantReplace::Busy(busy))
    }

    /// Restarts a sink that had ended. If it can't be opened now, it keeps trying, as after any other trouble.
    async fn restart(&mut self, Ended { config, cursor }: Ended) {
        let handover = Handover::default();
        match sink_start::open(&config, self.outbox(&config, cursor, &handover), Start::Again).await {
            Ok(task) => {
                info!(sink = config.name, "the sink continues as before");
                self.common.health.update(&config.name, |health| {
                    health.cursor = cursor;
                    health.closed = false;
                });
                self.run(config, handover, task);
            }
            Err(error) => {
                error!(sink = config.name, %error, "the sink can't continue; its outcomes are kept for the next start");
            }
        }
    }

    fn outbox(&self, config: &config::Sink, cursor: i64, handover: &Handover) -> Outbox {
        Outbox { name: config.name.clone(), cursor, handover: handover.clone(), ..self.common.clone() }
    }

    fn run(&mut self, config: config::Sink, handover: Handover, task: SinkTask) {
        let mut tasks = JoinSet::new();
        tasks.spawn(task);
        self.running.push(Running { config, handover, tasks });
    }

    /// Waits until a sink fails by a bug. Sinks that are closed for good end without failure.
    pub async fn broke(&mut self) -> JoinError {
        poll_fn(|context| {
            for running in &mut self.running {
                while let Poll::Ready(Some(ended)) = running.tasks.poll_join_next(context) {
                    if let Err(failure) = ended {
                        return Poll::Ready(failure);
                    }
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Waits until all sinks have ended, after `finish` was cancelled.
    pub async fn ended(&mut self) {
        for running in &mut self.running {
            join(&mut running.tasks).await;
        }
    }
}

async fn join(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(failure) = ended {
            error!(%failure, "a sink failed; this is a bug. Its outcomes are kept");
        }
    }
}

#[cfg(test)]
#[path = "sink_set_tests.rs"]
mod tests;
