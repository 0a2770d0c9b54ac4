//! The task that keeps this node's lease and its slots.
//!
//! Every third of the lease, and whenever it is hinted that something changed: renews, looks who is there, takes
//! and gives as [`plan`] says, loads what it took, adopts what dead nodes left. One step at a time; between the
//! pages of a long load it renews too.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::registry::{Registered, Registry, Renewed, Report, View};
use super::{NodeId, Plan, plan};
use crate::schedule::{Schedule, Stopping};
use crate::slot::Slots;
use crate::store::Unavailable;

/// How often it is looked, without a hint, what other nodes left for this one.
const CLAIM_EVERY: Duration = Duration::from_secs(1);

/// How long after another node's lease should have ended it is looked whether it has.
const AFTER_LEASE: Duration = Duration::from_millis(20);

/// How long after it got less than was free it is looked again: another node was just taking its own part, or a
/// transaction of the dead one is still open.
const TAKE_AGAIN: Duration = Duration::from_millis(100);

/// No two looks are closer than this, whatever is hinted.
const LOOKS_APART: Duration = Duration::from_millis(50);

/// Why a lease is lost, where nothing else is known.
const NOT_RENEWED: &str = "it was not renewed in time";

/// Woken by what the database notifies; only to be faster than the next look.
#[derive(Debug, Clone, Default)]
pub struct Hints {
    /// Slots were given away, or a node came or went.
    pub slots: Arc<Notify>,
    /// Something was left for this node.
    pub inbox: Arc<Notify>,
}

/// How this node stands.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub id: NodeId,
    pub held: Slots,
    /// Nodes whose lease runs, this one among them.
    pub nodes: usize,
    /// Whether its first slots are loaded.
    pub ready: bool,
    /// How often it was without its lease.
    pub lost: u64,
    /// Why it is without its lease, and since when.
    pub trouble: Option<(Instant, Arc<str>)>,
}

/// The task. See the module.
pub struct Task<R> {
    pub registry: R,
    pub schedule: Schedule,
    pub lease: Duration,
    pub hints: Hints,
    pub state: watch::Sender<State>,
    /// From then on no slots are taken or given: the daemon stops.
    pub stop: CancellationToken,
    /// Everything is written: the lease is needed no more.
    pub finish: CancellationToken,
}

/// Why a round ended early.
enum Broken {
    Store(Unavailable),
    /// Another process has this node's name.
    Fenced,
    /// The schedule has ended.
    Stopping,
}

impl From<Unavailable> for Broken {
    fn from(unavailable: Unavailable) -> Self {
        Self::Store(unavailable)
    }
}

impl From<Stopping> for Broken {
    fn from(_: Stopping) -> Self {
        Self::Stopping
    }
}

impl<R: Registry> Task<R> {
    /// Keeps the lease of a node that was registered as `id` until `finish`; `registered` is when that was asked.
    pub async fn run(self, id: NodeId, registered: Instant) {
        let finish = self.finish.clone();
        let (lease_until, ends) = watch::channel(registered + self.lease);
        let state = self.state.clone();
        let mut member = Member {
            task: self,
            id: Some(id),
            held: Slots::NONE,
            loaded: Slots::NONE,
            lease_until,
            told_until: registered,
            next_beat: registered,
            server: None,
            report: Report::default(),
        };
        member.task.state.send_modify(|state| state.id = id);
        let both = async { tokio::join!(member.run(), note_ends(ends, &state)) };
        finish.run_until_cancelled(both).await;
    }
}

/// Tells that the lease is over as soon as it is, whatever the member waits for.
async fn note_ends(mut ends: watch::Receiver<Instant>, state: &watch::Sender<State>) {
    loop {
        let end = *ends.borrow_and_update();
        let renewed = tokio::select! {
            biased;
            renewed = ends.changed() => renewed,
            () = sleep_until(end) => {
                lost(state, NOT_RENEWED.into());
                ends.changed().await
            }
        };
        if renewed.is_err() {
            return;
        }
    }
}

/// Tells that the lease is lost, and why.
fn lost(state: &watch::Sender<State>, what: Arc<str>) {
    state.send_if_modified(|state| {
        let news = state.trouble.is_none();
        if news {
            error!(reason = %what, "this node lost its lease: it polls and writes nothing until it has one again");
            state.lost += 1;
        }
        let since = state.trouble.take().map_or_else(Instant::now, |(since, _)| since);
        state.trouble = Some((since, what));
        news
    });
}

/// The node while it runs.
struct Member<R> {
    task: Task<R>,
    /// `None`: its name was taken by another process, and it is to register anew.
    id: Option<NodeId>,
    /// What the schedule holds.
    held: Slots,
    /// Of those, what is all in the schedule.
    loaded: Slots,
    lease_until: watch::Sender<Instant>,
    /// Until when the schedule was told that it runs.
    told_until: Instant,
    next_beat: Instant,
    /// What [`Registry::server`] told when the slots were loaded.
    server: Option<i64>,
    report: Report,
}

impl<R: Registry> Member<R> {
    async fn run(&mut self) {
        let mut next_claim = Instant::now();
        loop {
            let begun = Instant::now();
            let next_look = match self.round().await {
                Ok(next) => {
                    next_claim = begun;
                    next.max(begun + LOOKS_APART)
                }
                Err(broken) => {
                    self.note(broken);
                    begun + (self.task.lease / 10).clamp(LOOKS_APART, CLAIM_EVERY)
                }
            };
            self.judge_lease();
            loop {
                let Hints { slots, inbox } = &self.task.hints;
                tokio::select! {
                    // The look first: nothing may keep the lease from being renewed.
                    biased;
                    () = sleep_until(next_look) => break,
                    () = slots.notified() => {
                        sleep_until(begun + LOOKS_APART).await;
                        break;
                    }
                    () = inbox.notified() => {}
                    () = sleep_until(next_claim) => {}
                }
                next_claim = Instant::now() + CLAIM_EVERY;
                // Of what is loaded alone: a cancel of a PIN that is not would find nothing to withdraw, and be lost.
                if !self.loaded.is_empty() {
                    self.task.registry.claim(&self.loaded);
                }
            }
        }
    }

    /// One look and what follows from it; gives when to look again.
    async fn round(&mut self) -> Result<Instant, Broken> {
        let id = self.beat().await?;
        if self.task.stop.is_cancelled() {
            return Ok(self.next_beat);
        }
        let view = self.task.registry.look().await?;
        let server = self.task.registry.server();
        if self.server != server {
            // By a standby that lacks the last commits, PINs are in flight whose end the schedule was told: all are
            // read again. Those that it has it does not take twice.
            self.loaded = Slots::NONE;
            self.server = server;
        }
        self.reconcile(id, &view).await?;
        // Only now, if the lease was over meanwhile: what had been this node's may be another's.
        self.tell_lease().await?;
        let nodes = view.live();
        let got_all = self.balance(plan(id, &nodes, &view.holders)).await?;
        for orphan in self.task.registry.orphans().await? {
            let mut adopted = 0;
            loop {
                self.beat_if_due().await?;
                match self.task.registry.adopt(&orphan).await? {
                    0 => break,
                    some => adopted += some,
                }
            }
            if adopted > 0 {
                info!(outcomes = adopted, sink = orphan.sink, "delivers what a dead node had not");
            }
        }
        let held = self.held;
        self.task.state.send_modify(|state| {
            state.held = held;
            state.nodes = nodes.len();
            if !state.ready {
                info!(slots = held.len(), nodes = nodes.len(), "this node has its part of the PINs");
            }
            state.ready = true;
        });
        let ends = view.nodes.iter().filter_map(|node| node.lease_left).min();
        let ends = ends.map(|left| Instant::now() + left + AFTER_LEASE);
        let again = (!got_all).then(|| Instant::now() + TAKE_AGAIN);
        Ok([ends, again].into_iter().flatten().fold(self.next_beat, Instant::min))
    }

    /// Renews the lease; registers anew if another process had this node's name meanwhile.
    async fn beat(&mut self) -> Result<NodeId, Broken> {
        self.note_numbers().await;
        let sent = Instant::now();
        let id = match self.id {
            Some(id) => match self.task.registry.renew(&self.report).await? {
                Renewed::Runs => id,
                Renewed::Fenced => {
                    self.id = None;
                    self.drop_slots(Slots::ALL).await?;
                    return Err(Broken::Fenced);
                }
            },
            None => match self.task.registry.register().await? {
                Registered::As(id) => *self.id.insert(id),
                Registered::Taken(_) => return Err(Broken::Fenced),
            },
        };
        self.next_beat = sent + self.task.lease / 3;
        // Renewed before it can have ended: nobody can have taken anything meanwhile.
        let unbroken = Instant::now() < *self.lease_until.borrow();
        self.lease_until.send_replace(sent + self.task.lease);
        if !unbroken {
            lost(&self.task.state, NOT_RENEWED.into());
        } else if self.told_until > sent {
            // A schedule that has ended polls nothing; what it left to write still needs the lease.
            let _ = self.tell_lease().await;
        }
        Ok(id)
    }

    async fn beat_if_due(&mut self) -> Result<(), Broken> {
        if Instant::now() >= self.next_beat {
            self.beat().await?;
        }
        Ok(())
    }

    /// What the next renewal tells of this node; the last numbers stay where the schedule has ended.
    async fn note_numbers(&mut self) {
        let Ok(stats) = self.task.schedule.stats().await else { return };
        self.report = Report {
            in_flight: stats.in_flight,
            due: stats.due,
            rate: stats.rate,
            brake: stats.brake.map(|(reason, _)| reason.as_str().to_owned()),
        };
    }

    async fn tell_lease(&mut self) -> Result<(), Broken> {
        let until = *self.lease_until.borrow();
        self.task.schedule.lease_until(until).await?;
        self.told_until = until;
        Ok(())
    }

    /// What the database says is what counts: the schedule is made to hold that, and loads what it lacks.
    async fn reconcile(&mut self, id: NodeId, view: &View) -> Result<(), Broken> {
        let mine = view.slots_of(id);
        let lost = self.held.without(&mine);
        if !lost.is_empty() {
            warn!(slots = lost.len(), "other nodes took slots of this one while its lease was over");
            self.drop_slots(lost).await?;
        }
        self.load(mine.without(&self.loaded)).await
    }

    /// Takes and gives; whether it got all that it was to take.
    async fn balance(&mut self, Plan { take, give }: Plan) -> Result<bool, Broken> {
        let mut got_all = true;
        if !take.is_empty() {
            let taken = self.task.registry.take(&take).await?;
            got_all = taken.len() == take.len();
            self.load(taken).await?;
            if !taken.is_empty() {
                info!(slots = taken.len(), "took slots: their PINs are polled here now");
            }
        }
        if !give.is_empty() {
            // A cancel that is claimed must find its PIN still here.
            self.task.registry.settle().await?;
            self.drop_slots(give).await?;
            self.task.registry.give(&give).await?;
            info!(slots = give.len(), "gave slots to the other nodes");
        }
        Ok(got_all)
    }

    /// Nothing of these is polled here any more.
    async fn drop_slots(&mut self, slots: Slots) -> Result<(), Broken> {
        self.held = self.held.without(&slots);
        self.loaded = self.loaded.without(&slots);
        Ok(self.task.schedule.release(slots).await?)
    }

    /// Holds these slots, and hands the schedule their PINs. The order counts: a PIN that comes in while they are
    /// read is told by the writer, and the schedule must know by then that it is its own.
    async fn load(&mut self, slots: Slots) -> Result<(), Broken> {
        if slots.is_empty() {
            return Ok(());
        }
        self.held = self.held.union(&slots);
        self.task.schedule.hold(slots).await?;
        let mut after = None;
        loop {
            let page = self.task.registry.page(&slots, after.as_ref()).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.pin.clone());
            self.task.schedule.resume(page).await?;
            self.beat_if_due().await?;
        }
        self.loaded = self.loaded.union(&slots);
        Ok(())
    }

    fn note(&self, broken: Broken) {
        let what: Arc<str> = match broken {
            Broken::Store(unavailable) => unavailable.0,
            Broken::Fenced => {
                "another process has registered this node's name (cluster.node): give each its own".into()
            }
            // The daemon notices by itself.
            Broken::Stopping => return,
        };
        // One that works again before the lease is over is nobody's concern.
        if Instant::now() >= *self.lease_until.borrow() || self.id.is_none() {
            lost(&self.task.state, what);
        }
    }

    /// Whether the lease runs, after a round.
    fn judge_lease(&self) {
        if self.id.is_some() && self.told_until > Instant::now() {
            let found = |state: &mut State| state.trouble.take().is_some();
            if self.task.state.send_if_modified(found) {
                info!("this node has a lease again, and goes on");
            }
        }
    }
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
