//! The schedule's rules, without a runtime: what is polled next, and what an answer leads to.
//!
//! Promises one verdict for every PIN that it was given, and no poll of a PIN that has one. Never waits and
//! never looks at a clock: moments are passed in, so that tests and simulations own the time.

mod slots;

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info, warn};

use self::slots::Held;
use super::brake::{Brake, Change, Reason, Sign};
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
use crate::poll::{self, Meaning};
use crate::store::{InFlight, SavedBrake};

/// Verdicts that may wait for the store before polling pauses: what is not known durably bounds what is
/// learned.
const MAX_FINISHING: usize = 10_000;

/// The log hears of polls without a usable answer at most this often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

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
}

#[cfg(test)]
impl Ticket {
    pub(super) fn for_test(pin: &str) -> Self {
        let pin = pin.parse().expect("a PIN ID");
        Self { pin, slot: 0, generation: 0, epoch: 0, probe: false }
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

/// Counts since the start.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    pub polls: u64,
    pub understood: u64,
    pub unreadable: u64,
    pub rejected: u64,
    pub unauthorized: u64,
    pub not_found: u64,
    pub throttled: u64,
    pub unavailable: u64,
    pub outcomes: [u64; Ending::ALL.len()],
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
        let entered = self.enter(new, now, now.after(wait), self.settings.initial_interval);
        if let Some(Waiting { class, due, slot }) = entered {
            self.queue.insert(slot, due, class);
        }
    }

    /// Takes a PIN that was in flight before the start. Its age tells its interval, and its next poll is
    /// anywhere within that, so that a start is no storm.
    pub fn resume(&mut self, old: &InFlight) {
        if let Some(Waiting { class, due, slot }) = self.enter_old(old) {
            self.queue.insert(slot, due, class);
        }
    }

    /// The same for all of them at the start, who come one by one.
    pub fn resume_all(&mut self) -> ResumeAll<'_> {
        ResumeAll { core: self, waiting: Vec::new() }
    }

    fn enter_old(&mut self, old: &InFlight) -> Option<Waiting> {
        let now = self.clock.now();
        let submitted = self.clock.moment_of_past(old.submitted_at);
        let interval = self.backoff.interval_at(now.since(submitted));
        let due = now.after(interval.mul_f64(self.random.f64()));
        self.enter(old, submitted, due, interval)
    }

    /// Puts a PIN into the table; gives how it is to be put into the queue.
    fn enter(
        &mut self,
        pin: &InFlight,
        submitted: Moment,
        due: Moment,
        interval: Duration,
    ) -> Option<Waiting> {
        if !self.held.has(&pin.pin) {
            // Whoever holds its slot has it, or finds it in the store.
            return None;
        }
        // A deadline is a time to live: the wall clock may have jumped since it was worked out.
        let lifetime =
            Duration::try_from(pin.deadline_at.duration_since(pin.submitted_at)).unwrap_or_default();
        let deadline = submitted.after(lifetime);
        let (due, class) = (due.min(deadline.max(self.clock.now())), Class::of(interval));
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
        Ok(Ticket { pin: entry.pin.expand(), slot, generation: entry.generation, epoch: self.epoch, probe })
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
        let completion = self.settings.completion;

        let entry = self.table.get_mut(ticket.slot)?;
        if entry.generation != ticket.generation || entry.stage != Stage::Polling {
            // It was cancelled meanwhile.
            return None;
        }
        let trouble = describe(&meaning).map(|trouble| share(&mut self.troubles, trouble));
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
            Meaning::Unauthorized(_) | Meaning::Throttled(_) => None,
            // A missing answer alone decides nothing: the last poll is tried again, for so long.
            Meaning::Unavailable(_) if now < entry.deadline.after(deadline_grace) => None,
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

    /// Why all polling stands still, and until when.
    pub fn brake(&self) -> Option<(Reason, Option<Moment>)> {
        self.brake.reason().map(|reason| (reason, self.brake.until()))
    }

    /// The rate in force, in polls a second; `None` is no limit.
    pub fn rate(&self) -> Option<f64> {
        self.rate.in_force()
    }

    /// What the next start should know of the brake and the rate, if that has changed since this was asked.
    pub fn take_unsaved(&mut self) -> Option<SavedBrake> {
        std::mem::take(&mut self.unsaved).then(|| SavedBrake {
            reason: self.brake.reason().map(|reason| reason.as_str().to_owned()),
            until: self.brake.until().map(|until| self.clock.wall_of(until)),
            rate: self.rate.learned(),
        })
    }

    /// Puts brake and rate as they were before the start. A brake's time that is further away than any can be
    /// is the work of a clock that went back.
    pub fn restore(&mut self, saved: &SavedBrake) {
        let now = self.clock.now();
        if let Some(reason) = Reason::ALL.into_iter().find(|r| Some(r.as_str()) == saved.reason.as_deref()) {
            let ahead = saved.until.map(|until| until.duration_since(self.clock.wall()));
            let ahead = ahead.and_then(|ahead| Duration::try_from(ahead).ok()).unwrap_or_default();
            info!(reason = reason.as_str(), "all polling waited before the start: it goes on by a probe");
            self.brake.restore(reason, now.after(ahead.min(poll::LONGEST)));
        }
        if let Some(rate) = saved.rate {
            self.rate.restore(rate);
        }
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

    fn apply_brake(&mut self, ticket: &Ticket, meaning: &Meaning, now: Moment) {
        let outage = self.circuit.record(now, !matches!(meaning, Meaning::Unavailable(_)));
        let sign = match meaning {
            Meaning::Unauthorized(_) => Sign::Trouble(Reason::Unauthorized, None),
            Meaning::Throttled(wait) => Sign::Trouble(Reason::Throttled, Some(*wait)),
            Meaning::Unavailable(_) if outage || ticket.probe => Sign::Trouble(Reason::Outage, None),
            // One poll without an answer, between others that had one, says nothing about all.
            Meaning::Unavailable(_) => return,
            _ => Sign::Fine,
        };
        let change = self.brake.hear(now, sign, ticket.probe);
        let halve = match change {
            Change::Nothing => return,
            Change::Longer(_) => ticket.probe,
            Change::On(reason) => {
                match reason {
                    Reason::Unauthorized => warn!(
                        "the API refuses the credentials: all polling waits, one probe at a time; no PIN is \
                         given up. Check the key ([api] key or key_file)"
                    ),
                    Reason::Throttled => warn!("the API answers 429: all polling waits, then goes on slower"),
                    Reason::Outage => warn!("most polls get no answer: only probes go out until one does"),
                }
                true
            }
            Change::Off(reason) => {
                info!(reason = reason.as_str(), "a probe was answered: polling goes on");
                self.circuit.forget();
                self.rate.ramp_up(now);
                false
            }
        };
        // A burst of 429s is one; a probe that meets another is one more.
        if halve && matches!(meaning, Meaning::Throttled(_)) {
            self.rate.halve(now, ticket.probe);
        }
        self.unsaved = true;
    }

    fn count(&mut self, meaning: &Meaning, now: Moment) {
        let counts = &mut self.counts;
        counts.polls += 1;
        let class = match meaning {
            Meaning::Deliveries(_) => &mut counts.understood,
            Meaning::Unreadable(_) => &mut counts.unreadable,
            Meaning::Rejected(_) => &mut counts.rejected,
            Meaning::Unauthorized(_) => &mut counts.unauthorized,
            Meaning::NotFound => &mut counts.not_found,
            Meaning::Throttled(_) => &mut counts.throttled,
            Meaning::Unavailable(_) => &mut counts.unavailable,
        };
        *class += 1;
        let (Meaning::Unavailable(what) | Meaning::Unreadable(what)) = meaning else { return };
        // Once a burst: neither an outage nor a few bad polls among many good ones may fill the log.
        if self.complained.is_some_and(|(at, _)| now.since(at) < COMPLAIN_EVERY) {
            self.complained = self.complained.map(|(at, more)| (at, more + 1));
            return;
        }
        let (_, more) = self.complained.replace((now, 0)).unwrap_or((now, 0));
        warn!(answer = %what, more, "a poll got no usable answer, after so many more like it; its PIN is polled again");
    }
}

/// See [`Core::resume_all`].
pub struct ResumeAll<'a> {
    core: &'a mut Core,
    /// The queue is made of all of them at once, which is quicker and smaller.
    waiting: Vec<Waiting>,
}

impl ResumeAll<'_> {
    /// Takes one.
    pub fn resume(&mut self, old: &InFlight) {
        self.waiting.extend(self.core.enter_old(old));
    }

    /// There are no more.
    pub fn done(self) {
        self.core.queue.fill(self.waiting);
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

/// The answer in a few words; `None` where the deliveries tell it.
fn describe(meaning: &Meaning) -> Option<String> {
    match meaning {
        Meaning::Deliveries(_) => None,
        Meaning::Unreadable(what) => Some(format!("not understood: {what}")),
        Meaning::Rejected(text) => Some(format!("rejected: {text}")),
        Meaning::Unauthorized(status) => Some(format!("{status}: the credentials are refused")),
        Meaning::NotFound => Some("404 not found".into()),
        Meaning::Throttled(wait) => Some(format!("429: wait {} s", wait.as_secs_f64())),
        Meaning::Unavailable(what) => Some(what.clone()),
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
