//! The schedule's rules, without a runtime: what is polled next, and what an answer leads to.
//!
//! Promises one verdict for every PIN that it was given, and no poll of a PIN that has one. Never waits and
//! never looks at a clock: moments are passed in, so that tests and simulations own the time.

mod braking;
mod counts;
mod resume;
mod slots;

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

pub use self::counts::Counts;
use self::slots::Held;
use super::brake::{Brake, Reason};
use super::circuit::Circuit;
use super::queue::{Class, Queue, Waiting};
use super::rate::Rate;
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
    /// Which connection the poll goes out on.
    pub connection: Connection,
}

#[cfg(test)]
impl Ticket {
    pub(super) fn for_test(pin: &str) -> Self {
        let pin = pin.parse().expect("a PIN ID");
        Self { pin, slot: 0, generation: 0, epoch: 0, probe: false, connection: Connection::Kept }
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
    table: Table,
    queue: Queue,
    brake: Brake,
    circuit: Circuit,
    rate: Rate,
    held: Held,
    /// What the store should know of the brake, since it was last asked for.
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
        Self {
            backoff: backoff_of(&settings),
            rate: Rate::new(rate, clock.now()),
            clock,
            settings,
            table: Table::default(),
            queue: Queue::default(),
            brake: Brake::default(),
            circuit: Circuit::default(),
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
        self.rate.configure(rate);
        self.brake.try_now(self.clock.now());
    }

    /// The API or the credentials are others now. Polls under way are of the old ones: a good answer of theirs
    /// counts for its PIN, any other tells nothing. A probe among them keeps the next one waiting no more.
    pub fn renew(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.brake.forget_probe();
    }

    /// Makes room for so many more PINs.
    pub fn reserve(&mut self, more: usize) {
        self.table.reserve(more);
    }

    /// Takes a PIN that was submitted just now: its first poll is one interval away.
    pub fn accept(&mut self, new: &InFlight) {
        let now = self.clock.now();
        let wait = self.backoff.jittered(self.settings.initial_interval, &mut self.random);
        let entered = self.enter(new, now, now.after(wait), self.settings.initial_interval, now);
        if let Some(Waiting { class, due, slot }) = entered {
            self.queue.insert(slot, due, class);
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
            Duration::try_from(pin.deadline_at.duration_since(pin.submitted_at)).unwrap_or_default();
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
        if due > now {
            return Err(Some(due));
        }
        self.rate.take(now).map_err(Some)?;

        let slot = self.queue.pop(now).ok_or(None)?;
        let entry = self.table.get_mut(slot).ok_or(None)?;
        metrics::poll_sent(entry.late(now));
        entry.stage = Stage::Polling;
        entry.polls = entry.polls.saturating_add(1);
        let probe = self.brake.started();
        Ok(Ticket {
            pin: entry.pin.expand(),
            slot,
            generation: entry.generation,
            epoch: self.epoch,
            probe,
            connection: Connection::Kept,
        })
    }

    /// Takes in what a poll told; gives the verdict if that ends the PIN.
    pub fn answered(&mut self, ticket: Ticket, meaning: Meaning) -> Option<Verdict> {
        let now = self.clock.now();
        self.count(&meaning, now);
        let is_of_old = ticket.epoch != self.epoch;
        if !is_of_old {
            self.apply_brake(&ticket, &meaning, now);
        }
        let not_found_grace = self.settings.not_found_grace;
        let deadline_grace = self.settings.deadline_grace;
        let braked = self.brake.reason().is_some();
        let completion = self.settings.completion;

        let entry = self.table.get_mut(ticket.slot)?;
        if entry.generation != ticket.generation || entry.stage != Stage::Polling {
            // It was cancelled meanwhile.
            return None;
        }
        let trouble = counts::describe(&meaning).map(|trouble| share(&mut self.troubles, trouble));
        entry.last_answer = Some(LastAnswer { at: now, trouble });
        let mut error = None;
        let time_is_up = now >= entry.deadline;
        let ending = match meaning {
            Meaning::Deliveries(deliveries) => {
                let done = is_final(&deliveries, completion);
                entry.seen = Some(share(&mut self.answers, deliveries));
                if done { Some(Ending::Final) } else { time_is_up.then_some(Ending::Deadline) }
            }
            // What another account or another server says of it decides nothing.
            _ if is_of_old => None,
            Meaning::Rejected(text) => {
                error = Some(text);
                Some(Ending::Rejected)
            }
            Meaning::NotFound if now.since(entry.submitted) > not_found_grace => Some(Ending::NotFound),
            // The account's trouble, not the PIN's: it gets its last poll when that is over.
            Meaning::Unauthorized(_) | Meaning::Throttled(_) | Meaning::NotSent(_) => None,
            // Missing answers alone decide nothing while nobody gets any, or nobody may ask.
            Meaning::Unavailable(_) if braked && now < entry.deadline.after(deadline_grace) => None,
            Meaning::NotFound | Meaning::Unreadable(_) | Meaning::Unavailable(_) => {
                time_is_up.then_some(Ending::Deadline)
            }
        };
        match ending {
            Some(ending) => self.finish(ticket.slot, ending, error),
            None => {
                self.put_back(ticket.slot, now);
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

    /// Gives up PINs that an outage has kept from their last poll for `schedule.deadline_grace`; some of them,
    /// so that it is to be asked again while it gives any. O(n): for now and then, and nothing to do but in
    /// an outage.
    pub fn expired(&mut self) -> Vec<Verdict> {
        if self.brake.reason() != Some(Reason::Outage) {
            return Vec::new();
        }
        let now = self.clock.now();
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
        self.counts.outcomes[ending as usize] += 1;
        metrics::ended(ending, entry.seen.as_ref(), self.clock.now().since(entry.submitted));
        let pin = entry.pin.expand();
        debug!(pin_id = %pin, outcome = %ending, polls = entry.polls, "a PIN has its outcome");
        Some(Verdict {
            pin,
            ending,
            deliveries: entry.seen.clone(),
            error,
            polls: entry.polls,
            finished_at: self.clock.wall(),
        })
    }

    /// Not final yet: one more interval, or what is left until the deadline.
    fn put_back(&mut self, slot: u32, now: Moment) {
        let Some(entry) = self.table.get_mut(slot) else { return };
        let interval = self.backoff.interval_at(now.since(entry.submitted));
        let mut due = now.after(self.backoff.jittered(interval, &mut self.random));
        if entry.deadline > now {
            due = due.min(entry.deadline);
        }
        let class = Class::of(interval);
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
fn share<T, N>(known: &mut HashSet<Arc<T>>, new: N) -> Arc<T>
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
