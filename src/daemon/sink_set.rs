//! The sinks that run: started at first, exchanged by a reload, ended at last.
//!
//! Promises that an exchange happens whole or not at all, that no cursor has two dispatchers, and that a sink which
//! hangs is waited for, not broken off: what it is at may still come true. Knows no kind of sink.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use thiserror::Error;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};
use tracing::{error, info};

use super::sink_start::{self, Outbox, SinkTask};
use super::{DaemonError, Unavailable};
use crate::config;
use crate::fault::fault_point;
use crate::sinks::Leave;
use crate::store::Order;

/// How long a sink that is to leave may take for what it is at.
const LEAVE_PATIENCE: Duration = Duration::from_secs(10);

/// All that run, and what each is given.
pub struct SinkSet {
    running: Vec<Running>,
    /// Its cursor and its place are of no sink.
    common: Outbox,
}

struct Running {
    config: config::Sink,
    leave: Leave,
    tasks: JoinSet<()>,
}

/// An exchange of which nothing is left that can fail.
pub struct Prepared {
    opened: Vec<Opened>,
    left: Vec<Left>,
    /// Those of the opened ones that had no cursor before.
    added: Vec<String>,
}

struct Opened {
    config: config::Sink,
    leave: Leave,
    cursor: i64,
    task: SinkTask,
}

/// A sink that has left, and its cursor then.
struct Left {
    config: config::Sink,
    cursor: i64,
}

/// Why sinks were not exchanged; all is as it was.
#[derive(Debug, Error)]
pub enum CantChange {
    #[error(transparent)]
    Start(#[from] DaemonError),
    #[error(
        "the sink {0:?} is to change or to go, but what it delivers now does not end within {seconds} s, so it goes \
         on as it was: see what holds up its disk or its endpoint, then reload again",
        seconds = LEAVE_PATIENCE.as_secs()
    )]
    Busy(String),
}

impl From<Unavailable> for CantChange {
    fn from(unavailable: Unavailable) -> Self {
        Self::Start(unavailable.into())
    }
}

impl SinkSet {
    pub fn new(common: Outbox) -> Self {
        Self { running: Vec::new(), common }
    }

    /// Starts the first sinks, each where its cursor is; one without a cursor gets one. On an error none runs, and
    /// none has got a cursor.
    pub async fn start(&mut self, sinks: &[config::Sink]) -> Result<(), DaemonError> {
        let known = self.common.store.cursors().await?;
        let prepared = self.open_all(sinks, &known, Vec::new()).await?;
        self.change_over(prepared);
        Ok(())
    }

    /// Has the sinks leave that are not among the wanted, and opens those of them that do not run. On an error all
    /// is as it was. Dropped half-way, for a stop, it leaves each sink's outcomes for the next start.
    pub async fn prepare(&mut self, wanted: &[config::Sink]) -> Result<Prepared, CantChange> {
        let known = self.common.store.cursors().await?;
        let left = self.have_leave(|sink| !wanted.iter().any(|wanted| wanted.is_same(sink))).await?;
        Ok(self.open_all(wanted, &known, left).await?)
    }

    /// Has what was prepared run; gives what changed, in words.
    pub fn change_over(&mut self, prepared: Prepared) -> Vec<String> {
        let Prepared { opened, left, added: _ } = prepared;
        let mut changes = Vec::new();
        for Opened { config, leave, cursor, task } in opened {
            let was = left.iter().any(|old| old.config.name == config.name);
            changes.push(format!("sink {} {}", config.name, if was { "changed" } else { "added" }));
            // Before anybody can ask: who has no health is taken for a sink that is not configured any more. The
            // trouble was that of its predecessor.
            self.common.health.update(&config.name, |health| {
                health.cursor = health.cursor.max(cursor);
                (health.trouble, health.closed) = (None, false);
            });
            self.run(config, leave, task);
        }
        for Left { config, cursor: _ } in left {
            if !self.running.iter().any(|running| running.config.name == config.name) {
                self.common.health.forget(&config.name);
                changes.push(format!("sink {} removed", config.name));
            }
        }
        changes
    }

    /// Takes back the cursors that were given, and has go on what had left.
    pub async fn undo(&mut self, prepared: Prepared) {
        let Prepared { opened, left, added } = prepared;
        drop(opened);
        for name in added {
            self.common.health.forget(&name);
            // Should it stay, it is a sink that is not configured any more, which the next start tells of.
            let _ = self.common.writer.order(Order::Unregister { sink: name }).await;
        }
        for old in left {
            self.go_on(old);
        }
    }

    /// Opens the sinks that do not run, in place of those that left.
    async fn open_all(
        &mut self,
        wanted: &[config::Sink],
        known: &[(String, i64)],
        left: Vec<Left>,
    ) -> Result<Prepared, DaemonError> {
        let mut prepared = Prepared { opened: Vec::new(), left, added: Vec::new() };
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
        // The writer answers after all that was handed in before: the cursor is where the last one ended.
        let cursor = self.common.writer.register(config.name.clone(), from_oldest).await?;
        fault_point!("sink-registered");
        let leave = Leave::default();
        let outbox = Outbox { cursor, is_new, leave: leave.clone(), ..self.common.clone() };
        let task = sink_start::open(config, outbox).await?;
        Ok(Opened { config: config.clone(), leave, cursor, task })
    }

    /// Has some sinks leave behind their present batch. If one of them does not in time, none does.
    async fn have_leave(&mut self, goes: impl Fn(&config::Sink) -> bool) -> Result<Vec<Left>, CantChange> {
        let give_up_at = Instant::now() + LEAVE_PATIENCE;
        for running in self.running.iter().filter(|running| goes(&running.config)) {
            running.leave.ask();
        }
        let mut busy = None;
        for running in self.running.iter_mut().filter(|running| goes(&running.config)) {
            if timeout_at(give_up_at, join(&mut running.tasks)).await.is_ok() {
                continue;
            }
            if running.leave.take_back() {
                busy = busy.or_else(|| Some(running.config.name.clone()));
            } else {
                // It has agreed to, and waits for nothing more.
                join(&mut running.tasks).await;
            }
        }
        let (left, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|r| goes(&r.config) && r.tasks.is_empty());
        self.running = stay;
        let health = self.common.health.all();
        let cursor = |sink: &config::Sink| health.get(&sink.name).map_or(0, |health| health.cursor);
        let left = left.into_iter().map(|r| Left { cursor: cursor(&r.config), config: r.config }).collect();
        let Some(busy) = busy else { return Ok(left) };
        for old in left {
            self.go_on(old);
        }
        Err(CantChange::Busy(busy))
    }

    /// Has a sink go on that had left. That it can't be opened now is a trouble as any other: it is tried again.
    fn go_on(&mut self, Left { config, cursor }: Left) {
        let leave = Leave::default();
        let outbox = Outbox { cursor, leave: leave.clone(), ..self.common.clone() };
        match sink_start::open_again(&config, outbox) {
            Ok(task) => {
                info!(sink = config.name, "the sink goes on as it was");
                self.common.health.update(&config.name, |health| {
                    health.cursor = cursor;
                    health.closed = false;
                });
                self.run(config, leave, task);
            }
            Err(error) => {
                error!(sink = config.name, %error, "the sink can't go on as it was; its outcomes are kept for the next start");
            }
        }
    }

    fn run(&mut self, config: config::Sink, leave: Leave, task: SinkTask) {
        let mut tasks = JoinSet::new();
        tasks.spawn(task);
        self.running.push(Running { config, leave, tasks });
    }

    /// Waits until one breaks off. Others may end well: they are closed for good.
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

    /// Waits until all have ended, after they were told to finish.
    pub async fn ended(&mut self) {
        for running in &mut self.running {
            join(&mut running.tasks).await;
        }
    }
}

async fn join(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(failure) = ended {
            error!(%failure, "a sink broke off; this is a bug. Its outcomes are kept");
        }
    }
}

#[cfg(test)]
#[path = "sink_set_tests.rs"]
mod tests;
