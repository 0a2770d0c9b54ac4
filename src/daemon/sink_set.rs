//! The sinks that run: started at first, exchanged by a reload, ended at last.
//!
//! Promises that an exchange happens whole or not at all, and that no cursor has two dispatchers. Knows no
//! kind of sink.

use std::future::poll_fn;
use std::task::Poll;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{DaemonError, FLUSH_PATIENCE, Outbox, start_sink, within};
use crate::config;
use crate::fault::fault_point;
use crate::store::Order;

/// All that run, and what each is given.
pub struct SinkSet {
    running: Vec<Running>,
    /// Its cursor is of no sink.
    common: Outbox,
}

struct Running {
    config: config::Sink,
    finish: CancellationToken,
    tasks: JoinSet<()>,
}

impl SinkSet {
    pub fn new(common: Outbox) -> Self {
        Self { running: Vec::new(), common }
    }

    /// Starts a sink where its cursor is; one without a cursor gets one.
    pub async fn start(&mut self, config: &config::Sink) -> Result<(), DaemonError> {
        let Outbox { store, writer, clock, health, rotate, finish, cursor: _ } = &self.common;
        let from_oldest = config.from == config::From::Oldest;
        // The writer answers after all that was handed in before: the cursor is where the last one ended.
        let cursor = writer.register(config.name.clone(), from_oldest).await?;
        fault_point!("sink-registered");
        let finish = finish.child_token();
        let outbox = Outbox {
            cursor,
            store: store.clone(),
            writer: writer.clone(),
            clock: clock.clone(),
            health: health.clone(),
            rotate: rotate.clone(),
            finish: finish.clone(),
        };
        let mut tasks = JoinSet::new();
        start_sink(config, outbox, &mut tasks).await?;
        // Before anybody can ask: who has no health is taken for a sink that is not configured any more.
        health.update(&config.name, |health| health.cursor = health.cursor.max(cursor));
        self.running.push(Running { config: config.clone(), finish, tasks });
        Ok(())
    }

    /// Goes over to these sinks; gives what changed, in words. On an error all is as it was.
    pub async fn change_to(&mut self, wanted: &[config::Sink]) -> Result<Vec<String>, DaemonError> {
        let known = self.common.store.cursors().await?;
        let (stay, leave): (Vec<_>, Vec<_>) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|running| wanted.iter().any(|sink| sink.is_same(&running.config)));
        let kept = stay.len();
        self.running = stay;
        let left: Vec<_> = leave.iter().map(|running| running.config.clone()).collect();
        for running in leave {
            running.end().await;
        }
        let mut changes = Vec::new();
        for sink in wanted {
            if self.running.iter().any(|running| running.config.name == sink.name) {
                continue;
            }
            if let Err(error) = self.start(sink).await {
                let added = wanted.iter().map(|sink| &sink.name);
                let added = added.filter(|name| !known.iter().any(|(known, _)| known == *name));
                self.undo(kept, &left, added).await;
                return Err(error);
            }
            let was = left.iter().any(|old| old.name == sink.name);
            changes.push(format!("sink {} {}", sink.name, if was { "changed" } else { "added" }));
        }
        for old in left.iter().filter(|old| !wanted.iter().any(|sink| sink.name == old.name)) {
            self.common.health.forget(&old.name);
            changes.push(format!("sink {} removed", old.name));
        }
        Ok(changes)
    }

    /// Ends what was started after the first `kept`, takes back the cursors of those that were `added`, and
    /// starts again what had left.
    async fn undo(&mut self, kept: usize, left: &[config::Sink], added: impl Iterator<Item = &String>) {
        for started in self.running.split_off(kept) {
            started.end().await;
        }
        for name in added {
            self.common.health.forget(name);
            // Should it stay, it is a sink that is not configured any more, which the next start tells of.
            let _ = self.common.writer.order(Order::Forget { sink: name.clone() }).await;
        }
        for old in left {
            match self.start(old).await {
                Ok(()) => info!(sink = old.name, "the sink goes on as it was"),
                Err(error) => {
                    error!(sink = old.name, %error, "the sink can't go on as it was; its outcomes are kept for the next start");
                }
            }
        }
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

impl Running {
    /// Has it deliver what is there, if it can, and ends it.
    async fn end(mut self) {
        self.finish.cancel();
        within(FLUSH_PATIENCE, &self.config.name, join(&mut self.tasks)).await;
    }
}

async fn join(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(failure) = ended {
            error!(%failure, "a sink broke off; this is a bug. Its outcomes are kept");
        }
    }
}
