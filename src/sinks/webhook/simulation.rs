//! A simulation for the rules of delivery: an endpoint with a scripted behaviour, a store that keeps what it is given, and a
//! clock that jumps from event to event, so that a day takes milliseconds. Checks the invariants at every step.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::batch::Now;
use super::response::{Answer, Failure, Wait};
use super::state::{Rules, State, Ticket};
use crate::clock::{Moment, Steady};
use crate::store::{Failed, Outcome};

pub const SECOND: Duration = Duration::from_secs(1);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const RULES: Rules = Rules { concurrency: 8, batch: 1, max_age: Duration::from_secs(24 * 3600) };

pub fn at(time: Duration) -> Moment {
    Moment::START.after(time)
}

pub fn later() -> Answer {
    Answer::none("500 Internal Server Error")
}

pub fn held(seconds: u64) -> Answer {
    Answer::Later { failure: failure("429"), wait: Wait::Everything(Duration::from_secs(seconds)) }
}

pub fn refused(status: &str) -> Answer {
    Answer::Refused(failure(status))
}

pub fn unreachable() -> Answer {
    Answer::Unprocessed(failure("connect: connection refused"))
}

fn failure(summary: &str) -> Failure {
    summary.to_owned().into()
}

/// What an endpoint answers to these outcomes at this time.
pub type Whim = Box<dyn FnMut(&[i64], Moment) -> Answer>;

pub struct Simulation {
    rules: Rules,
    pub state: State,
    whim: Whim,
    latency: Duration,
    now: Moment,
    /// The store: the newest `seq`, the cursor, and the undelivered outcomes before it.
    pub newest: i64,
    pub cursor: i64,
    pub failed: BTreeMap<i64, Failed>,
    pub most_failed: usize,
    running: BTreeMap<(Moment, Ticket), Arc<[Outcome]>>,
    /// Every try with its time, and what the receiver has.
    pub tries: Vec<(Moment, Vec<i64>)>,
    pub received: BTreeSet<i64>,
    /// The outcomes that were sent alone, or that no request could carry.
    alone: BTreeSet<i64>,
    /// The number of tries of each outcome.
    counts: HashMap<i64, usize>,
}

impl Simulation {
    pub fn new(rules: Rules, whim: impl FnMut(&[i64], Moment) -> Answer + 'static) -> Self {
        Self {
            rules,
            state: State::new("hook".into(), rules, 0, 1),
            whim: Box::new(whim),
            latency: SECOND / 20,
            now: Moment::START,
            newest: 0,
            cursor: 0,
            failed: BTreeMap::new(),
            most_failed: 0,
            running: BTreeMap::new(),
            tries: Vec::new(),
            received: BTreeSet::new(),
            alone: BTreeSet::new(),
            counts: HashMap::new(),
        }
    }

    pub fn now(&self) -> Now {
        let micros = i64::try_from(self.now.since(Moment::START).as_micros()).unwrap();
        Now { moment: self.now, date: Timestamp::from_microsecond(micros).unwrap().into() }
    }

    pub fn outcome(seq: i64) -> Outcome {
        Outcome { seq, pin: format!("P{seq}").parse().unwrap(), record: "{}".into() }
    }

    /// Does what the task does in one turn.
    pub fn turn(&mut self) {
        self.apply_step();
        while let Some((after, limit)) = self.state.wants_failed() {
            let alive = self.failed.values().filter(|row| !row.dead && row.seq > after);
            let rows = alive.take(limit as usize).map(|row| (row.clone(), Self::outcome(row.seq))).collect();
            let past = |time: Steady| at(Duration::from_millis(time.millis().try_into().unwrap()));
            self.state.take_failed(rows, limit, self.now(), past);
        }
        if let Some((after, limit)) = self.state.wants_outcomes() {
            let to = self.newest.min(after + i64::from(limit));
            self.state.take_outcomes((after + 1..=to).map(Self::outcome).collect(), to);
        }
        while let Some((ticket, outcomes, _)) = self.state.next(self.now()) {
            outcomes.iter().for_each(|outcome| *self.counts.entry(outcome.seq).or_default() += 1);
            self.tries.push((self.now, outcomes.iter().map(|outcome| outcome.seq).collect()));
            self.running.insert((self.now.after(self.latency), ticket), outcomes);
        }
        assert!(self.running.len() <= self.rules.concurrency, "no more deliveries at once than allowed");
        self.apply_step();
    }

    /// Applies a step as the store does, and checks the invariants.
    pub fn apply_step(&mut self) {
        if let Some(step) = self.state.step() {
            let before = self.cursor;
            self.cursor = step.cursor.unwrap_or(self.cursor).max(self.cursor);
            assert!(step.failed.iter().all(|failed| failed.seq <= self.cursor));
            for dead in step.failed.iter().filter(|failed| failed.dead) {
                assert!(
                    self.alone.contains(&dead.seq),
                    "{} was given up without being tried alone",
                    dead.seq
                );
            }
            self.failed.extend(step.failed.into_iter().map(|failed| (failed.seq, failed)));
            step.delivered.iter().for_each(|seq| _ = self.failed.remove(seq));
            for seq in before + 1..=self.cursor {
                assert!(
                    self.received.contains(&seq) || self.failed.contains_key(&seq),
                    "the cursor is past {seq}"
                );
            }
            self.most_failed = self.most_failed.max(self.failed.values().filter(|row| !row.dead).count());
        }
    }

    /// Advances the time, at most to `until`; returns false if nothing more would happen.
    pub fn advance(&mut self, until: Moment) -> bool {
        self.turn();
        let ends = self.running.first_key_value().map(|((end, _), _)| *end);
        let Some(next) = ends.into_iter().chain(self.state.wake_at()).min().filter(|next| *next <= until)
        else {
            self.now = self.now.max(until);
            return false;
        };
        assert!(next > self.now || ends == Some(next), "the rules ask to be woken and then do nothing");
        self.now = next.max(self.now);
        if let Some(((end, ticket), outcomes)) = self.running.pop_first() {
            if end > self.now {
                self.running.insert((end, ticket), outcomes);
                return true;
            }
            let seqs: Vec<i64> = outcomes.iter().map(|outcome| outcome.seq).collect();
            let answer = (self.whim)(&seqs, self.now);
            if let ([seq], false) = (&seqs[..], matches!(answer, Answer::Unprocessed(_))) {
                self.alone.insert(*seq);
            }
            if answer == Answer::Delivered {
                self.received.extend(seqs);
            }
            self.state.ended(ticket, answer, self.now());
        }
        true
    }

    pub fn run_until(&mut self, time: Duration) {
        while self.advance(at(time)) {}
    }

    /// Simulates a kill and a restart: only the store survives.
    pub fn crash(&mut self, seed: u64) {
        self.running.clear();
        self.state = State::new("hook".into(), self.rules, self.cursor, seed);
    }

    pub fn dead(&self) -> Vec<i64> {
        self.failed.values().filter(|row| row.dead).map(|row| row.seq).collect()
    }

    pub fn tries_of(&self, seq: i64) -> usize {
        self.counts.get(&seq).copied().unwrap_or(0)
    }

    #[track_caller]
    pub fn assert_all_received(&self) {
        let missing: Vec<i64> = (1..=self.newest).filter(|seq| !self.received.contains(seq)).collect();
        assert_eq!((missing, &self.failed, self.cursor), (vec![], &BTreeMap::new(), self.newest));
    }
}
