//! The rules of the schedule, without a runtime: which PIN is polled next, and what an answer leads to.
//!
//! Guarantees one verdict for every PIN it accepts, unless it gives the PIN's slot up, and no poll of a PIN that has
//! one. Never waits or reads a clock of its own: the caller passes the clock, so tests and simulations control the
//! time. Must not know the network or the store.

mod braking;
mod counts;
mod credentials;
pub(super) mod evidence;
mod late;
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

pub use self::counts::Counts;
use self::counts::notice_delay;
use self::credentials::Check;
pub use self::evidence::{Evidence, Others, Refusal, Refusals};
pub use self::learning::Learned;
use self::learning::{channel_of, learner_of, teach};
use self::slots::Held;
use super::ages::{AGE_BANDS, Ages};
use super::brake::Brake;
use super::learn::{Answer, Learner};
use super::queue::{Class, Key, Queue, Waiting};
use super::rate::Rate;
use super::recent::Recent;
use super::table::{Entry, LastAnswer, Stage, Table};
use crate::backoff::Backoff;
use crate::clock::{Clock, Moment};
use crate::config;
use crate::metrics;
use crate::outcome::{self, Deliveries, Delivery, Ending, Verdict};
use crate::pin::{CompactPinId, PinId};
use crate::poll::{Connection, Meaning};
use crate::store::InFlight;

/// The most verdicts that may wait for the store; polling pauses while there are this many.
const MAX_FINISHING: usize = 10_000;

/// The longest interval to the next poll of a PIN past its deadline whose last poll gave no result.
const LAST_POLL_AGAIN: Duration = Duration::from_secs(30);

/// The most distinct answers that PINs share; beyond it, sharing starts again with none.
const MAX_SHARED_ANSWERS: usize = 1024;

/// A poll to send; the caller returns it with the answer.
#[derive(Debug, Clone)]
pub struct Ticket {
    pub pin: PinId,
    key: Key,
    generation: u32,
    epoch: u32,
    probe: bool,
    /// Whether the poll checks if the key is wrong.
    check: bool,
    sent: Moment,
    /// The PIN's age when the poll was sent.
    age: Duration,
    /// How late the poll was sent.
    late: Duration,
    /// The kind of connection that the poll uses.
    pub connection: Connection,
}

impl Ticket {
    /// Returns whether the poll tests the API or the key for all PINs. Such a poll may be sent before its PIN is due.
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
            key: 0,
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

/// The result of a cancel.
#[derive(Debug)]
pub enum Cancelled {
    /// The PIN has its verdict now.
    Now(Verdict),
    /// The PIN already had a verdict, which the store does not have yet.
    Finishing,
    /// The PIN is not in flight.
    Unknown,
}

/// The state of the schedule.
pub struct Core {
    clock: Clock,
    settings: config::Schedule,
    backoff: Backoff,
    /// `None` if `schedule.adapt` is "off".
    learner: Option<Learner>,
    table: Table,
    /// The PINs of the table by age.
    ages: Ages,
    queue: Queue,
    brake: Brake,
    recent: Recent,
    /// A 401 or 403 that is not explained yet.
    check: Option<Check>,
    /// The generation of the last probe's PIN.
    last_probe: Option<u32>,
    /// The generation of the only PIN that the key was refused for, while polling is paused for that.
    refused_alone: Option<u32>,
    /// Since when polls are late.
    late_since: Option<Moment>,
    /// When all polling was last paused because the key was refused or the API was down.
    last_failing: Option<Moment>,
    /// How most PINs are refused.
    refused: Option<braking::RefusedEverywhere>,
    rate: Rate,
    /// The rate in the last saved state.
    saved_rate: Option<f64>,
    held: Held,
    /// Whether the brake or the learned state changed since it was last taken for saving.
    unsaved: bool,
    random: fastrand::Rng,
    generation: u32,
    /// How many times the API or the credentials changed.
    epoch: u32,
    finishing: usize,
    answers: HashSet<Deliveries>,
    troubles: HashSet<Arc<str>>,
    pub counts: Counts,
    /// When a poll without a usable answer was last logged, and how many more occurred since.
    complained: Option<(Moment, u64)>,
}

impl Core {
    /// Makes a schedule without PINs.
    pub fn new(settings: config::Schedule, rate: Option<NonZeroU32>, clock: Clock, seed: u64) -> Self {
        let backoff = backoff_of(&settings);
        Self {
            learner: learner_of(&settings, &backoff),
            backoff,
            rate: Rate::new(rate, clock.now()),
            clock,
            settings,
            table: Table::default(),
            ages: Ages::default(),
            queue: Queue::default(),
            brake: Brake::default(),
            recent: Recent::default(),
            check: None,
            last_probe: None,
            refused_alone: None,
            late_since: None,
            last_failing: None,
            refused: None,
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

    /// Applies a new configuration. A PIN's next interval follows the new one. If the brake is on because of the
    /// credentials, the probe is sent at once, because they may have changed.
    pub fn reconfigure(&mut self, settings: config::Schedule, rate: Option<NonZeroU32>) {
        self.backoff = backoff_of(&settings);
        self.settings = settings;
        self.reconfigure_learner();
        self.rate.configure(rate);
        self.brake.try_now(self.clock.now());
    }

    /// Notes that the API or the credentials changed. Running polls still use the old ones: their deliveries count
    /// for their PIN, and all their other answers are ignored. Whatever paused polling, the next poll is a probe and is
    /// sent now, because the pause was the old account's, as is what is known of its answers.
    pub fn renew(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.brake.renew(self.clock.now());
        self.unsaved |= self.brake.reason().is_some();
        self.check = None;
        self.recent = Recent::default();
        self.last_failing = None;
        self.refused = None;
        for entry in self.table.iter_mut() {
            entry.evidence = None;
            entry.is_failing = false;
        }
    }

    /// Reserves memory for this many more PINs.
    pub fn reserve(&mut self, more: usize) {
        self.table.reserve(more);
    }

    /// Accepts a PIN that was just submitted; its first poll follows after one interval.
    pub fn accept(&mut self, new: &InFlight) {
        let now = self.clock.now();
        let interval = self.interval_at(None, Duration::ZERO);
        let wait = self.backoff.jittered(interval, &mut self.random);
        let entered = self.enter(new, now, now.after(wait), interval, now);
        if let Some(Waiting { class, due, key }) = entered {
            self.queue.insert(key, due, class);
            self.newcomer(due);
        }
    }

    /// Inserts a PIN into the table; returns its entry for the queue.
    fn enter(
        &mut self,
        pin: &InFlight,
        submitted: Moment,
        due: Moment,
        interval: Duration,
        now: Moment,
    ) -> Option<Waiting> {
        if !self.held.has(&pin.pin) {
            // The node that holds the PIN's slot has the PIN, or finds it in the store.
            return None;
        }
        // The deadline counts from the submission as elapsed time, because the wall clock may have jumped since.
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
            evidence: None,
        };
        let key = self.table.insert(entry)?;
        self.ages.add(submitted, now);
        Some(Waiting { class, due, key })
    }

    /// Returns the poll to send now. Otherwise returns when to ask again if nothing else happens before.
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
                self.queue.remove(next.key, next.due, next.class);
                return self.ticket(next.key, now, true).ok_or(None);
            }
            if let Some(until) = self.held_until(now) {
                return Err(Some(until));
            }
        }
        if due > now {
            return Err(Some(due));
        }
        self.rate.take(now).map_err(Some)?;
        let key = match self.brake.reason() {
            None => self.queue.pop(now),
            Some(_) => self.next_probe(now),
        };
        self.ticket(key.ok_or(None)?, now, false).ok_or(None)
    }

    /// Returns the PIN for the next probe: another one than for the last probe, if possible.
    ///
    /// After a probe that got a 429, prefers a PIN whose last answer was readable. Some PINs may get nothing but 429s,
    /// and if they are new, each would be the next probe.
    fn next_probe(&mut self, now: Moment) -> Option<Key> {
        let (table, last) = (&self.table, self.last_probe);
        let other = |key| table.get(key).filter(|entry| Some(entry.generation) != last);
        let is_readable = |key| other(key).is_some_and(Entry::was_readable);
        let readable =
            if self.brake.was_probe_throttled() { self.queue.find_probe(now, is_readable) } else { None };
        let any = || self.queue.find_probe(now, |key| other(key).is_some());
        let key = match readable.or_else(any) {
            Some(Waiting { class, due, key }) => self.queue.remove(key, due, class).then_some(key),
            None => self.queue.pop(now),
        }?;
        self.last_probe = self.table.get(key).map(|entry| entry.generation);
        Some(key)
    }

    /// Makes the poll of a PIN that was taken from the queue.
    fn ticket(&mut self, key: Key, now: Moment, check: bool) -> Option<Ticket> {
        let entry = self.table.get_mut(key)?;
        let late = entry.late(now);
        metrics::poll_sent(late);
        entry.stage = Stage::Polling;
        entry.polls = entry.polls.saturating_add(1);
        // An answer that confirms an ending, or explains another PIN's refusal, must surely belong to this request.
        let is_proof = check || entry.refusals().is_some();
        Some(Ticket {
            pin: entry.pin.expand(),
            key,
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

    /// Processes the answer to a poll; returns the verdict if the answer ends the PIN.
    pub fn answered(&mut self, ticket: Ticket, meaning: Meaning) -> Option<Verdict> {
        let now = self.clock.now();
        self.count(&ticket, &meaning, now);
        let is_of_old = ticket.epoch != self.epoch;
        let own_wait = if is_of_old { None } else { self.learn(&ticket, &meaning, now) };
        let others = self.others();
        let is_braked = self.brake.reason().is_some();
        let settings = &self.settings;

        let entry = self.table.get_mut(ticket.key)?;
        if entry.generation != ticket.generation || entry.stage != Stage::Polling {
            // The PIN was cancelled meanwhile.
            return None;
        }
        let since = entry.open_since();
        let trouble = counts::describe(&meaning).map(|trouble| intern(&mut self.troubles, trouble));
        let before = entry.last_answer.replace(LastAnswer { at: now, trouble });
        // A failure may be the first of many, so one says nothing about its PIN, nor do two while others fail too. Nobody
        // can tell that of a lone PIN, so it is believed, but not right after a pause.
        let has_failed_alone = if others.none {
            before.is_none_or(|last| self.last_failing.is_none_or(|failing| failing < last.at))
        } else {
            before.is_some_and(|last| {
                last.trouble.is_some()
                    && others.were_answered_since(last.at)
                    && self.recent.are_others_readable(ticket.generation, last.at)
            })
        };
        let is_late = ticket.sent >= entry.deadline;
        let is_over = now >= entry.deadline.after(settings.deadline_grace);
        let is_general = is_braked || others.most_are_refused;
        let confirmed = entry.refusals().and_then(|row| row.confirmed(settings));
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
                // An empty answer after another one is no news, and would hide the last status.
                if entry.seen.is_none() || !deliveries.is_empty() {
                    entry.seen = Some(intern(&mut self.answers, deliveries));
                }
                if done { Some(Ending::Final) } else { (is_late || is_over).then_some(Ending::Deadline) }
            }
            // Only deliveries count if the answer comes from the old account or server.
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
            // A problem of the account or of this machine does not end the PIN, whose last poll follows when the
            // problem is over.
            Meaning::NotSent(_) => None,
            Meaning::Throttled(_) => {
                (own_wait.is_some() && is_late && has_failed_alone).then_some(Ending::Deadline)
            }
            Meaning::Unauthorized(_) => {
                let is_own = entry.refusals().is_some_and(Refusals::is_about_the_pin);
                (is_own && is_late).then_some(Ending::Deadline)
            }
            Meaning::NotFound | Meaning::Rejected(_) | Meaning::Unreadable(_) | Meaning::Unavailable(_) => {
                (is_late && has_failed_alone && !is_general).then_some(Ending::Deadline)
            }
        };
        match ending {
            Some(ending) => self.finish(ticket.key, ending, error),
            None => {
                self.put_back(ticket.key, now, own_wait, is_late);
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

    /// Ends a PIN without a poll; the answer of a running poll is ignored.
    fn withdraw(&mut self, pin: &PinId, ending: Ending) -> Option<Verdict> {
        let key = self.table.find(pin)?;
        if let Stage::Waiting { due, class } = self.table.get(key)?.stage {
            self.queue.remove(key, due, class);
        }
        self.finish(key, ending, None)
    }

    /// Removes a PIN whose outcome the store now has.
    pub fn finished(&mut self, pin: &PinId) {
        if let Some((key, entry)) = self.table.remove(pin) {
            self.ages.remove(entry.submitted, self.clock.now());
            match entry.stage {
                Stage::Finishing => self.finishing -= 1,
                Stage::Waiting { due, class } => {
                    self.queue.remove(key, due, class);
                }
                Stage::Polling => {}
            }
        }
    }

    /// Returns the entry of a PIN in flight.
    pub fn entry(&self, pin: &PinId) -> Option<&Entry> {
        self.table.find(pin).and_then(|key| self.table.get(key))
    }

    /// Returns the number of PINs in flight.
    pub fn in_flight(&self) -> usize {
        self.table.len()
    }

    /// Returns the PINs in flight by age, in the order of [`AGE_BANDS`].
    pub fn in_flight_by_age(&mut self) -> [u64; AGE_BANDS.len()] {
        self.ages.by_band(self.clock.now())
    }

    /// Returns the number of verdicts that the store does not have yet.
    pub fn finishing(&self) -> usize {
        self.finishing
    }

    /// Returns the number of PINs that are due now.
    pub fn due(&mut self) -> usize {
        self.queue.due(self.clock.now())
    }

    /// Returns the rate limit in force, in polls per second; `None` if there is no limit.
    pub fn rate(&self) -> Option<f64> {
        self.rate.in_force()
    }

    /// Ends PINs that are past their deadline by more than `schedule.deadline_grace` without a last poll.
    ///
    /// Returns a bounded number of verdicts, so the caller asks again until none are returned. Takes O(n) while the
    /// brake is on or polls are late, and O(1) otherwise; call it rarely.
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

    /// Returns the clock that all moments come from.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    fn finish(&mut self, key: Key, ending: Ending, error: Option<String>) -> Option<Verdict> {
        let entry = self.table.get_mut(key)?;
        entry.stage = Stage::Finishing;
        self.finishing += 1;
        let age = self.clock.now().since(entry.submitted);
        let decider = outcome::deciding(entry.seen.as_deref().unwrap_or_default(), ending);
        let status = metrics::status_index(decider.map(|delivery| &delivery.status));
        self.counts.ended(ending, status, outcome::delivered(decider), age, entry.polls);
        metrics::ended(ending, status, age, entry.polls);
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

    /// Schedules the next poll of a PIN that is not final: after one interval, or at the deadline if that is earlier,
    /// but not before `own_wait`, which the API requested for this PIN alone.
    fn put_back(&mut self, key: Key, now: Moment, own_wait: Option<Duration>, was_last: bool) {
        let Some(entry) = self.table.get(key) else { return };
        let interval = self.interval_at(entry.seen.as_ref(), now.since(entry.submitted));
        let Some(entry) = self.table.get_mut(key) else { return };
        let mut due = now.after(self.backoff.jittered(interval, &mut self.random));
        // The last poll is sent at the deadline, or as soon as possible after it.
        due = if was_last { due.min(now.after(LAST_POLL_AGAIN)) } else { due.min(entry.deadline.max(now)) };
        due = due.max(now.after(own_wait.unwrap_or_default()));
        // At the end of the grace the PIN ends, whatever that poll returns.
        due = due.min(entry.deadline.after(self.settings.deadline_grace).max(now));
        let class = Class::of(interval);
        let class = if entry.is_doubtful() { class.doubtful() } else { class };
        entry.stage = Stage::Waiting { due, class };
        self.queue.insert(key, due, class);
    }
}

fn backoff_of(settings: &config::Schedule) -> Backoff {
    let config::Schedule { initial_interval, multiplier, max_interval, randomization_factor, .. } = *settings;
    Backoff::new(initial_interval, multiplier, max_interval, randomization_factor)
}

/// Returns whether these deliveries end a PIN. Without any delivery nothing is known yet.
fn is_final(deliveries: &[Delivery], completion: config::Completion) -> bool {
    let mut finals = deliveries.iter().map(|delivery| delivery.final_status);
    match completion {
        config::Completion::All => !deliveries.is_empty() && finals.all(|is_final| is_final),
        config::Completion::Any => finals.any(|is_final| is_final),
    }
}

/// Returns the known value equal to `new`, so that equal answers of many PINs share memory.
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
