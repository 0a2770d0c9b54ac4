//! The rules of delivery, without a runtime: decides what to send next and what follows from each answer.
//!
//! Promises that every outcome is delivered, waiting for delivery, or a dead letter; that an outcome becomes a dead letter only
//! after it was tried alone, by [`Rules::max_age`] or because the receiver refused it twice and accepted another one in between,
//! or because no request can carry it; that one bad outcome delays no other; and that an endpoint that is down or refuses
//! everything is only probed: a failed try of an outcome that it has not seen before does not count, and the cursor stays.
//! [`MAX_WINDOW`] and [`MAX_RETRYING`] bound the memory, whatever the backlog.
//!
//! Takes moments, rows and answers; returns batches (`Batch`) and [`Progress`]. Must not know HTTP or the store.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::batch::{Batch, Now, fitting, regroup};
use super::batch_size::BatchSize;
use super::circuit_breaker::{Admits, CircuitBreaker, Miss};
use super::ledger::Ledger;
use super::response::{Answer, Wait};
use crate::backoff::Backoff;
use crate::clock::{Moment, Steady};
use crate::http_client::Connection;
use crate::store::{Failed, Outcome, Progress};

/// About how many failed outcomes may wait for another try; above that, no new outcomes are tried.
pub const MAX_RETRYING: usize = 1000;

/// The most outcomes that are read and not settled.
const MAX_WINDOW: usize = 4096;
const MIN_WINDOW: usize = 256;

/// The pause between two tries of an outcome; doubles each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Five minutes with jitter.
const MAX_RETRY: Duration = Duration::from_secs(250);

/// A batch is halved after it failed this many times while the endpoint accepted others: one outcome in it may be the cause.
const SPLIT_AFTER: u32 = 3;

/// What the operator configures.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub concurrency: usize,
    pub batch: usize,
    pub max_age: Duration,
}

/// Identifies a running delivery.
pub type Ticket = u64;

struct Running {
    batch: Batch,
    probe: bool,
    /// A new outcome that only tests whether the endpoint accepts it; a failure does not count against it.
    scout: bool,
    started: Now,
}

pub struct State {
    rules: Rules,
    /// The outcomes that were delivered and not counted yet.
    delivered: u64,
    breaker: CircuitBreaker,
    size: BatchSize,
    ledger: Ledger,
    retries: Backoff,
    random: fastrand::Rng,
    /// Read and not tried yet.
    fresh: VecDeque<Outcome>,
    /// Tried while the endpoint was down, or split off a batch, and not recorded as failed: retried without a pause.
    again: VecDeque<Batch>,
    /// Recorded as failed, ordered by the time of the next try.
    waiting: BTreeMap<(Moment, i64), Batch>,
    /// Seqs of recorded batches, waiting or in flight.
    noted: HashSet<i64>,
    running: HashMap<Ticket, Running>,
    last_ticket: Ticket,
    /// The store may have more failed outcomes, after this one.
    more_failed_after: Option<i64>,
    /// Whether a retry goes before a new outcome when both could start.
    retry_next: bool,
}

impl State {
    /// Starts with nothing read: expects the outcomes after `cursor`, and the failed ones before it.
    pub fn new(sink: String, rules: Rules, cursor: i64, seed: u64) -> Self {
        Self {
            rules,
            delivered: 0,
            breaker: CircuitBreaker::new(),
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

    /// Whether the endpoint accepts nothing now and is only probed.
    pub fn is_open(&self) -> bool {
        self.breaker.is_open()
    }

    /// Since when the endpoint accepts nothing.
    pub fn open_since(&self) -> Option<Moment> {
        self.breaker.open_since()
    }

    /// When the next probe starts, or else the next retry: `now` while a probe runs; `None` if none is scheduled.
    pub fn next_attempt(&self, now: Moment) -> Option<Moment> {
        if !self.breaker.is_open() {
            return self.due();
        }
        let probes = self.running.values().any(|running| running.probe);
        self.next_probe_at().or(probes.then_some(now))
    }

    /// Why nothing is delivered, if nothing is.
    pub fn trouble(&self) -> Option<&str> {
        self.breaker.trouble()
    }

    /// Returns how many outcomes were delivered since the last call.
    pub fn take_delivered(&mut self) -> u64 {
        std::mem::take(&mut self.delivered)
    }

    /// Returns what the store must record, if anything; returns each step once.
    pub fn step(&mut self) -> Option<Progress> {
        self.ledger.step()
    }

    /// The `seq` after which to read outcomes, and the most to read.
    pub fn wants_outcomes(&self) -> Option<(i64, u32)> {
        let Rules { concurrency, batch, .. } = self.rules;
        let window = match self.breaker.is_refusing() {
            // Outcomes that the endpoint accepts may follow many that it refuses for a reason.
            true => MAX_WINDOW,
            false => concurrency.saturating_mul(batch).saturating_mul(4).clamp(MIN_WINDOW, MAX_WINDOW),
        };
        let room = window.saturating_sub(self.ledger.unsettled());
        // Not one by one: a query costs more than its rows.
        let worth_it = room >= window / 4;
        worth_it.then(|| (self.ledger.read_to(), u32::try_from(room).unwrap_or(u32::MAX)))
    }

    /// Takes the outcomes that were read; there are no others up to `all_to`.
    pub fn take_outcomes(&mut self, outcomes: Vec<Outcome>, all_to: i64) {
        self.ledger.read(&outcomes, all_to);
        self.fresh.extend(outcomes);
    }

    /// The `seq` after which to read failed outcomes, and the most to read. Read them only when all steps are durable.
    pub fn wants_failed(&self) -> Option<(i64, u32)> {
        let room = MAX_RETRYING.saturating_sub(self.noted.len());
        // Not one by one, as above.
        let after = self.more_failed_after.filter(|_| room >= MAX_RETRYING / 4)?;
        Some((after, u32::try_from(room).unwrap_or(u32::MAX)))
    }

    /// Takes the failed outcomes that were read, at most `limit`; `past` converts their timestamps to moments.
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
        for batch in regroup(rows, self.rules.batch, past) {
            let due = match batch.last_try {
                Some(last) => self.due_after(&batch, last.moment, Duration::ZERO),
                None => now.moment,
            };
            self.waiting.insert((due, batch.key()), batch);
        }
    }

    /// Forgets the failed outcomes after somebody changed them in the store; they are to be read again.
    pub fn forget_failed(&mut self) {
        let cursor = self.ledger.cursor();
        let noted = &mut self.noted;
        self.waiting.retain(|_, batch| {
            let unwritten = batch.key() > cursor;
            if !unwritten {
                batch.seqs().for_each(|seq| _ = noted.remove(&seq));
            }
            unwritten
        });
        self.more_failed_after = Some(0);
    }

    /// Returns the next delivery that may start now. The caller reports its end with [`State::ended`].
    pub fn next(&mut self, now: Now) -> Option<(Ticket, Arc<[Outcome]>, Connection)> {
        if self.breaker.is_open() {
            self.expire(now);
        }
        if self.running.len() >= self.rules.concurrency {
            return None;
        }
        let probe = match self.breaker.admits(now.moment) {
            Admits::Everything => false,
            Admits::Probe => true,
            Admits::Nothing => return None,
        };
        let scout = probe || self.noted.len() >= MAX_RETRYING;
        let batch = if probe { self.next_probe()? } else { self.next_batch(now)? };
        if probe {
            self.breaker.probe_started();
        }
        self.last_ticket += 1;
        let outcomes = batch.outcomes.clone();
        // Another connection confirms a refusal: the first may lead to a faulty server.
        let connection = if batch.refused_in.is_some() { Connection::New } else { Connection::Kept };
        self.running.insert(self.last_ticket, Running { batch, probe, scout, started: now });
        Some((self.last_ticket, outcomes, connection))
    }

    /// Alternates between a batch that is due and a new one. Retries get at most half of the deliveries, because they may be the
    /// ones that hang. When too many failed, new outcomes go between them only to show whether the endpoint accepts others.
    fn next_batch(&mut self, now: Now) -> Option<Batch> {
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
        match full || self.breaker.is_row_long() {
            true => self.take_scout(),
            false => self.take_again().or_else(|| self.take_fresh()),
        }
    }

    /// Alternates between new batches and retries, with a different outcome each time: one outcome may be what the receiver can't
    /// take.
    fn next_probe(&mut self) -> Option<Batch> {
        self.retry_next = !self.retry_next;
        let (retry_first, new_first) = (!self.retry_next, self.retry_next);
        let retry = if retry_first { self.take_waiting() } else { None };
        retry.or_else(|| self.take_scout()).or_else(|| if new_first { self.take_waiting() } else { None })
    }

    /// The last of the new outcomes, because bad ones tend to come together.
    fn take_scout(&mut self) -> Option<Batch> {
        self.take_last_fresh().or_else(|| self.take_again())
    }

    fn take_waiting(&mut self) -> Option<Batch> {
        let ((due, _), batch) = self.waiting.pop_first()?;
        let (batch, rest) = batch.split(self.size.get());
        if let Some(rest) = rest {
            self.waiting.insert((due, rest.key()), rest);
        }
        Some(batch)
    }

    fn take_again(&mut self) -> Option<Batch> {
        let (batch, rest) = self.again.pop_front()?.split(self.size.get());
        if let Some(rest) = rest {
            self.again.push_front(rest);
        }
        Some(batch)
    }

    fn take_fresh(&mut self) -> Option<Batch> {
        let sizes = self.fresh.iter().map(|outcome| outcome.record.len());
        let count = fitting(sizes, self.size.get());
        (count > 0).then(|| Batch::untried(self.fresh.drain(..count).collect()))
    }

    fn take_last_fresh(&mut self) -> Option<Batch> {
        let sizes = self.fresh.iter().rev().map(|outcome| outcome.record.len());
        let rest = self.fresh.len() - fitting(sizes, self.size.get());
        (rest < self.fresh.len()).then(|| Batch::untried(self.fresh.drain(rest..).collect()))
    }

    fn may_retry(&self) -> bool {
        let retrying = self.running.values().filter(|running| running.batch.noted).count();
        retrying < self.rules.concurrency.div_ceil(2)
    }

    fn due(&self) -> Option<Moment> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }

    /// When [`State::next`] may return something although nothing else has happened.
    pub fn wake_at(&self) -> Option<Moment> {
        let end = || self.waiting.values().filter_map(|batch| batch.ends_at(self.rules.max_age)).min();
        let room = self.running.len() < self.rules.concurrency;
        if !self.breaker.is_open() {
            return self.due().filter(|_| room && self.may_retry());
        }
        let probe = self.next_probe_at().filter(|_| room);
        probe.into_iter().chain(end()).min()
    }

    /// When the next probe may start, if there is anything to send.
    fn next_probe_at(&self) -> Option<Moment> {
        let anything = !(self.waiting.is_empty() && self.again.is_empty() && self.fresh.is_empty());
        self.breaker.probe_at().filter(|_| anything)
    }

    /// Applies the answer to a delivery.
    pub fn ended(&mut self, ticket: Ticket, answer: Answer, now: Now) {
        let Some(Running { mut batch, probe, scout, started }) = self.running.remove(&ticket) else {
            return;
        };
        let count = batch.outcomes.len();
        let refused = matches!(answer, Answer::Refused(_));
        let processed = !matches!(answer, Answer::Unprocessed(_));
        let (failure, wait) = match answer {
            Answer::Delivered => return self.delivered(&batch, probe, now),
            Answer::Unsendable(error) => return self.unsendable(batch, probe, started, error, now),
            Answer::Refused(failure) | Answer::Unprocessed(failure) => (failure, Wait::Unsaid),
            Answer::Later { failure, wait } => (failure, wait),
        };
        let hold = if let Wait::Everything(hold) = wait { Some(hold) } else { None };
        let was_open = self.breaker.is_open();
        let counts = processed && !was_open;
        // A receiver that asks for a pause does not object to the size.
        if processed && hold.is_none() {
            self.size.failed(count, was_open, now.moment);
        }
        if refused && count > 1 && !was_open {
            // The cause may be one of the outcomes, or their number. Trying each alone shows whether it is the endpoint.
            return self.part(&batch, count.div_ceil(2), now);
        }
        if refused && count == 1 && !was_open {
            let row = *batch.refused_in.get_or_insert(self.breaker.row_number());
            if self.breaker.was_short(row) {
                // Refused again after others were accepted: the refusal concerns this outcome only.
                batch.count(started, failure.text, counts);
                return self.dead_letter(&batch);
            }
            batch.refused_in = Some(self.breaker.row_number());
        }
        let miss = Miss { outcome: batch.key(), refused, hold, error: &failure.summary };
        self.breaker.missed(miss, probe, now.moment, &mut self.random);
        if (was_open || scout) && !batch.noted {
            // The endpoint may be the cause and not the outcomes, so the try does not count.
            return self.again.push_back(batch);
        }
        batch.count(started, failure.text, counts);
        self.retry(batch, wait, counts, now);
    }

    fn delivered(&mut self, batch: &Batch, probe: bool, now: Now) {
        self.breaker.accepted(probe);
        self.size.accepted(batch.outcomes.len(), now.moment);
        self.delivered += batch.outcomes.len() as u64;
        for seq in batch.seqs() {
            self.noted.remove(&seq);
            self.ledger.delivered(seq);
        }
    }

    /// Makes a dead letter at once of an outcome that fits in no request: the endpoint is not the cause.
    fn unsendable(&mut self, mut batch: Batch, probe: bool, started: Now, error: String, now: Now) {
        if probe {
            self.breaker.probe_was_not_sent();
        }
        match batch.outcomes.len() {
            1 => {
                batch.count(started, error, true);
                self.dead_letter(&batch);
            }
            count => self.part(&batch, count.div_ceil(2), now),
        }
    }

    /// Records a batch as failed and schedules another try, unless its time is up and it was tried alone. If an outcome may be
    /// the cause (`by_outcome`), a batch of several is split after it failed often, and when its time is up.
    fn retry(&mut self, mut batch: Batch, wait: Wait, by_outcome: bool, now: Now) {
        let over = |end: Option<Moment>| end.is_some_and(|end| end <= now.moment);
        if over(batch.ends_at(self.rules.max_age)) {
            return self.dead_letter(&batch);
        }
        batch.noted = true;
        let wait = match wait {
            Wait::Unsaid => Duration::ZERO,
            Wait::ThisOne(wait) | Wait::Everything(wait) => wait,
        };
        let due = self.due_after(&batch, now.moment, wait);
        self.noted.extend(batch.seqs());
        batch.rows(false).for_each(|row| self.ledger.failed(row));
        let size = match by_outcome {
            true if over(batch.expiry(self.rules.max_age)) => 1,
            true if batch.tries >= SPLIT_AFTER => batch.outcomes.len().div_ceil(2),
            _ => batch.outcomes.len(),
        };
        for part in batch.parts(size) {
            self.waiting.insert((due, part.key()), part);
        }
    }

    /// Schedules the parts of a batch to be tried next.
    fn part(&mut self, batch: &Batch, size: usize, now: Now) {
        for part in batch.parts(size).into_iter().rev() {
            match part.noted {
                true => _ = self.waiting.insert((now.moment, part.key()), part),
                false => self.again.push_front(part),
            }
        }
    }

    /// Makes a dead letter of an outcome that was tried alone.
    fn dead_letter(&mut self, batch: &Batch) {
        batch.seqs().for_each(|seq| _ = self.noted.remove(&seq));
        batch.rows(true).for_each(|row| self.ledger.failed(row));
    }

    /// Dead-letters outcomes that were tried alone and whose time is up while the endpoint is down: a last try would show nothing
    /// new.
    fn expire(&mut self, now: Now) {
        let max_age = self.rules.max_age;
        let ended = |batch: &Batch| batch.ends_at(max_age).is_some_and(|end| end <= now.moment);
        let ended: Vec<_> = self.waiting.extract_if(.., |_, batch| ended(batch)).collect();
        ended.iter().for_each(|(_, batch)| self.dead_letter(batch));
    }

    /// When to retry after a failure: by backoff, but not before `least`, and one last time when the batch's time is up.
    fn due_after(&mut self, batch: &Batch, failure: Moment, least: Duration) -> Moment {
        let interval = self.retries.nth(batch.tries.saturating_sub(1));
        let interval = self.retries.jittered(interval, &mut self.random).max(least);
        let due = failure.after(interval);
        let expiry = batch.expiry(self.rules.max_age).filter(|expiry| *expiry > failure);
        expiry.map_or(due, |expiry| due.min(expiry))
    }
}
