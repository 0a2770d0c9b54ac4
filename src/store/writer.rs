//! The one writer: it commits all waiting changes in one transaction and replies only after the commit.
//!
//! Promises that no verdict is ever lost while the daemon runs. While the store can't be written, the writer refuses
//! submits, and keeps verdicts and progress and tries them again. The schedule stops polling when too many verdicts
//! wait, so their number is bounded. Every channel into the writer is bounded: senders wait while it is full. Knows
//! nothing of SQL.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{error, info};

use super::{
    Applied, ClusterApplied, ClusterWork, Committed, DeliveryCommand, NewPin, Orphan, Progress,
    SavedSchedule, Submitted, Transaction, Unavailable, Writes,
};
use crate::clock::Steady;
use crate::fault::fault_point;
use crate::metrics;
use crate::outcome::Verdict;
use crate::pin::PinId;
use crate::slot::Slots;
use crate::trouble::Trouble;

/// How many requests can wait for the writer.
const QUEUE: usize = 1024;

/// The approximate size of the largest transaction, in PINs, verdicts and cursors. It bounds how long a transaction
/// takes, and so how long everybody waits.
const MAX_BATCH: usize = 8192;

/// A transaction with this many changes shows that many arrive at once.
const BUSY: usize = 64;

/// After such a transaction, how long the next one waits for more changes: large transactions write fewer pages. A lone
/// client never has this wait.
const GATHER: Duration = Duration::from_millis(5);

/// How long after a failed transaction the next attempt comes, if no request comes first.
const RETRY: Duration = Duration::from_secs(1);

/// How often an idle writer checks that the store's files are in their place.
const LOOK: Duration = Duration::from_secs(2);

/// How long changes wait, while the daemon stops, for a store that can't be written.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

type Reply<T> = oneshot::Sender<Result<T, Unavailable>>;

/// A change on its way to the writer.
struct Change {
    /// What it adds to the size of a transaction.
    weight: usize,
    /// Puts it into the next transaction.
    add: Box<dyn FnOnce(&mut Batch) + Send>,
}

impl Change {
    fn new(weight: usize, add: impl FnOnce(&mut Batch) + Send + 'static) -> Self {
        Self { weight, add: Box::new(add) }
    }
}

/// The handle through which changes are submitted. Cheap to clone; the writer ends when the last one is dropped.
#[derive(Clone)]
pub struct Writer {
    changes: mpsc::Sender<Change>,
    newest: watch::Receiver<i64>,
    commands: watch::Receiver<u64>,
    trouble: watch::Receiver<Option<Trouble>>,
}

impl Writer {
    /// Makes a writer and its task. `committed` receives every commit before any requester gets its reply.
    pub fn new<M: From<Committed> + Send + 'static>(
        connection: Box<dyn Writes>,
        committed: mpsc::Sender<M>,
        max_in_flight: usize,
    ) -> (Self, WriterTask<M>) {
        let (sender, changes) = mpsc::channel(QUEUE);
        let (newest, newest_seen) = watch::channel(connection.last_seq());
        let (commands, commands_seen) = watch::channel(0);
        let (trouble, trouble_seen) = watch::channel(None);
        let task = WriterTask { connection, changes, committed, newest, commands, max_in_flight, trouble };
        (Self { changes: sender, newest: newest_seen, commands: commands_seen, trouble: trouble_seen }, task)
    }

    /// Accepts PINs; returns one result for each, in their order, once they are durable.
    pub async fn submit(&self, pins: Vec<NewPin>) -> Result<Vec<Submitted>, Unavailable> {
        let weight = pins.iter().map(NewPin::weight).sum();
        self.ask(weight, |batch, reply| {
            batch.submits.push_back((pins.len(), reply));
            batch.work.submits.extend(pins);
        })
        .await
    }

    /// Submits a verdict, or returns it if the queue is full. The verdict is committed sooner or later;
    /// [`Committed::Finished`] reports it.
    pub fn try_finish(&self, verdict: Verdict) -> Result<(), Verdict> {
        let Ok(room) = self.changes.try_reserve() else { return Err(verdict) };
        room.send(Change::new(1, |batch| batch.work.verdicts.push(verdict)));
        Ok(())
    }

    /// Saves the state of the schedule, or returns it if the queue is full.
    pub fn try_save_schedule(&self, schedule: SavedSchedule) -> Result<(), SavedSchedule> {
        let Ok(room) = self.changes.try_reserve() else { return Err(schedule) };
        room.send(Change::new(1, |batch| batch.work.schedule = Some(schedule)));
        Ok(())
    }

    /// Waits until [`Writer::try_finish`] may find room.
    pub async fn room(&self) {
        // An error means that the writer has ended; its owner notices that.
        let _ = self.changes.reserve().await;
    }

    /// Saves a sink's progress. It is not durable when this returns: whatever a crash undoes is delivered again.
    pub async fn advance(&self, progress: Progress) {
        // The writer outlives the sinks; and if progress is lost, the only effect is one more delivery.
        let weight = 1 + progress.failed.len() + progress.delivered.len();
        let _ = self.changes.send(Change::new(weight, |batch| batch.work.progress.push(progress))).await;
    }

    /// Waits until everything submitted before is durable.
    pub async fn flush(&self) -> Result<(), Unavailable> {
        self.submit(Vec::new()).await.map(|_| ())
    }

    /// Carries out a delivery command; returns how many outcomes it affected, once that is durable.
    pub async fn command(&self, command: DeliveryCommand) -> Result<u64, Unavailable> {
        self.ask(1, |batch, reply| {
            batch.commands.push_back(reply);
            batch.work.commands.push(command);
        })
        .await
    }

    /// Removes some of the outcomes that ended before `before` and that every sink has; returns how many.
    pub async fn prune(&self, before: Steady) -> Result<u64, Unavailable> {
        self.ask(1, move |batch, reply| {
            batch.prunes.push_back(reply);
            batch.work.prune = Some(before);
        })
        .await
    }

    /// Creates a cursor for a sink that has none, at the oldest outcome or after the newest; returns the sink's cursor.
    pub async fn register(&self, sink: String, from_oldest: bool) -> Result<i64, Unavailable> {
        self.ask(1, move |batch, reply| batch.registers.push_back((sink, from_oldest, reply))).await
    }

    /// Indexes some of the outcomes that an older version wrote; returns whether there are more.
    pub async fn index_older(&self) -> Result<bool, Unavailable> {
        self.ask(1, |batch, reply| batch.older.push(reply)).await
    }

    /// Asks for what other nodes left for these slots; [`Committed`] reports it. The request is lost if the queue is
    /// full, so callers repeat it from time to time.
    pub fn claim(&self, slots: Slots) {
        // If the queue is full, the caller will ask again; if the writer has ended, the daemon is stopping.
        let _ = self.changes.try_send(Change::new(1, move |batch| {
            let claim = batch.work.cluster.claim.get_or_insert_default();
            *claim = claim.union(&slots);
        }));
    }

    /// Asks the node that polls this PIN to withdraw it. The request is durable when this returns.
    pub async fn cancel_at_holder(&self, pin: PinId) -> Result<(), Unavailable> {
        self.ask(1, |batch, reply| {
            batch.confirmations.push(reply);
            batch.work.cluster.cancels.push(pin);
        })
        .await
    }

    /// Releases slots, after everything submitted before. No task of this node may still hold their PINs.
    pub async fn release(&self, slots: Slots) -> Result<(), Unavailable> {
        self.ask(1, move |batch, reply| {
            batch.confirmations.push(reply);
            batch.work.cluster.release = batch.work.cluster.release.union(&slots);
        })
        .await
    }

    /// Takes over some of the outcomes that a dead node did not deliver to a sink; returns how many. 0 means that none
    /// is left, or that the node is alive.
    pub async fn adopt(&self, orphan: Orphan) -> Result<u64, Unavailable> {
        self.ask(1, |batch, reply| {
            batch.adopts.push_back(reply);
            batch.work.cluster.adopt.push(orphan);
        })
        .await
    }

    /// Submits a change and waits for its result.
    async fn ask<T: Send + 'static>(
        &self,
        weight: usize,
        add: impl FnOnce(&mut Batch, Reply<T>) + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (reply, answer) = oneshot::channel();
        let change = Change::new(weight, |batch| add(batch, reply));
        self.changes.send(change).await.map_err(|_| Unavailable::stopped())?;
        answer.await.map_err(|_| Unavailable::stopped())?
    }

    /// Changes whenever delivery commands have been carried out.
    pub fn commands(&self) -> watch::Receiver<u64> {
        self.commands.clone()
    }

    /// A count that grows whenever delivery commands have been carried out.
    pub fn commands_done(&self) -> u64 {
        *self.commands.borrow()
    }

    /// Why the store can't be written now; `None` if it can.
    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble.borrow().clone()
    }

    /// The newest durable `seq`, as a channel that reports changes.
    pub fn newest(&self) -> watch::Receiver<i64> {
        self.newest.clone()
    }
}

/// The task of a [`Writer`]. It ends when every `Writer` is dropped and everything is committed, or can't be committed for
/// [`STOP_TIMEOUT`].
pub struct WriterTask<M> {
    connection: Box<dyn Writes>,
    changes: mpsc::Receiver<Change>,
    committed: mpsc::Sender<M>,
    newest: watch::Sender<i64>,
    commands: watch::Sender<u64>,
    max_in_flight: usize,
    trouble: watch::Sender<Option<Trouble>>,
}

/// The changes of the next transaction, and the requests that wait for their results.
#[derive(Default)]
struct Batch {
    work: Transaction,
    /// Each with the number of PINs that it submitted.
    submits: VecDeque<(usize, Reply<Vec<Submitted>>)>,
    commands: VecDeque<Reply<u64>>,
    prunes: VecDeque<Reply<u64>>,
    registers: VecDeque<(String, bool, Reply<i64>)>,
    /// For outcomes of an older version.
    older: Vec<Reply<bool>>,
    /// For withdrawals at other nodes, and released slots.
    confirmations: Vec<Reply<()>>,
    adopts: VecDeque<Reply<u64>>,
}

impl<M: From<Committed> + Send + 'static> WriterTask<M> {
    /// Writes until every [`Writer`] is dropped, then closes the store. Returns the number of verdicts that could not
    /// be written; their PINs are still in flight in the store, and the next start polls them again.
    pub async fn run(mut self) -> usize {
        let mut batch = Batch::default();
        let mut open = true;
        let mut busy = false;
        let mut give_up_at = None;
        while open || batch.changes() > 0 {
            if open {
                if busy {
                    tokio::time::sleep(GATHER).await;
                }
                open = self.gather(&mut batch).await;
            } else {
                // Only changes that failed before are left, and no request will wake this task.
                let give_up_at = *give_up_at.get_or_insert_with(|| Instant::now() + STOP_TIMEOUT);
                if Instant::now() >= give_up_at {
                    break;
                }
                if self.trouble.borrow().is_some() {
                    tokio::time::sleep(RETRY).await;
                }
            }
            if let Err(unavailable) = self.connection.in_place().await {
                self.failed(unavailable, &mut batch);
                continue;
            }
            let well = self.trouble.borrow().is_none();
            if batch.changes() == 0 && well {
                // A flush: there is nothing left to make durable.
                if let Err(unavailable) = self.connection.note_time().await {
                    self.failed(unavailable, &mut batch);
                    continue;
                }
                self.publish(Applied::default(), &mut batch).await;
                continue;
            }
            // A full transaction left more changes waiting than the next one can hold, so that one need not wait.
            busy = (BUSY..MAX_BATCH).contains(&batch.changes());
            let begun = Instant::now();
            match self.connection.apply(&batch.work, self.max_in_flight).await {
                Ok(applied) => {
                    metrics::committed(batch.changes(), begun);
                    batch.work = Transaction::default();
                    // The schedule always gets the commit. But if the file was moved away meanwhile, nobody else gets a
                    // confirmation, because the next start would not find the file.
                    match self.connection.in_place().await {
                        Ok(()) => self.succeeded(),
                        Err(unavailable) => self.failed(unavailable, &mut batch),
                    }
                    self.publish(applied, &mut batch).await;
                }
                Err(error) => self.failed(error, &mut batch),
            }
        }
        let lost = batch.work.verdicts.len();
        if let Err(error) = self.connection.close().await {
            error!(%error, "the database did not close cleanly; it will recover at the next start");
        }
        lost
    }

    /// Waits a limited time for a change, and takes it with all that wait after it. Returns false when every [`Writer`] is
    /// dropped.
    async fn gather(&mut self, batch: &mut Batch) -> bool {
        // Tries a failing store even with nothing to write: clients that wait for it to recover submit nothing.
        let well = self.trouble.borrow().is_none();
        let wait = if batch.changes() == 0 && well { LOOK } else { RETRY };
        let Ok(first) = tokio::time::timeout(wait, self.changes.recv()).await else { return true };
        let Some(first) = first else { return false };
        let mut weight = first.weight;
        (first.add)(batch);
        while weight < MAX_BATCH {
            let Ok(change) = self.changes.try_recv() else { break };
            weight += change.weight;
            (change.add)(batch);
        }
        true
    }

    async fn publish(&mut self, applied: Applied, waiting: &mut Batch) {
        // A closed channel means that the daemon is stopping; nothing is lost, because the store has it all. One
        // transaction can finish a PIN and accept it again, so the finished PINs are sent first.
        if let Some(last) = applied.finished.last() {
            fault_point!("finished-before-notices");
            self.newest.send_replace(last.seq);
            let _ = self.committed.send(Committed::Finished(applied.finished).into()).await;
            fault_point!("finished-after-notices");
        }
        if !applied.accepted.is_empty() {
            fault_point!("accepted-before-notices");
            let _ = self.committed.send(Committed::Accepted(applied.accepted).into()).await;
            fault_point!("accepted-and-not-acked");
        }
        self.publish_cluster(applied.cluster, waiting).await;
        metrics::submitted(&applied.submitted);
        let mut submitted = applied.submitted.into_iter();
        // A client that hung up learns the result when it asks again.
        for (count, reply) in waiting.submits.drain(..) {
            let _ = reply.send(Ok(submitted.by_ref().take(count).collect()));
        }
        if !applied.affected.is_empty() {
            self.commands.send_modify(|commands| *commands += 1);
        }
        for (reply, count) in waiting.commands.drain(..).zip(applied.affected) {
            let _ = reply.send(Ok(count));
        }
        for reply in waiting.prunes.drain(..) {
            let _ = reply.send(Ok(applied.pruned));
        }
        for (sink, from_oldest, reply) in waiting.registers.drain(..) {
            let cursor = self.connection.register_sink(&sink, from_oldest).await;
            let _ = reply.send(cursor);
        }
        for reply in waiting.older.drain(..) {
            let _ = reply.send(self.connection.index_older().await);
        }
    }

    async fn publish_cluster(&mut self, applied: ClusterApplied, waiting: &mut Batch) {
        let ClusterApplied { cancels, known, gone, adopted } = applied;
        // These are in other partitions of the outbox, so `newest` does not change.
        for committed in [Committed::Finished(known), Committed::Cancel(cancels), Committed::Gone(gone)] {
            if !committed.is_empty() {
                let _ = self.committed.send(committed.into()).await;
            }
        }
        for reply in waiting.confirmations.drain(..) {
            let _ = reply.send(Ok(()));
        }
        if adopted.iter().any(|count| *count > 0) {
            self.commands.send_modify(|commands| *commands += 1);
        }
        for (reply, count) in waiting.adopts.drain(..).zip(adopted) {
            let _ = reply.send(Ok(count));
        }
    }

    fn succeeded(&mut self) {
        if self.trouble.send_if_modified(|trouble| trouble.take().is_some()) {
            info!("the store can be written again");
        }
    }

    /// Refuses the requests that wait for a reply, and keeps the verdicts, the progress and the state of the schedule.
    fn failed(&mut self, unavailable: Unavailable, batch: &mut Batch) {
        metrics::commit_failed();
        if self.trouble.borrow().is_none() {
            error!(
                error = %unavailable.0,
                "the store can't be written: submits are refused, outcomes are kept in memory until it can"
            );
        }
        self.trouble.send_if_modified(|trouble| Trouble::note(trouble, Some(&unavailable.0)));
        batch.refuse(&unavailable);
    }
}

impl Batch {
    /// The number of changes.
    fn changes(&self) -> usize {
        self.work.changes()
    }

    /// Drops the changes of requests that wait for a result, and answers them with this error.
    fn refuse(&mut self, unavailable: &Unavailable) {
        self.work.submits.clear();
        self.work.commands.clear();
        self.work.prune = None;
        self.work.cluster = ClusterWork::default();
        for (_, reply) in self.submits.drain(..) {
            let _ = reply.send(Err(unavailable.clone()));
        }
        for reply in self.confirmations.drain(..) {
            let _ = reply.send(Err(unavailable.clone()));
        }
        let counts = self.commands.drain(..).chain(self.prunes.drain(..)).chain(self.adopts.drain(..));
        for reply in counts {
            let _ = reply.send(Err(unavailable.clone()));
        }
        for (_, _, reply) in self.registers.drain(..) {
            let _ = reply.send(Err(unavailable.clone()));
        }
        for reply in self.older.drain(..) {
            let _ = reply.send(Err(unavailable.clone()));
        }
    }
}
