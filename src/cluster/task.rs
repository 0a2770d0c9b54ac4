//! The task that keeps this node's lease and its slots.
//!
//! Every third of the lease, and whenever another node hints at a change, it renews the lease, looks at all nodes, takes and
//! gives slots as [`plan`](mod@plan) says, loads the PINs of new slots, and adopts what dead nodes left behind. It works one step
//! at a time, and renews the lease between the pages of a long load. Promises that the schedule never believes in a lease for
//! longer than the database does. Does not know SQL.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{NodeId, NodeReport, Plan, Registration, Registry, Renewal, View, plan};
use crate::schedule::{Schedule, Stopping};
use crate::slot::Slots;
use crate::store::Unavailable;
use crate::trouble::Trouble;

/// How often this node fetches, without a hint, what other nodes left for it.
const CLAIM_EVERY: Duration = Duration::from_secs(1);

/// How long after the end of another node's lease this node looks again.
const AFTER_LEASE: Duration = Duration::from_millis(20);

/// How soon this node tries again when it got fewer slots than were free: another node was just taking its own share, or
/// a transaction of the dead node is still open.
const TAKE_AGAIN: Duration = Duration::from_millis(100);

/// The least time between two rounds, however many hints come.
const ROUNDS_APART: Duration = Duration::from_millis(50);

/// Why a lease is lost, if no better reason is known.
const NOT_RENEWED: &str = "it was not renewed in time";

/// Wake-ups from database notifications. They only save waiting for the next round.
#[derive(Debug, Clone, Default)]
pub struct Hints {
    /// A node gave slots away, joined or left.
    pub slots: Arc<Notify>,
    /// Another node left something for this one.
    pub inbox: Arc<Notify>,
}

/// This node's lease and slots, as others may see them.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub id: NodeId,
    pub held: Slots,
    /// The number of nodes whose lease runs, including this one.
    pub nodes: usize,
    /// Whether the PINs of its first slots are loaded.
    pub ready: bool,
    /// How many times it lost its lease.
    pub lost: u64,
    /// Since when it has no lease, and why.
    pub trouble: Option<Trouble>,
}

/// The task. See the module.
pub struct Task<R> {
    pub registry: R,
    pub schedule: Schedule,
    pub lease: Duration,
    pub hints: Hints,
    pub state: watch::Sender<State>,
    /// Cancelled when the daemon stops: the node takes and gives no more slots.
    pub stop: CancellationToken,
    /// Cancelled when everything is written: the lease may end.
    pub finish: CancellationToken,
}

/// Why a round ended early.
enum Broken {
    Store(Unavailable),
    /// Another process registered this node's name.
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
    /// Keeps the lease of the node `id` until `finish`. `registered` is when its registration was requested.
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
            scheduled_until: registered,
            next_renewal: registered,
            server: None,
            report: NodeReport::default(),
        };
        member.task.state.send_modify(|state| state.id = id);
        let both = async { tokio::join!(member.run(), watch_lease(ends, &state)) };
        finish.run_until_cancelled(both).await;
    }
}

/// Reports the end of the lease at once, whatever the member is waiting for.
async fn watch_lease(mut ends: watch::Receiver<Instant>, state: &watch::Sender<State>) {
    loop {
        let end = *ends.borrow_and_update();
        let renewed = tokio::select! {
            biased;
            renewed = ends.changed() => renewed,
            () = sleep_until(end) => {
                report_loss(state, NOT_RENEWED);
                ends.changed().await
            }
        };
        if renewed.is_err() {
            return;
        }
    }
}

/// Reports that the lease is lost, and why.
fn report_loss(state: &watch::Sender<State>, what: &str) {
    state.send_if_modified(|state| {
        let is_new = state.trouble.is_none();
        if is_new {
            error!(reason = %what, "this node lost its lease: it polls and writes nothing until it has one again");
            state.lost += 1;
        }
        Trouble::note(&mut state.trouble, Some(what));
        is_new
    });
}

/// The running node.
struct Member<R> {
    task: Task<R>,
    /// `None` once another process took its name: it must register again.
    id: Option<NodeId>,
    /// The slots that the schedule holds.
    held: Slots,
    /// Those of them whose PINs are all in the schedule.
    loaded: Slots,
    lease_until: watch::Sender<Instant>,
    /// The end of the lease as the schedule knows it.
    scheduled_until: Instant,
    next_renewal: Instant,
    /// What [`Registry::server`] returned when the slots were loaded.
    server: Option<i64>,
    report: NodeReport,
}

impl<R: Registry> Member<R> {
    async fn run(&mut self) {
        let mut next_claim = Instant::now();
        loop {
            let begun = Instant::now();
            let next_round = match self.round().await {
                Ok(next) => {
                    next_claim = begun;
                    next.max(begun + ROUNDS_APART)
                }
                Err(broken) => {
                    self.report_failure(broken);
                    begun + (self.task.lease / 10).clamp(ROUNDS_APART, CLAIM_EVERY)
                }
            };
            self.report_recovery();
            loop {
                let Hints { slots, inbox } = &self.task.hints;
                tokio::select! {
                    // The round comes first: nothing may delay the renewal of the lease.
                    biased;
                    () = sleep_until(next_round) => break,
                    () = slots.notified() => {
                        sleep_until(begun + ROUNDS_APART).await;
                        break;
                    }
                    () = inbox.notified() => {}
                    () = sleep_until(next_claim) => {}
                }
                next_claim = Instant::now() + CLAIM_EVERY;
                // Only for loaded slots: a cancel for a PIN that is not loaded would find nothing to withdraw, and be lost.
                if !self.loaded.is_empty() {
                    self.task.registry.claim(&self.loaded);
                }
            }
        }
    }

    /// Looks at all nodes and acts on it; returns when to look again.
    async fn round(&mut self) -> Result<Instant, Broken> {
        let id = self.renew().await?;
        if self.task.stop.is_cancelled() {
            return Ok(self.next_renewal);
        }
        let view = self.task.registry.look().await?;
        let server = self.task.registry.server();
        if self.server != server {
            // A standby that lacks the last commits still has PINs in flight that this schedule has finished. All PINs
            // are read again; the schedule ignores those that it already has.
            self.loaded = Slots::NONE;
            self.server = server;
        }
        self.reconcile(id, &view).await?;
        // Not before: if the lease had ended meanwhile, another node may hold slots that were this node's.
        self.extend_schedule().await?;
        let nodes = view.live();
        let got_all = self.balance(plan(id, &nodes, &view.holders())).await?;
        for orphan in self.task.registry.orphans().await? {
            let mut adopted = 0;
            loop {
                self.renew_if_due().await?;
                match self.task.registry.adopt(&orphan).await? {
                    0 => break,
                    some => adopted += some,
                }
            }
            if adopted > 0 {
                info!(
                    outcomes = adopted,
                    sink = orphan.sink,
                    "this node delivers outcomes that a dead node left"
                );
            }
        }
        let held = self.held;
        self.task.state.send_modify(|state| {
            state.held = held;
            state.nodes = nodes.len();
            if !state.ready {
                info!(slots = held.len(), nodes = nodes.len(), "this node has loaded its share of the PINs");
            }
            state.ready = true;
        });
        let ends = view.nodes.iter().filter_map(|node| node.lease_left).min();
        let ends = ends.map(|left| Instant::now() + left + AFTER_LEASE);
        let again = (!got_all).then(|| Instant::now() + TAKE_AGAIN);
        Ok([ends, again].into_iter().flatten().fold(self.next_renewal, Instant::min))
    }

    /// Renews the lease, or registers again if another process took this node's name meanwhile.
    async fn renew(&mut self) -> Result<NodeId, Broken> {
        self.refresh_report().await;
        let sent = Instant::now();
        let id = match self.id {
            Some(id) => match self.task.registry.renew(&self.report).await? {
                Renewal::Runs => id,
                Renewal::Fenced => {
                    self.id = None;
                    self.drop_slots(Slots::ALL).await?;
                    return Err(Broken::Fenced);
                }
            },
            None => match self.task.registry.register().await? {
                Registration::As(id) => *self.id.insert(id),
                Registration::Taken(_) => return Err(Broken::Fenced),
            },
        };
        self.next_renewal = sent + self.task.lease / 3;
        // If it was renewed before it can have ended, nobody can have taken anything meanwhile.
        let unbroken = Instant::now() < *self.lease_until.borrow();
        self.lease_until.send_replace(sent + self.task.lease);
        if !unbroken {
            report_loss(&self.task.state, NOT_RENEWED);
        } else if self.scheduled_until > sent {
            // A schedule that has ended polls nothing, but its last outcomes still need the lease to be written.
            let _ = self.extend_schedule().await;
        }
        Ok(id)
    }

    async fn renew_if_due(&mut self) -> Result<(), Broken> {
        if Instant::now() >= self.next_renewal {
            self.renew().await?;
        }
        Ok(())
    }

    /// Refreshes what the next renewal reports. Keeps the last numbers if the schedule has ended.
    async fn refresh_report(&mut self) {
        let Ok(stats) = self.task.schedule.stats().await else { return };
        self.report = NodeReport {
            in_flight: stats.in_flight,
            due: stats.due,
            rate: stats.rate,
            brake: stats.brake.map(|(reason, _)| reason.as_str().to_owned()),
        };
    }

    /// Lets the schedule poll until the end of the lease.
    async fn extend_schedule(&mut self) -> Result<(), Broken> {
        let until = *self.lease_until.borrow();
        self.task.schedule.lease_until(until).await?;
        self.scheduled_until = until;
        Ok(())
    }

    /// Makes the schedule hold exactly the slots that the database says are this node's, and loads what it lacks.
    async fn reconcile(&mut self, id: NodeId, view: &View) -> Result<(), Broken> {
        let mine = view.slots_of(id);
        let lost = self.held.without(&mine);
        if !lost.is_empty() {
            warn!(slots = lost.len(), "other nodes took slots of this one while its lease was over");
            self.drop_slots(lost).await?;
        }
        self.load(mine.without(&self.loaded)).await
    }

    /// Takes and gives slots as planned; returns whether it got all that it tried to take.
    async fn balance(&mut self, Plan { take, give }: Plan) -> Result<bool, Broken> {
        let mut got_all = true;
        if !take.is_empty() {
            let taken = self.task.registry.take(&take).await?;
            got_all = taken.len() == take.len();
            self.load(taken).await?;
            if !taken.is_empty() {
                info!(slots = taken.len(), "this node took slots and polls their PINs");
            }
        }
        if !give.is_empty() {
            // A claimed cancel must still find its PIN here.
            self.task.registry.settle().await?;
            self.drop_slots(give).await?;
            self.task.registry.give(&give).await?;
            info!(slots = give.len(), "this node gave slots to other nodes");
        }
        Ok(got_all)
    }

    /// Makes the schedule forget these slots and their PINs.
    async fn drop_slots(&mut self, slots: Slots) -> Result<(), Broken> {
        self.held = self.held.without(&slots);
        self.loaded = self.loaded.without(&slots);
        Ok(self.task.schedule.release(slots).await?)
    }

    /// Makes the schedule hold these slots, then loads their PINs. The order matters: the writer hands over PINs that are
    /// submitted while the pages are read, and the schedule takes only PINs of slots that it holds.
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
            self.renew_if_due().await?;
        }
        self.loaded = self.loaded.union(&slots);
        Ok(())
    }

    /// Reports why a round ended early, if the lease is lost.
    fn report_failure(&self, broken: Broken) {
        let what: Arc<str> = match broken {
            Broken::Store(unavailable) => unavailable.0,
            Broken::Fenced => {
                "another process has registered this node's name (cluster.node): give each its own".into()
            }
            // The daemon notices this by itself.
            Broken::Stopping => return,
        };
        // A failure that ends before the lease does needs no report.
        if Instant::now() >= *self.lease_until.borrow() || self.id.is_none() {
            report_loss(&self.task.state, &what);
        }
    }

    /// Reports after a round that the lease runs again.
    fn report_recovery(&self) {
        if self.id.is_some() && self.scheduled_until > Instant::now() {
            let had_trouble = |state: &mut State| state.trouble.take().is_some();
            if self.task.state.send_if_modified(had_trouble) {
                info!("this node has a lease again and continues");
            }
        }
    }
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
