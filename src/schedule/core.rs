//! The schedule's rules, without a runtime: what is polled next, and what an answer leads to.
//!
//! Promises one verdict for every PIN that it was given, and no poll of a PIN that has one. Never waits and
//! never looks at a clock: moments are passed in, so that tests and simulations own the time.

mod braking;
mod counts;
mod credentials;
pub(super) mod evidence;
mod learning;
mod resume;
mod slots;

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use self::counts::notice_delay;
pub use self::counts::{AGE_BANDS, Counts};
use self::credentials::Check;
pub use self::evidence::{Doubts, Others, Refusal};
pub use self::learning::Learned;
use self::learning::{channel_of, learner_of, teach};
use self::slots::Held;
use super::brake::Brake;
use super::learn::{Answer, Learner};
use super::queue::{Class, Queue, Waiting};
use super::rate::Rate;
use super::recent::Recent;
use super::table::{Entry, LastAnswer, Stage, Table};
use crate::backoff::Backoff;
use crate::clock::{Clock, Moment};
use crate::config;
use crate::metrics;
use crate::outcome::{Deliveries, Delivery, Ending, Verdict};
use crate::pin::{CompactPinId, PinId};
use crate::poll::{Connection, Meaning};
use crate::store::InFlight;

/// Verdicts that may wait for the store before polling pauses: what is not known durably bounds what is
/// learned.
const MAX_FINISHING: usize = 10_000;

/// A PIN past its deadline whose last poll brought nothing is polled again within this.
const LAST_POLL_AGAIN: Duration = Duration::from_secs(30);

/// Different answers that are kept to be shared between PINs.
const MAX_SHARED_ANSWERS: usize = 1024;

/// A poll that is to be sent; handed back with its answer.
#[derive(Debug, Clone)]
pub struct Ticket {
    pub pin: PinId,
    slot: u32,
    generation: u32,
    epoch: u32,
    probe: bool,
    /// The poll that is to tell whether the key is wrong.
    check: bool,
    sent: Moment,
    /// The PIN's age then.
    age: Duration,
    /// How long after it was due it was sent.
    late: Duration,
    /// Which connection the poll goes out on.
    pub connection: Connection,
}

impl Ticket {
    /// Whether the poll is to tell how things are for all PINs: then it may go out before its PIN is due.
    pub fn is_for_all(&self) -> bool {
        self.probe || self.check
    }
}

#[cfg(test)]
impl Ticket {
    pub(super) fn for_test(pin: &str) -> Self {
        let pin = pin.parse().expect("a PIN ID");
        Self {
            pin,
            slot: 0,
            generation: 0,
            epoch: 0,
            probe: false,
            check: false,
            sent: Moment::START,
            age: Duration::ZERO,
            late: Duration::ZERO,
            connection: Connection::Kept,
        }
    }
}

/// What became of a cancel.
#[derive(Debug)]
pub enum Cancelled {
    /// It has a verdict now.
    Now(Verdict),
    /// It has one already, which the store does not have yet.
    Finishing,
    /// It is not in flight.
    Unknown,
}

/// The state of the schedule.
pub struct Core {
    clock: Clock,
    settings: config::Schedule,
    backoff: Backoff,
    /// Unless `schedule.adapt` is "off".
    learner: Option<Learner>,
    table: Table,
    queue: Queue,
    brake: Brake,
    recent: Recent,
    /// A 401 or 403 that is not explained yet.
    check: Option<Check>,
    /// The last probe's PIN, by its generation.
    last_probe: Option<u32>,
    /// Since when most PINs are refused, and how.
    refused_since: Option<(Moment, Refusal)>,
    rate: Rate,
    /// The rate that the store knows.
    saved_rate: Option<f64>,
    held: Held,
    /// Whether the store should know of the brake or of what was learned, since it was last asked for.
    unsaved: bool,
    random: fastrand::Rng,
    generation: u32,
    /// How often the API or the credentials became others.
    epoch: u32,
    finishing: usize,
    answers: HashSet<Deliveries>,
    troubles: HashSet<Arc<str>>,
    pub counts: Counts,
    /// When the log was last told of a poll without a usable answer, and how many there were since.
    complained: Option<(Moment, u64)>,
}

impl Core {
    /// A schedule without PINs.
    pub fn new(settings: config::Schedule, rate: Option<NonZeroU32>, clock: Clock, seed: u64) -> Self {
        let backoff = backoff_of(&settings);
        Self {
            learner: learner_of(&settings, &backoff),
            backoff,
            rate: Rate::new(rate, clock.now()),
            clock,
            settings,
            table: Table::default(),
            queue: Queue::default(),
            brake: Brake::default(),
            recent: Recent::default(),
            check: None,
            last_probe: None,
            refused_since: None,
            saved_rate: None,
            held: Held::default(),
            unsaved: false,
            random: fastrand::Rng::with_seed(seed),
            generation: 0,
            epoch: 0,
            finishing: 0,
            answers: HashSet::new(),
            troubles: HashSet::new(),
            counts: Counts::default(),
            complained: None,
        }
    }

    /// Goes on with another configuration. A PIN's next interval is by the new one. The credentials may be
    /// others too, so if the brake is on, the probe goes out at once.
    pub fn reconfigure(&mut self, settings: config::Schedule, rate: Option<NonZeroU32>) {
        self.backoff = backoff_of(&settings);
        self.settings = settings;
        self.reconfigure_learner();
        self.rate.configure(rate);
        self.brake.try_now(self.clock.now());
    }

    /// The API or the credentials are others now. Polls under way are of the old ones: a good answer of theirs
    /// counts for its PIN, any other tells nothing. A probe among them keeps the next one waiting no more.
    pub fn renew(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.brake.forget_probe();
        self.check = None;
        self.table.iter_mut().for_each(|entry| entry.doubts = None);
    }

    /// Makes room for so many more PINs.
    pub fn reserve(&mut self, more: usize) {
        self.table.reserve(more);
    }

    /// Takes a PIN that was submitted just now: its first poll is one interval away.
    pub fn accept(&mut self, new: &InFlight) {
        let now = self.clock.now();
        let interval = self.interval_at(None, Duration::ZERO);
        let wait = self.backoff.jittered(interval, &mut self.random);
        let entered = self.enter(new, now, now.after(wait), interval, now);
        if let Some(Waiting { class, due, slot }) = entered {
            self.queue.insert(slot, due, class);
            self.brake.newcomer(due);
        }
    }

    /// Puts a PIN into the table; gives how it is to be put into the queue.
    fn enter(
        &mut self,
        pin: &InFlight,
        submitted: Moment,
        due: Moment,
        interval: Duration,
        now: Moment,
    ) -> Option<Waiting> {
        if !self.held.has(&pin.pin) {
            // Whoever holds its slot has it, or finds it in the store.
            return None;
        }
        // A deadline is a time to live: the wall clock may have jumped since it was worked out.
        let lifetime =
            Duration::try_from(pin.deadline_at.duration_since(pin.submitted_at.wall)).unwrap_or_default();
        let deadline = submitted.after(lifetime);
        let (due, class) = (due.min(deadline.max(now)), Class::of(interval));
        self.generation = self.generation.wrapping_add(1);
        let entry = Entry {
            pin: CompactPinId::from(&pin.pin),
            submitted,
            deadline,
            stage: Stage::Waiting { due, class },
            polls: 0,
            generation: self.generation,
            seen: None,
            last_answer: None,
            is_resumed: false,
            is_failing: false,
            doubts: None,
        };
        let slot = self.table.insert(entry)?;
        Some(Waiting { class, due, slot })
    }

    /// The poll to send now; else when to ask again, should nothing else happen until then.
    pub fn next_poll(&mut self) -> Result<Ticket, Option<Moment>> {
        let now = self.clock.now();
        let due = self.queue.next_due().ok_or(None)?;
        if self.finishing >= MAX_FINISHING || !self.held.admits(now) {
            return Err(None);
        }
        if !self.brake.admits(now) {
            return Err(self.brake.opens_at().map(|opens_at| opens_at.max(due)));
        }
        if self.brake.reason().is_none() && self.check.is_some() {
            if let Some(next) = self.find_check(now) {
                self.rate.take(now).map_err(Some)?;
                self.check_starts();
                self.queue.remove(next.slot, next.due, next.class);
                return self.ticket(next.slot, now, true).ok_or(None);
            }
            if let Some(until) = self.held_until(now) {
                return Err(Some(until));
            }
        }
        if due > now {
            return Err(Some(due));
        }
        self.rate.take(now).map_err(Some)?;
        let slot = match self.brake.reason() {
            None => self.queue.pop(now),
            Some(_) => self.next_probe(now),
        };
        self.ticket(slot.ok_or(None)?, now, false).ok_or(None)
    }

    /// The PIN of the next probe: not that of the last one, if there is another.
    fn next_probe(&mut self, now: Moment) -> Option<u32> {
        let (table, last) = (&self.table, self.last_probe);
        let is_other = |slot| table.get(slot).is_some_and(|entry| Some(entry.generation) != last);
        let slot = match self.queue.find_probe(now, is_other) {
            Some(Waiting { class, due, slot }) => self.queue.remove(slot, due, class).then_some(slot),
            None => self.queue.pop(now),
        }?;
        self.last_probe = self.table.get(slot).map(|entry| entry.generation);
        Some(slot)
    }

    /// The poll of a PIN that was taken from the queue.
    fn ticket(&mut self, slot: u32, now: Moment, check: bool) -> Option<Ticket> {
        let entry = self.table.get_mut(slot)?;
        let late = entry.late(now);
        metrics::poll_sent(late);
        entry.stage = Stage::Polling;
        entry.polls = entry.polls.saturating_add(1);
        // What confirms an ending, or explains another PIN's refusal, must be an answer to just this request.
        let is_proof = check || entry.refusals().is_some();
        Some(Ticket {
            pin: entry.pin.expand(),
            slot,
            generation: entry.generation,
            epoch: self.epoch,
            probe: self.brake.started(),
            check,
            sent: now,
            age: now.since(entry.submitted),
            late,
            connection: if is_proof { Connection::New } else { Connection::Kept },
        })
    }

    /// Takes in what a poll told; gives the verdict if that ends the PIN.
    pub fn answered(&mut self, ticket: Ticket, meaning: Meaning) -> Option<Verdict> {
        let now = self.clock.now();
        self.count(&ticket, &meaning, now);
        let is_of_old = ticket.epoch != self.epoch;
        let own_wait = if is_of_old { None } else { self.learn(&ticket, &meaning, now) };
        let others = self.others();
        let is_braked = self.brake.reason().is_some();
        let is_unreadable_everywhere = self.recent.is_unreadable_everywhere();
        let settings = &self.settings;

        let entry = self.table.get_mut(ticket.slot)?;
        if entry.generation != ticket.generation || entry.stage != Stage::Polling {
            // It was cancelled meanwhile.
            return None;
        }
        let since = entry.open_since();
        let trouble = counts::describe(&meaning).map(|trouble| intern(&mut self.troubles, trouble));
        entry.last_answer = Some(LastAnswer { at: now, trouble });
        let is_late = ticket.sent >= entry.deadline;
        let is_over = now >= entry.deadline.after(settings.deadline_grace);
        let is_general = is_braked || others.most_are_refused || is_unreadable_everywhere;
        let confirmed = entry.refusals().and_then(|row| row.confirmed(&others, settings));
        let mut error = None;
        let ending = match meaning {
            Meaning::Deliveries(deliveries) => {
                let done = is_final(&deliveries, settings.completion);
                if let Some(since) = since {
                    let age = now.since(entry.submitted);
                    if done {
                        self.counts.noticed(notice_delay(since, age));
                    }
                    if let Some(learner) = &mut self.learner {
                        let channel = channel_of(entry.seen.as_deref().unwrap_or(&deliveries));
                        self.unsaved |= teach(
                            learner,
                            &Answer { channel, since, age, late: ticket.late, is_final: done },
                        );
                    }
                }
                entry.seen = Some(intern(&mut self.answers, deliveries));
                if done { Some(Ending::Final) } else { (is_late || is_over).then_some(Ending::Deadline) }
            }
            // What another account or another server says of it decides nothing.
            _ if is_of_old => None,
            Meaning::Rejected(text) if confirmed.is_some() => {
                error = Some(text);
                confirmed
            }
            Meaning::Unauthorized(status) if confirmed.is_some() => {
                error = Some(format!("{status}: the API refuses this PIN, and answers for others"));
                confirmed
            }
            Meaning::NotFound if confirmed.is_some() => confirmed,
            _ if is_over => Some(Ending::Deadline),
            // The account's trouble, or this machine's, is not the PIN's: it gets its last poll when that is over.
            Meaning::NotSent(_) => None,
            Meaning::Throttled(_) => (own_wait.is_some() && is_late).then_some(Ending::Deadline),
            Meaning::Unauthorized(_) => {
                let is_own = entry.refusals().is_some_and(|row| row.is_about_the_pin(&others));
                (is_own && is_late).then_some(Ending::Deadline)
            }
            Meaning::NotFound | Meaning::Rejected(_) | Meaning::Unreadable(_) | Meaning::Unavailable(_) => {
                (is_late && !is_general).then_some(Ending::Deadline)
            }
        };
        match ending {
            Some(ending) => self.finish(ticket.slot, ending, error),
            None => {
                self.put_back(ticket.slot, now, own_wait, is_late);
                None
            }
        }
    }

    /// Withdraws a PIN.
    pub fn cancel(&mut self, pin: &PinId) -> Cancelled {
        match self.entry(pin).map(|entry| entry.stage) {
            None => Cancelled::Unknown,
            Some(Stage::Finishing) => Cancelled::Finishing,
            Some(_) => self.withdraw(pin, Ending::Cancelled).map_or(Cancelled::Unknown, Cancelled::Now),
        }
    }

    /// Ends a PIN without a poll. The answer of one that is under way is not heard.
    fn withdraw(&mut self, pin: &PinId, ending: Ending) -> Option<Verdict> {
        let slot = self.table.find(pin)?;
        if let Stage::Waiting { due, class } = self.table.get(slot)?.stage {
            self.queue.remove(slot, due, class);
        }
        self.finish(slot, ending, None)
    }

    /// The store has this PIN's outcome: it is no longer in flight.
    pub fn finished(&mut self, pin: &PinId) {
        if let Some((slot, entry)) = self.table.remove(pin) {
            match entry.stage {
                Stage::Finishing => self.finishing -= 1,
                Stage::Waiting { due, class } => {
                    self.queue.remove(slot, due, class);
                }
                Stage::Polling => {}
            }
        }
    }

    /// What is known of a PIN in flight.
    pub fn entry(&self, pin: &PinId) -> Option<&Entry> {
        self.table.find(pin).and_then(|slot| self.table.get(slot))
    }

    /// PINs in flight.
    pub fn in_flight(&self) -> usize {
        self.table.len()
    }

    /// Verdicts that the store does not have yet.
    pub fn finishing(&self) -> usize {
        self.finishing
    }

    /// PINs that are due now.
    pub fn due(&mut self) -> usize {
        self.queue.due(self.clock.now())
    }

    /// The rate in force, in polls a second; `None` is no limit.
    pub fn rate(&self) -> Option<f64> {
        self.rate.in_force()
    }

    /// Ends PINs that are past their deadline by more than `schedule.deadline_grace`, whatever kept them from their
    /// last poll; some of them, so that it is to be asked again while it gives any. O(n): for now and then, and nothing
    /// to do while polls go out in time.
    pub fn expired(&mut self) -> Vec<Verdict> {
        let now = self.clock.now();
        let is_behind = self.queue.next_due().is_some_and(|due| due < now);
        if !is_behind && self.brake.reason().is_none() {
            return Vec::new();
        }
        let grace = self.settings.deadline_grace;
        let room = MAX_FINISHING.saturating_sub(self.finishing);
        let over = |entry: &Entry| entry.stage != Stage::Finishing && now >= entry.deadline.after(grace);
        let pins: Vec<PinId> =
            self.table.iter().filter(|e| over(e)).take(room).map(|e| e.pin.expand()).collect();
        pins.iter().filter_map(|pin| self.withdraw(pin, Ending::Deadline)).collect()
    }

    /// The clock that the moments are of.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    fn finish(&mut self, slot: u32, ending: Ending, error: Option<String>) -> Option<Verdict> {
        let entry = self.table.get_mut(slot)?;
        entry.stage = Stage::Finishing;
        self.finishing += 1;
        let age = self.clock.now().since(entry.submitted);
        self.counts.ended(ending, age, entry.polls);
        metrics::ended(ending, entry.seen.as_ref(), age, entry.polls);
        let pin = entry.pin.expand();
        debug!(pin_id = %pin, outcome = %ending, polls = entry.polls, "a PIN has its outcome");
        Some(Verdict {
            pin,
            ending,
            deliveries: entry.seen.clone(),
            error,
            polls: entry.polls,
            finished_at: self.clock.date(),
        })
    }

    /// Not final yet: one more interval, or what is left until the deadline; not before `own_wait`, which the API asked
    /// for this PIN alone.
    fn put_back(&mut self, slot: u32, now: Moment, own_wait: Option<Duration>, was_last: bool) {
        let Some(entry) = self.table.get(slot) else { return };
        let interval = self.interval_at(entry.seen.as_ref(), now.since(entry.submitted));
        let Some(entry) = self.table.get_mut(slot) else { return };
        let mut due = now.after(self.backoff.jittered(interval, &mut self.random));
        // Its last poll is sent at its deadline, or as soon as can be after it.
        due = if was_last { due.min(now.after(LAST_POLL_AGAIN)) } else { due.min(entry.deadline.max(now)) };
        due = due.max(now.after(own_wait.unwrap_or_default()));
        // Then it ends, whatever that poll brings.
        due = due.min(entry.deadline.after(self.settings.deadline_grace).max(now));
        let class = Class::of(interval);
        let class = if entry.is_doubtful() { class.doubtful() } else { class };
        entry.stage = Stage::Waiting { due, class };
        self.queue.insert(slot, due, class);
    }
}

fn backoff_of(settings: &config::Schedule) -> Backoff {
    let config::Schedule { initial_interval, multiplier, max_interval, randomization_factor, .. } = *settings;
    Backoff::new(initial_interval, multiplier, max_interval, randomization_factor)
}

/// Whether these deliveries end a PIN. No delivery at all: nothing is known yet.
fn is_final(deliveries: &[Delivery], completion: config::Completion) -> bool {
    let mut finals = deliveries.iter().map(|delivery| delivery.final_status);
    match completion {
        config::Completion::All => !deliveries.is_empty() && finals.all(|is_final| is_final),
        config::Completion::Any => finals.any(|is_final| is_final),
    }
}

/// Most PINs get one of a few answers, so those are kept once.
fn intern<T, N>(known: &mut HashSet<Arc<T>>, new: N) -> Arc<T>
where
    T: ?Sized + Eq + Hash,
    N: Borrow<T> + Into<Arc<T>>,
{
    if let Some(known) = known.get(new.borrow()) {
        return known.clone();
    }
    if known.len() >= MAX_SHARED_ANSWERS {
        known.clear();
    }
    let shared: Arc<T> = new.into();
    known.insert(shared.clone());
    shared
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
