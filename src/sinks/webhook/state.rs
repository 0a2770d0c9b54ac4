//! The rules of delivery, without a runtime: what is sent next, and what follows from its answer.
//!
//! Promises that every outcome is delivered, is waiting to be, or is a dead letter; that only an outcome that was tried alone
//! becomes one, by [`Rules::max_age`] or because the receiver refused it twice and accepted another one meanwhile; that one bad
//! outcome holds back no other; and that an endpoint that is down, or refuses everything, is probed and costs no outcome that it had
//! not seen before anything: the cursor stays. What is in memory is bounded by [`MAX_WINDOW`] and [`MAX_RETRYING`], whatever the
//! backlog is.
//!
//! Moments, rows and answers come in, parcels and [`Progress`] go out. Must not know HTTP or the store.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::batch_size::BatchSize;
use super::gate::{Admits, Gate, Miss};
use super::ledger::Ledger;
use super::parcel::{Now, Parcel, fitting, regroup};
use super::response::{Answer, Wait};
use crate::backoff::Backoff;
use crate::clock::{Moment, Steady};
use crate::poll::Connection;
use crate::store::{Failed, Outcome, Progress};

/// Outcomes that failed and wait for another try, about; beyond that no new ones are tried.
pub const MAX_RETRYING: usize = 1000;

/// Outcomes that are read and not settled.
const MAX_WINDOW: usize = 4096;
const MIN_WINDOW: usize = 256;

/// Between one try of an outcome and the next; doubles.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// With jitter, five minutes.
const MAX_RETRY: Duration = Duration::from_secs(250);

/// A batch that failed so often while the endpoint took others is halved: one outcome in it may be why.
const SPLIT_AFTER: u32 = 3;

/// What the operator decides.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub concurrency: usize,
    pub batch: usize,
    pub max_age: Duration,
}

/// A delivery that runs.
pub type Ticket = u64;

struct Running {
    parcel: Parcel,
    probe: bool,
    /// A new one that may only show whether the endpoint accepts it: if it does not, that costs it nothing.
    scout: bool,
    started: Now,
}

pub struct State {
    rules: Rules,
    gate: Gate,
    size: BatchSize,
    ledger: Ledger,
    retries: Backoff,
    random: fastrand::Rng,
    /// Read, and not tried yet.
    fresh: VecDeque<Outcome>,
    /// Tried while the endpoint was down, or parted, and not noted: tried anew without a wait.
    again: VecDeque<Parcel>,
    /// Noted as failed, by when they are due.
    waiting: BTreeMap<(Moment, i64), Parcel>,
    /// The outcomes of those that wait, and of those of them that run.
    noted: HashSet<i64>,
    running: HashMap<Ticket, Running>,
    last_ticket: Ticket,
    /// The store may have more failed outcomes, after this one.
    more_failed_after: Option<i64>,
    /// Whose turn it is when both could go: one that failed before, or a new one.
    retry_next: bool,
}

impl State {
    /// Nothing read yet: the outcomes after `cursor` are to come, and the failed ones before it.
    pub fn new(sink: String, rules: Rules, cursor: i64, seed: u64) -> Self {
        Self {
            rules,
            gate: Gate::new(),
            size: BatchSize::new(rules.batch),
            ledger: Ledger::new(sink, cursor),
            retries: Backoff::new(FIRST_RETRY, 2.0, MAX_RETRY, 0.2),
            random: fastrand::Rng::with_seed(seed),
            fresh: VecDeque::new(),
            again: VecDeque::new(),
            waiting: BTreeMap::new(),
            noted: HashSet::new(),
            running: HashMap::new(),
            last_ticket: 0,
            more_failed_after: Some(0),
            retry_next: true,
        }
    }

    pub fn cursor(&self) -> i64 {
        self.ledger.cursor()
    }

    /// Whether the endpoint takes nothing now, and is probed.
    pub fn is_shut(&self) -> bool {
        self.gate.is_shut()
    }

    /// Why nothing is delivered, if that is so.
    pub fn trouble(&self) -> Option<&str> {
        self.gate.trouble()
    }

    /// What the store is to be told, if anything; it is told once.
    pub fn step(&mut self) -> Option<Progress> {
        self.ledger.step()
    }

    /// After which `seq` outcomes are wanted, and how many at most.
    pub fn wants_outcomes(&self) -> Option<(i64, u32)> {
        let Rules { concurrency, batch, .. } = self.rules;
        let window = match self.gate.is_refusing() {
            // Some that the endpoint accepts may come after many that it refuses for a reason.
            true => MAX_WINDOW,
            false => concurrency.saturating_mul(batch).saturating_mul(4).clamp(MIN_WINDOW, MAX_WINDOW),
        };
        let room = window.saturating_sub(self.ledger.unsettled());
        // Not one by one: a read costs more than what it reads.
        let worth_it = room >= window / 4;
        worth_it.then(|| (self.ledger.read_to(), u32::try_from(room).unwrap_or(u32::MAX)))
    }

    /// The outcomes that were wanted; there are no others up to `all_to`.
    pub fn take_outcomes(&mut self, outcomes: Vec<Outcome>, all_to: i64) {
        self.ledger.read(&outcomes, all_to);
        self.fresh.extend(outcomes);
    }

    /// After which `seq` failed outcomes are wanted, and how many at most. They are to be read when all steps
    /// are durable.
    pub fn wants_failed(&self) -> Option<(i64, u32)> {
        let room = MAX_RETRYING.saturating_sub(self.noted.len());
        // Not one by one, as above.
        let after = self.more_failed_after.filter(|_| room >= MAX_RETRYING / 4)?;
        Some((after, u32::try_from(room).unwrap_or(u32::MAX)))
    }

    /// The failed outcomes that were wanted, at most `limit`; `past` tells when something was.
    pub fn take_failed(
        &mut self,
        mut rows: Vec<(Failed, Outcome)>,
        limit: u32,
        now: Now,
        past: impl Fn(Steady) -> Moment,
    ) {
        let full = u32::try_from(rows.len()).is_ok_and(|count| count >= limit);
        self.more_failed_after = rows.last().filter(|_| full).map(|(_, outcome)| outcome.seq);
        rows.retain(|(_, outcome)| self.noted.insert(outcome.seq));
        for parcel in regroup(rows, self.rules.batch, past) {
            let due = match parcel.last_try {
                Some(last) => self.due_after(&parcel, last.moment, Duration::ZERO),
                None => now.moment,
            };
            self.waiting.insert((due, parcel.key()), parcel);
        }
    }

    /// Somebody ordered something of the failed outcomes: what the store has of them counts, and is wanted.
    pub fn forget_failed(&mut self) {
        let cursor = self.ledger.cursor();
        let noted = &mut self.noted;
        self.waiting.retain(|_, parcel| {
            let unwritten = parcel.key() > cursor;
            if !unwritten {
                parcel.seqs().for_each(|seq| _ = noted.remove(&seq));
            }
            unwritten
        });
        self.more_failed_after = Some(0);
    }

    /// The next delivery to start, if one may start now. Its end is to be told by [`State::ended`].
    pub fn next(&mut self, now: Now) -> Option<(Ticket, Arc<[Outcome]>, Connection)> {
        if self.gate.is_shut() {
            self.expire(now);
        }
        if self.running.len() >= self.rules.concurrency {
            return None;
        }
        let probe = match self.gate.admits(now.moment) {
            Admits::Everything => false,
            Admits::Probe => true,
            Admits::Nothing => return None,
        };
        let scout = probe || self.noted.len() >= MAX_RETRYING;
        let parcel = if probe { self.next_probe()? } else { self.next_parcel(now)? };
        if probe {
            self.gate.probe_started();
        }
        self.last_ticket += 1;
        let outcomes = parcel.outcomes.clone();
        // A refusal is confirmed by another connection: a server that is wrong may be at the other end of the first.
        let connection = if parcel.refused_in.is_some() { Connection::New } else { Connection::Kept };
        self.running.insert(self.last_ticket, Running { parcel, probe, scout, started: now });
        Some((self.last_ticket, outcomes, connection))
    }

    /// One that is due, or a new one, by turns. Those that failed before have half of the deliveries at most:
    /// they may be the ones that hang. When too many failed, new ones only go between them, to show whether the endpoint accepts others.
    fn next_parcel(&mut self, now: Now) -> Option<Parcel> {
        let retry = self.due().is_some_and(|due| due <= now.moment) && self.may_retry();
        let full = self.noted.len() >= MAX_RETRYING;
        let new = (!full || retry) && !(self.again.is_empty() && self.fresh.is_empty());
        if retry && (self.retry_next || !new) {
            self.retry_next = false;
            return self.take_waiting();
        }
        self.retry_next = true;
        if !new {
            return None;
        }
        match full || self.gate.is_row_long() {
            true => self.take_scout(),
            false => self.take_again().or_else(|| self.take_fresh()),
        }
    }

    /// New ones and those that failed before, by turns, and each time another one: it may be the outcome that
    /// the receiver can't take.
    fn next_probe(&mut self) -> Option<Parcel> {
        self.retry_next = !self.retry_next;
        let (retry_first, new_first) = (!self.retry_next, self.retry_next);
        let retry = if retry_first { self.take_waiting() } else { None };
        retry.or_else(|| self.take_scout()).or_else(|| if new_first { self.take_waiting() } else { None })
    }

    /// The last of the new ones, since bad ones tend to come together.
    fn take_scout(&mut self) -> Option<Parcel> {
        self.take_last_fresh().or_else(|| self.take_again())
    }

    fn take_waiting(&mut self) -> Option<Parcel> {
        let ((due, _), parcel) = self.waiting.pop_first()?;
        let (parcel, rest) = parcel.split(self.size.get());
        if let Some(rest) = rest {
            self.waiting.insert((due, rest.key()), rest);
        }
        Some(parcel)
    }

    fn take_again(&mut self) -> Option<Parcel> {
        let (parcel, rest) = self.again.pop_front()?.split(self.size.get());
        if let Some(rest) = rest {
            self.again.push_front(rest);
        }
        Some(parcel)
    }

    fn take_fresh(&mut self) -> Option<Parcel> {
        let sizes = self.fresh.iter().map(|outcome| outcome.record.len());
        let count = fitting(sizes, self.size.get());
        (count > 0).then(|| Parcel::untried(self.fresh.drain(..count).collect()))
    }

    fn take_last_fresh(&mut self) -> Option<Parcel> {
        let sizes = self.fresh.iter().rev().map(|outcome| outcome.record.len());
        let rest = self.fresh.len() - fitting(sizes, self.size.get());
        (rest < self.fresh.len()).then(|| Parcel::untried(self.fresh.drain(rest..).collect()))
    }

    fn may_retry(&self) -> bool {
        let retrying = self.running.values().filter(|running| running.parcel.noted).count();
        retrying < self.rules.concurrency.div_ceil(2)
    }

    fn due(&self) -> Option<Moment> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }

    /// When [`State::next`] may have something without anything else happening.
    pub fn wake_at(&self) -> Option<Moment> {
        let end = || self.waiting.values().filter_map(|parcel| parcel.ends_at(self.rules.max_age)).min();
        let room = self.running.len() < self.rules.concurrency;
        if !self.gate.is_shut() {
            return self.due().filter(|_| room && self.may_retry());
        }
        let anything = !(self.waiting.is_empty() && self.again.is_empty() && self.fresh.is_empty());
        let probe = self.gate.probe_at().filter(|_| room && anything);
        probe.into_iter().chain(end()).min()
    }

    /// What became of a delivery.
    pub fn ended(&mut self, ticket: Ticket, answer: Answer, now: Now) {
        let Some(Running { mut parcel, probe, scout, started }) = self.running.remove(&ticket) else {
            return;
        };
        let count = parcel.outcomes.len();
        let refused = matches!(answer, Answer::Refused(_));
        let processed = !matches!(answer, Answer::Unprocessed(_));
        let (failure, wait) = match answer {
            Answer::Delivered => return self.delivered(&parcel, probe, now),
            Answer::Unsendable(error) => return self.unsendable(parcel, probe, started, error, now),
            Answer::Refused(failure) | Answer::Unprocessed(failure) => (failure, Wait::Unsaid),
            Answer::Later { failure, wait } => (failure, wait),
        };
        let hold = if let Wait::Everything(hold) = wait { Some(hold) } else { None };
        let was_shut = self.gate.is_shut();
        let counts = processed && !was_shut;
        // Who asks for time does not complain of the number.
        if processed && hold.is_none() {
            self.size.failed(count, was_shut, now.moment);
        }
        if refused && count > 1 && !was_shut {
            // One of them may be why, or their number. Each alone shows whether it is the endpoint.
            return self.part(&parcel, count.div_ceil(2), now);
        }
        if refused && count == 1 && !was_shut {
            let row = *parcel.refused_in.get_or_insert(self.gate.row_number());
            if self.gate.was_short(row) {
                // Refused again, and others were accepted in between: it concerns this outcome only.
                parcel.count(started, failure.text, counts);
                return self.bury(&parcel);
            }
            parcel.refused_in = Some(self.gate.row_number());
        }
        let miss = Miss { outcome: parcel.key(), refused, hold, error: &failure.summary };
        self.gate.missed(miss, probe, now.moment, &mut self.random);
        if (was_shut || scout) && !parcel.noted {
            // It may be the endpoint's fault and not the outcomes': as if it had not been.
            return self.again.push_back(parcel);
        }
        parcel.count(started, failure.text, counts);
        self.retry(parcel, wait, counts, now);
    }

    fn delivered(&mut self, parcel: &Parcel, probe: bool, now: Now) {
        self.gate.accepted(probe);
        self.size.accepted(parcel.outcomes.len(), now.moment);
        for seq in parcel.seqs() {
            self.noted.remove(&seq);
            self.ledger.delivered(seq);
        }
    }

    /// An outcome of which no request can be made is a dead letter at once: that is not the endpoint's doing.
    fn unsendable(&mut self, mut parcel: Parcel, probe: bool, started: Now, error: String, now: Now) {
        if probe {
            self.gate.probe_was_not_sent();
        }
        match parcel.outcomes.len() {
            1 => {
                parcel.count(started, error, true);
                self.bury(&parcel);
            }
            count => self.part(&parcel, count.div_ceil(2), now),
        }
    }

    /// Notes a parcel as failed, and has it tried again unless its time is up and it was tried alone. If an outcome may be why
    /// (`by_outcome`), a parcel of several is parted when it failed often, and when its time is up.
    fn retry(&mut self, mut parcel: Parcel, wait: Wait, by_outcome: bool, now: Now) {
        let over = |end: Option<Moment>| end.is_some_and(|end| end <= now.moment);
        if over(parcel.ends_at(self.rules.max_age)) {
            return self.bury(&parcel);
        }
        parcel.noted = true;
        let wait = match wait {
            Wait::Unsaid => Duration::ZERO,
            Wait::ThisOne(wait) | Wait::Everything(wait) => wait,
        };
        let due = self.due_after(&parcel, now.moment, wait);
        self.noted.extend(parcel.seqs());
        parcel.fates(false).for_each(|fate| self.ledger.failed(fate));
        let size = match by_outcome {
            true if over(parcel.expiry(self.rules.max_age)) => 1,
            true if parcel.tries >= SPLIT_AFTER => parcel.outcomes.len().div_ceil(2),
            _ => parcel.outcomes.len(),
        };
        for part in parcel.parts(size) {
            self.waiting.insert((due, part.key()), part);
        }
    }

    /// Has the parts of a parcel tried next.
    fn part(&mut self, parcel: &Parcel, size: usize, now: Now) {
        for part in parcel.parts(size).into_iter().rev() {
            match part.noted {
                true => _ = self.waiting.insert((now.moment, part.key()), part),
                false => self.again.push_front(part),
            }
        }
    }

    /// Makes a dead letter of an outcome that was tried alone.
    fn bury(&mut self, parcel: &Parcel) {
        parcel.seqs().for_each(|seq| _ = self.noted.remove(&seq));
        parcel.fates(true).for_each(|fate| self.ledger.failed(fate));
    }

    /// Gives up those that were tried alone and whose time is up while the endpoint is down: a last try would tell nothing new.
    fn expire(&mut self, now: Now) {
        let max_age = self.rules.max_age;
        let ended = |parcel: &Parcel| parcel.ends_at(max_age).is_some_and(|end| end <= now.moment);
        let ended: Vec<_> = self.waiting.extract_if(.., |_, parcel| ended(parcel)).collect();
        ended.iter().for_each(|(_, parcel)| self.bury(parcel));
    }

    /// When it is tried again after a failure: by backoff, not before `least`, and one last time when its time
    /// is up.
    fn due_after(&mut self, parcel: &Parcel, failure: Moment, least: Duration) -> Moment {
        let interval = self.retries.nth(parcel.tries.saturating_sub(1));
        let interval = self.retries.jittered(interval, &mut self.random).max(least);
        let due = failure.after(interval);
        let expiry = parcel.expiry(self.rules.max_age).filter(|expiry| *expiry > failure);
        expiry.map_or(due, |expiry| due.min(expiry))
    }
}
