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

use super::{
    Applied, ClusterApplied, ClusterWork, Committed, NewPin, Order, Orphan, Progress, SavedBrake, Submitted,
    Transaction, Unavailable, Writes,
};
use crate::clock::Steady;
use crate::fault::fault_point;
use crate::metrics;
use crate::outcome::Verdict;
use crate::pin::PinId;
use crate::slot::Slots;
use crate::trouble::Trouble;

/// Requests that may wait for the writer.
const QUEUE: usize = 1024;

/// PINs, verdicts and cursors in one transaction, about: bounds its length and so everybody's wait.
const MAX_BATCH: usize = 8192;

/// A transaction of so many changes shows that many come at once.
const BUSY: usize = 64;

/// How long the next one then waits for more: together they write fewer pages. A lone client never waits for it.
const GATHER: Duration = Duration::from_millis(5);

/// How long after a failed transaction the next is tried, when nothing else asks for one.
const RETRY: Duration = Duration::from_secs(1);

/// How often to see whether the store's files are where they should be, when nobody writes.
const LOOK: Duration = Duration::from_secs(2);

/// How long changes may wait at a stop for a store that can't be written.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

type Reply<T> = oneshot::Sender<Result<T, Unavailable>>;

enum Change {
    Submit(Vec<NewPin>, Reply<Vec<Submitted>>),
    Finish(Verdict),
    Progress(Progress),
    Order(Order, Reply<u64>),
    Brake(SavedBrake),
    Prune(Steady, Reply<u64>),
    Register(String, bool, Reply<i64>),
    Claim(Slots),
    CancelElsewhere(PinId, Reply<()>),
    Release(Slots, Reply<()>),
    Adopt(Orphan, Reply<u64>),
}

impl Change {
    fn weight(&self) -> usize {
        match self {
            // A kilobyte of metadata weighs as much as a bare PIN.
            Self::Submit(pins, _) => pins.iter().map(NewPin::weight).sum(),
            Self::Progress(progress) => 1 + progress.failed.len() + progress.delivered.len(),
            Self::Finish(_) | Self::Order(..) | Self::Brake(_) | Self::Prune(..) | Self::Register(..) => 1,
            Self::Claim(_) | Self::CancelElsewhere(..) | Self::Release(..) | Self::Adopt(..) => 1,
        }
    }
}

/// Where changes are handed in. Cheap to clone; the writer ends when the last one is gone.
#[derive(Clone)]
pub struct Writer {
    changes: mpsc::Sender<Change>,
    newest: watch::Receiver<i64>,
    orders: watch::Receiver<u64>,
    trouble: watch::Receiver<Option<Trouble>>,
}

impl Writer {
    /// A writer and its task. `committed` hears of every commit before anybody who asked for it does.
    pub fn new<M: From<Committed> + Send + 'static>(
        connection: Box<dyn Writes>,
        committed: mpsc::Sender<M>,
        max_in_flight: usize,
    ) -> (Self, WriterTask<M>) {
        let (sender, changes) = mpsc::channel(QUEUE);
        let (newest, newest_seen) = watch::channel(connection.last_seq());
        let (orders, orders_seen) = watch::channel(0);
        let (trouble, trouble_seen) = watch::channel(None);
        let task = WriterTask { connection, changes, committed, newest, orders, max_in_flight, trouble };
        (Self { changes: sender, newest: newest_seen, orders: orders_seen, trouble: trouble_seen }, task)
    }

    /// Takes PINs in; answers, in their order, when that is durable.
    pub async fn submit(&self, pins: Vec<NewPin>) -> Result<Vec<Submitted>, Unavailable> {
        self.ask(|reply| Change::Submit(pins, reply)).await
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

    /// Notes how the brake is, if there is room; else gives it back.
    pub fn try_save_brake(&self, brake: SavedBrake) -> Result<(), SavedBrake> {
        match self.changes.try_reserve() {
            Ok(room) => {
                room.send(Change::Brake(brake));
                Ok(())
            }
            Err(_) => Err(brake),
        }
    }

    /// Waits until [`Writer::try_finish`] may find room.
    pub async fn room(&self) {
        // An error means that the writer is gone, which its owner notices.
        let _ = self.changes.reserve().await;
    }

    /// Notes how far a sink came. Not durable when this returns: what a crash undoes is delivered again.
    pub async fn advance(&self, progress: Progress) {
        // The writer outlives the sinks; and progress that is lost only means one more delivery.
        let _ = self.changes.send(Change::Progress(progress)).await;
    }

    /// Waits until all that was handed in before is durable.
    pub async fn flush(&self) -> Result<(), Unavailable> {
        self.submit(Vec::new()).await.map(|_| ())
    }

    /// Does what somebody asks of a sink's outcomes; gives how many it concerned, when that is durable.
    pub async fn order(&self, order: Order) -> Result<u64, Unavailable> {
        self.ask(|reply| Change::Order(order, reply)).await
    }

    /// Removes some of the outcomes that ended before `before` and that every sink has; gives how many.
    pub async fn prune(&self, before: Steady) -> Result<u64, Unavailable> {
        self.ask(|reply| Change::Prune(before, reply)).await
    }

    /// Makes a cursor for a sink, at the oldest outcome or behind the newest, if it has none; gives its cursor.
    pub async fn register(&self, sink: String, from_oldest: bool) -> Result<i64, Unavailable> {
        self.ask(|reply| Change::Register(sink, from_oldest, reply)).await
    }

    /// Hears of what other nodes left for these slots, soon: [`Committed`] tells what it was. Lost if the writer is
    /// full, so it is asked every now and then.
    pub fn claim(&self, slots: Slots) {
        // Full: it is busy, and asked again; gone: the daemon is stopping.
        let _ = self.changes.try_send(Change::Claim(slots));
    }

    /// Tells the node that polls this PIN to withdraw it. Durable when this returns.
    pub async fn cancel_elsewhere(&self, pin: PinId) -> Result<(), Unavailable> {
        self.ask(|reply| Change::CancelElsewhere(pin, reply)).await
    }

    /// Gives slots back, behind all that was handed in before. Their PINs must be nobody's here any more.
    pub async fn release(&self, slots: Slots) -> Result<(), Unavailable> {
        self.ask(|reply| Change::Release(slots, reply)).await
    }

    /// Takes over some of what a dead node had still to deliver to a sink; gives how many outcomes that was, 0
    /// when nothing is left, or when the node lives.
    pub async fn adopt(&self, orphan: Orphan) -> Result<u64, Unavailable> {
        self.ask(|reply| Change::Adopt(orphan, reply)).await
    }

    async fn ask<T>(&self, change: impl FnOnce(Reply<T>) -> Change) -> Result<T, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.changes.send(change(reply)).await.map_err(|_| Unavailable::stopped())?;
        answer.await.map_err(|_| Unavailable::stopped())?
    }

    /// Changes with every order that was carried out.
    pub fn orders(&self) -> watch::Receiver<u64> {
        self.orders.clone()
    }

    /// How often orders were carried out.
    pub fn ordered(&self) -> u64 {
        *self.orders.borrow()
    }

    /// Why the store can't be written now; `None` if it can.
    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble.borrow().clone()
    }

    /// The newest durable `seq`, and its changes.
    pub fn newest(&self) -> watch::Receiver<i64> {
        self.newest.clone()
    }
}

/// The task behind [`Writer`]. Ends when every `Writer` is gone and all is committed.
pub struct WriterTask<M> {
    connection: Box<dyn Writes>,
    changes: mpsc::Receiver<Change>,
    committed: mpsc::Sender<M>,
    newest: watch::Sender<i64>,
    orders: watch::Sender<u64>,
    max_in_flight: usize,
    trouble: watch::Sender<Option<Trouble>>,
}

/// Who waits for what of the transaction.
#[derive(Default)]
struct Waiting {
    /// For how many of its submits.
    submits: VecDeque<(usize, Reply<Vec<Submitted>>)>,
    orders: VecDeque<Reply<u64>>,
    prunes: VecDeque<Reply<u64>>,
    registers: VecDeque<(String, bool, Reply<i64>)>,
    /// For cancels and releases.
    dones: Vec<Reply<()>>,
    adopts: VecDeque<Reply<u64>>,
}

impl<M: From<Committed> + Send + 'static> WriterTask<M> {
    /// Writes until every [`Writer`] is gone, then closes the file. Gives the number of verdicts that could
    /// not be written; their PINs are still in flight in the file and are polled again after the next start.
    pub async fn run(mut self) -> usize {
        let mut work = Transaction::default();
        let mut waiting = Waiting::default();
        let mut open = true;
        let mut busy = false;
        let mut give_up_at = None;
        while open || !work.is_empty() {
            if open {
                if busy {
                    tokio::time::sleep(GATHER).await;
                }
                open = self.gather(&mut work, &mut waiting).await;
            } else {
                // Only what failed before is left, and nobody else wakes us.
                let give_up_at = *give_up_at.get_or_insert_with(|| Instant::now() + STOP_PATIENCE);
                if Instant::now() >= give_up_at {
                    break;
                }
                if self.trouble.borrow().is_some() {
                    tokio::time::sleep(RETRY).await;
                }
            }
            if let Err(unavailable) = self.connection.in_place().await {
                self.failed(unavailable, &mut work, &mut waiting);
                continue;
            }
            let well = self.trouble.borrow().is_none();
            if work.is_empty() && well {
                // Somebody only wanted to know that all is durable: it is.
                if let Err(unavailable) = self.connection.note_time().await {
                    self.failed(unavailable, &mut work, &mut waiting);
                    continue;
                }
                self.publish(Applied::default(), &mut waiting).await;
                continue;
            }
            // One that is full left more behind than the next can take.
            busy = (BUSY..MAX_BATCH).contains(&work.changes());
            let begun = Instant::now();
            let result = self.connection.apply(&work, self.max_in_flight).await;
            match result {
                Ok(applied) => {
                    metrics::committed(work.changes(), begun);
                    work = Transaction::default();
                    // The schedule hears of the commit in any case, but nobody else does if the file was moved away
                    // meanwhile: the next start would not find it.
                    match self.connection.in_place().await {
                        Ok(()) => self.succeeded(),
                        Err(unavailable) => self.failed(unavailable, &mut work, &mut waiting),
                    }
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

    /// Waits for a change, but only so long, and takes with it all that wait behind it. False when every [`Writer`]
    /// is gone.
    async fn gather(&mut self, work: &mut Transaction, waiting: &mut Waiting) -> bool {
        // While the store fails it is tried even with nothing to write: who waits for it to be well submits nothing.
        let well = self.trouble.borrow().is_none();
        let patience = if work.is_empty() && well { LOOK } else { RETRY };
        let Ok(first) = tokio::time::timeout(patience, self.changes.recv()).await else { return true };
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
            fault_point!("finished-and-nobody-told");
            self.newest.send_replace(last.seq);
            let _ = self.committed.send(Committed::Finished(applied.finished).into()).await;
            fault_point!("finished-and-told");
        }
        if !applied.accepted.is_empty() {
            fault_point!("accepted-and-nobody-told");
            let _ = self.committed.send(Committed::Accepted(applied.accepted).into()).await;
            fault_point!("accepted-and-not-acked");
        }
        self.publish_cluster(applied.cluster, waiting).await;
        metrics::submitted(&applied.submitted);
        let mut submitted = applied.submitted.into_iter();
        // Who hung up learns what happened when it asks again.
        for (count, reply) in waiting.submits.drain(..) {
            let _ = reply.send(Ok(submitted.by_ref().take(count).collect()));
        }
        if !applied.ordered.is_empty() {
            self.orders.send_modify(|orders| *orders += 1);
        }
        for (reply, count) in waiting.orders.drain(..).zip(applied.ordered) {
            let _ = reply.send(Ok(count));
        }
        for reply in waiting.prunes.drain(..) {
            let _ = reply.send(Ok(applied.pruned));
        }
        for (sink, from_oldest, reply) in waiting.registers.drain(..) {
            let cursor = self.connection.register_sink(&sink, from_oldest).await;
            let _ = reply.send(cursor);
        }
    }

    async fn publish_cluster(&mut self, applied: ClusterApplied, waiting: &mut Waiting) {
        let ClusterApplied { cancels, known, gone, adopted } = applied;
        // They are in other parts of the outbox, so `newest` has nothing to do with them.
        for committed in [Committed::Finished(known), Committed::Cancel(cancels), Committed::Gone(gone)] {
            if !committed.is_empty() {
                let _ = self.committed.send(committed.into()).await;
            }
        }
        for reply in waiting.dones.drain(..) {
            let _ = reply.send(Ok(()));
        }
        if adopted.iter().any(|count| *count > 0) {
            self.orders.send_modify(|orders| *orders += 1);
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

    /// Refuses the submits and keeps the rest.
    fn failed(&mut self, unavailable: Unavailable, work: &mut Transaction, waiting: &mut Waiting) {
        metrics::commit_failed();
        self.trouble.send_modify(|trouble| {
            if trouble.is_none() {
                error!(
                    error = %unavailable.0,
                    "the store can't be written: submits are refused, outcomes are kept in memory until it can"
                );
            }
            let since = trouble.take().map_or_else(Instant::now, |trouble| trouble.since);
            *trouble = Some(Trouble { since, what: unavailable.0.clone() });
        });
        work.submits.clear();
        work.orders.clear();
        work.prune = None;
        work.cluster = ClusterWork::default();
        for (_, reply) in waiting.submits.drain(..) {
            let _ = reply.send(Err(unavailable.clone()));
        }
        for reply in waiting.dones.drain(..) {
            let _ = reply.send(Err(unavailable.clone()));
        }
        let counts = waiting.orders.drain(..).chain(waiting.prunes.drain(..)).chain(waiting.adopts.drain(..));
        for reply in counts {
            let _ = reply.send(Err(unavailable.clone()));
        }
        for (_, _, reply) in waiting.registers.drain(..) {
            let _ = reply.send(Err(unavailable.clone()));
        }
    }
}

fn add(change: Change, work: &mut Transaction, waiting: &mut Waiting) {
    match change {
        Change::Submit(pins, reply) => {
            waiting.submits.push_back((pins.len(), reply));
            work.submits.extend(pins);
        }
        Change::Finish(verdict) => work.verdicts.push(verdict),
        Change::Progress(progress) => work.progress.push(progress),
        Change::Order(order, reply) => {
            waiting.orders.push_back(reply);
            work.orders.push(order);
        }
        Change::Brake(brake) => work.brake = Some(brake),
        Change::Prune(before, reply) => {
            waiting.prunes.push_back(reply);
            work.prune = Some(before);
        }
        Change::Claim(slots) => {
            let claim = work.cluster.claim.get_or_insert_default();
            *claim = claim.union(&slots);
        }
        Change::CancelElsewhere(pin, reply) => {
            waiting.dones.push(reply);
            work.cluster.cancels.push(pin);
        }
        Change::Release(slots, reply) => {
            waiting.dones.push(reply);
            work.cluster.release = work.cluster.release.union(&slots);
        }
        Change::Adopt(orphan, reply) => {
            waiting.adopts.push_back(reply);
            work.cluster.adopt.push(orphan);
        }
        Change::Register(sink, from_oldest, reply) => waiting.registers.push_back((sink, from_oldest, reply)),
    }
}
