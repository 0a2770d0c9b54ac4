//! The one writer: drains whatever changes wait into one transaction, and answers only after its commit.
//!
//! While the store can't be written, submits are refused, and verdicts and cursors are kept and tried again:
//! a verdict is never forgotten. The schedule stops polling when too many of them wait, so the wait is bounded.
//! Every channel into it is bounded: who finds it full waits.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{error, info};

use super::sqlite::{Applied, Transaction, WriteConnection};
use super::{Committed, NewPin, Submitted, Unavailable};
use crate::outcome::Verdict;

/// Requests that may wait for the writer.
const QUEUE: usize = 1024;

/// PINs, verdicts and cursors in one transaction, about: bounds its length and so everybody's wait.
const MAX_BATCH: usize = 8192;

/// How long after a failed transaction the next is tried, when nothing else asks for one.
const RETRY: Duration = Duration::from_secs(1);

/// How long changes may wait at a stop for a store that can't be written.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

enum Change {
    Submit(Vec<NewPin>, oneshot::Sender<Result<Vec<Submitted>, Unavailable>>),
    Finish(Verdict),
    Cursor { sink: String, cursor: i64 },
}

impl Change {
    fn weight(&self) -> usize {
        match self {
            Self::Submit(pins, _) => pins.len(),
            Self::Finish(_) | Self::Cursor { .. } => 1,
        }
    }
}

/// Where changes are handed in. Cheap to clone; the writer ends when the last one is gone.
#[derive(Clone)]
pub struct Writer {
    changes: mpsc::Sender<Change>,
    newest: watch::Receiver<i64>,
}

impl Writer {
    /// A writer and its task. `committed` hears of every commit before anybody who asked for it does.
    pub fn new<M: From<Committed> + Send + 'static>(
        connection: WriteConnection,
        committed: mpsc::Sender<M>,
        max_in_flight: usize,
    ) -> (Self, WriterTask<M>) {
        let (sender, changes) = mpsc::channel(QUEUE);
        let (newest, receiver) = watch::channel(connection.last_seq());
        let task = WriterTask { connection, changes, committed, newest, max_in_flight, failing: false };
        (Self { changes: sender, newest: receiver }, task)
    }

    /// Takes PINs in; answers, in their order, when that is durable.
    pub async fn submit(&self, pins: Vec<NewPin>) -> Result<Vec<Submitted>, Unavailable> {
        let (reply, answer) = oneshot::channel();
        let sent = self.changes.send(Change::Submit(pins, reply)).await;
        sent.map_err(|_| Unavailable::stopped())?;
        answer.await.map_err(|_| Unavailable::stopped())?
    }

    /// Hands in a verdict if there is room, else gives it back. It is committed sooner or later; its PIN's
    /// `Committed::Finished` tells when.
    pub fn try_finish(&self, verdict: Verdict) -> Result<(), Verdict> {
        let room = self.changes.try_reserve();
        match room {
            Ok(room) => {
                room.send(Change::Finish(verdict));
                Ok(())
            }
            Err(_) => Err(verdict),
        }
    }

    /// Waits until [`Writer::try_finish`] may find room.
    pub async fn room(&self) {
        // An error means that the writer is gone, which its owner notices.
        let _ = self.changes.reserve().await;
    }

    /// Notes that `sink` has every outcome up to `cursor`. Not durable when this returns: what a crash undoes
    /// is delivered again.
    pub async fn advance(&self, sink: &str, cursor: i64) {
        // The writer outlives the sinks; and a cursor that is lost only means one more delivery.
        let _ = self.changes.send(Change::Cursor { sink: sink.to_owned(), cursor }).await;
    }

    /// The newest durable `seq`, and its changes.
    pub fn newest(&self) -> watch::Receiver<i64> {
        self.newest.clone()
    }
}

/// The task behind [`Writer`]. Ends when every `Writer` is gone and all is committed.
pub struct WriterTask<M> {
    connection: WriteConnection,
    changes: mpsc::Receiver<Change>,
    committed: mpsc::Sender<M>,
    newest: watch::Sender<i64>,
    max_in_flight: usize,
    failing: bool,
}

/// Who waits for how many of the transaction's submits.
type Waiting = VecDeque<(usize, oneshot::Sender<Result<Vec<Submitted>, Unavailable>>)>;

impl<M: From<Committed> + Send + 'static> WriterTask<M> {
    /// Writes until every [`Writer`] is gone, then closes the file. Gives the number of verdicts that could
    /// not be written; their PINs are still in flight in the file and are polled again after the next start.
    pub async fn run(mut self) -> usize {
        let mut work = Transaction::default();
        let mut waiting = Waiting::new();
        let mut open = true;
        let mut give_up_at = None;
        while open || !is_empty(&work) {
            if open {
                open = self.gather(&mut work, &mut waiting).await;
            } else {
                // Only what failed before is left, and nobody else wakes us.
                let give_up_at = *give_up_at.get_or_insert_with(|| Instant::now() + STOP_PATIENCE);
                if Instant::now() >= give_up_at {
                    break;
                }
                if self.failing {
                    tokio::time::sleep(RETRY).await;
                }
            }
            if is_empty(&work) {
                continue;
            }
            let result = self.connection.apply(&work, self.max_in_flight).await;
            match result {
                Ok(applied) => {
                    self.succeeded();
                    work = Transaction::default();
                    self.publish(applied, &mut waiting).await;
                }
                Err(error) => self.failed(error, &mut work, &mut waiting),
            }
        }
        let lost = work.verdicts.len();
        if let Err(error) = self.connection.close().await {
            error!(%error, "the database did not close cleanly; it will recover at the next start");
        }
        lost
    }

    /// Waits for a change and takes with it all that wait behind it; after a failure it waits only so long.
    /// False when every [`Writer`] is gone.
    async fn gather(&mut self, work: &mut Transaction, waiting: &mut Waiting) -> bool {
        let first = if is_empty(work) {
            self.changes.recv().await
        } else {
            match tokio::time::timeout(RETRY, self.changes.recv()).await {
                Ok(change) => change,
                Err(_) => return true,
            }
        };
        let Some(first) = first else { return false };
        let mut weight = first.weight();
        add(first, work, waiting);
        while weight < MAX_BATCH {
            let Ok(change) = self.changes.try_recv() else { break };
            weight += change.weight();
            add(change, work, waiting);
        }
        true
    }

    async fn publish(&mut self, applied: Applied, waiting: &mut Waiting) {
        // A receiver that is gone means that the daemon stops: the store is the truth, nobody misses it. A PIN
        // that left can have been accepted again in the same transaction, so what finished is told first.
        if let Some(last) = applied.finished.last() {
            self.newest.send_replace(last.seq);
            let _ = self.committed.send(Committed::Finished(applied.finished).into()).await;
        }
        if !applied.accepted.is_empty() {
            let _ = self.committed.send(Committed::Accepted(applied.accepted).into()).await;
        }
        let mut submitted = applied.submitted.into_iter();
        for (count, reply) in waiting.drain(..) {
            // Who hung up learns it when it submits again: `duplicate`.
            let _ = reply.send(Ok(submitted.by_ref().take(count).collect()));
        }
    }

    fn succeeded(&mut self) {
        if std::mem::take(&mut self.failing) {
            info!("the store can be written again");
        }
    }

    /// Refuses the submits and keeps the rest.
    fn failed(&mut self, error: sqlx::Error, work: &mut Transaction, waiting: &mut Waiting) {
        let unavailable = Unavailable::from(error);
        if !std::mem::replace(&mut self.failing, true) {
            error!(
                error = %unavailable.0,
                "the store can't be written: submits are refused, outcomes are kept in memory until it can"
            );
        }
        work.submits.clear();
        for (_, reply) in waiting.drain(..) {
            let _ = reply.send(Err(unavailable.clone()));
        }
    }
}

fn add(change: Change, work: &mut Transaction, waiting: &mut Waiting) {
    match change {
        Change::Submit(pins, reply) => {
            waiting.push_back((pins.len(), reply));
            work.submits.extend(pins);
        }
        Change::Finish(verdict) => work.verdicts.push(verdict),
        Change::Cursor { sink, cursor } => {
            work.cursors.insert(sink, cursor);
        }
    }
}

fn is_empty(work: &Transaction) -> bool {
    work.verdicts.is_empty() && work.submits.is_empty() && work.cursors.is_empty()
}
