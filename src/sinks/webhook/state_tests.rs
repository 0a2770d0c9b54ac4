//! The rules in a simulated world: an endpoint with whims, a store that remembers what it was told, and a clock
//! that jumps from event to event, so that a day takes milliseconds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::gate::ENOUGH;
use super::parcel::Now;
use super::response::{Answer, Wait};
use super::state::{MAX_RETRYING, Rules, State, Ticket};
use crate::clock::Moment;
use crate::store::{Failed, Outcome};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const RULES: Rules = Rules { concurrency: 8, batch: 1, max_age: Duration::from_secs(24 * 3600) };

fn at(time: Duration) -> Moment {
    Moment::START.after(time)
}

fn later() -> Answer {
    Answer::none("500 Internal Server Error")
}

fn held(seconds: u64) -> Answer {
    Answer::Later { error: "429".into(), wait: Wait::Everything(Duration::from_secs(seconds)) }
}

/// What an endpoint says to these outcomes at this time.
type Whim = Box<dyn FnMut(&[i64], Moment) -> Answer>;

struct World {
    rules: Rules,
    state: State,
    whim: Whim,
    latency: Duration,
    now: Moment,
    /// The store: the newest `seq`, the cursor, and the outcomes before it that are not delivered.
    newest: i64,
    cursor: i64,
    failed: BTreeMap<i64, Failed>,
    most_failed: usize,
    running: BTreeMap<(Moment, Ticket), Arc<[Outcome]>>,
    /// What was tried and when, and what the receiver has.
    tries: Vec<(Moment, Vec<i64>)>,
    received: BTreeSet<i64>,
}

impl World {
    fn new(rules: Rules, whim: impl FnMut(&[i64], Moment) -> Answer + 'static) -> Self {
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
        }
    }

    fn now(&self) -> Now {
        let micros = i64::try_from(self.now.since(Moment::START).as_micros()).unwrap();
        Now { moment: self.now, wall: Timestamp::from_microsecond(micros).unwrap() }
    }

    fn outcome(seq: i64) -> Outcome {
        Outcome { seq, pin: format!("P{seq}").parse().unwrap(), record: "{}".into() }
    }

    /// What the task does in one turn.
    fn turn(&mut self) {
        self.tell();
        while let Some((after, limit)) = self.state.wants_failed() {
            let alive = self.failed.values().filter(|row| !row.dead && row.seq > after);
            let rows = alive.take(limit as usize).map(|row| (row.clone(), Self::outcome(row.seq))).collect();
            let past = |time: Timestamp| at(Duration::from_micros(time.as_microsecond().try_into().unwrap()));
            self.state.take_failed(rows, limit, self.now(), past);
        }
        if let Some((after, limit)) = self.state.wants_outcomes() {
            let to = self.newest.min(after + i64::from(limit));
            self.state.take_outcomes((after + 1..=to).map(Self::outcome).collect(), to);
        }
        while let Some((ticket, outcomes)) = self.state.next(self.now()) {
            self.tries.push((self.now, outcomes.iter().map(|outcome| outcome.seq).collect()));
            self.running.insert((self.now.after(self.latency), ticket), outcomes);
        }
        assert!(self.running.len() <= self.rules.concurrency, "no more deliveries at once than allowed");
        self.tell();
    }

    /// Does with a step what the store does, and checks what must always hold.
    fn tell(&mut self) {
        if let Some(step) = self.state.step() {
            let before = self.cursor;
            self.cursor = step.cursor.unwrap_or(self.cursor).max(self.cursor);
            assert!(step.failed.iter().all(|failed| failed.seq <= self.cursor));
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

    /// Lets time pass, to `until` at most; false if nothing more would happen.
    fn advance(&mut self, until: Moment) -> bool {
        self.turn();
        let ends = self.running.first_key_value().map(|((end, _), _)| *end);
        let Some(next) = ends.into_iter().chain(self.state.wake_at()).min().filter(|next| *next <= until)
        else {
            self.now = until;
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
            if answer == Answer::Delivered {
                self.received.extend(seqs);
            }
            self.state.ended(ticket, answer, self.now());
        }
        true
    }

    fn run_until(&mut self, time: Duration) {
        while self.advance(at(time)) {}
    }

    /// The process is killed and started again: only the store is left.
    fn crash(&mut self, seed: u64) {
        self.running.clear();
        self.state = State::new("hook".into(), self.rules, self.cursor, seed);
    }

    fn dead(&self) -> Vec<i64> {
        self.failed.values().filter(|row| row.dead).map(|row| row.seq).collect()
    }

    fn tries_of(&self, seq: i64) -> usize {
        self.tries.iter().filter(|(_, seqs)| seqs.contains(&seq)).count()
    }

    #[track_caller]
    fn assert_all_received(&self) {
        let missing: Vec<i64> = (1..=self.newest).filter(|seq| !self.received.contains(seq)).collect();
        assert_eq!((missing, &self.failed, self.cursor), (vec![], &BTreeMap::new(), self.newest));
    }
}

#[test]
fn an_endpoint_that_is_down_for_a_day_is_probed_seldom_costs_nothing_and_gets_all_when_it_is_back() {
    let day = 24 * HOUR;
    let rules = Rules { max_age: 2 * day, ..RULES };
    let mut world = World::new(rules, move |_, now| match now < at(day) {
        true => Answer::none("connect: connection refused"),
        false => Answer::Delivered,
    });
    // A PIN ends every second.
    for second in 0..86_400 {
        world.newest += 1;
        world.run_until(second * SECOND);
    }
    assert_eq!(world.cursor, 1.min(world.cursor), "the cursor stays where the trouble began");
    assert!(world.most_failed < ENOUGH + rules.concurrency, "{} rows were written", world.most_failed);
    assert!(world.tries.len() < 86_400 / 40 + 20, "{} tries", world.tries.len());
    assert!(world.state.trouble().is_some());
    let probes = world.tries.len();
    world.run_until(day + HOUR);
    world.assert_all_received();
    assert_eq!(world.state.trouble(), None);
    println!("{probes} tries in a day, {} in all for {} outcomes", world.tries.len(), world.newest);
    // What it took to find out, a probe a minute, and one try for each.
    assert!(world.tries.len() <= probes + usize::try_from(world.newest).unwrap() + 1);
}

#[test]
fn an_outage_longer_than_max_age_costs_only_what_was_tried_before_it_was_known() {
    let mut world = World::new(RULES, |_, now| if now < at(72 * HOUR) { later() } else { Answer::Delivered });
    world.newest = 5000;
    world.run_until(80 * HOUR);
    let dead = world.dead();
    assert!((ENOUGH..=RULES.concurrency).contains(&dead.len()), "{dead:?}");
    assert_eq!(world.received.len() + dead.len(), 5000);
    for seq in dead {
        assert!(world.tries_of(seq) > 1 && !world.received.contains(&seq));
        let row = &world.failed[&seq];
        assert!(row.first_try_at.is_some() && row.error.is_some());
    }
}

#[test]
fn one_poisonous_outcome_among_many_blocks_none_and_is_given_up_after_max_age() {
    for concurrency in [1, 8] {
        let rules = Rules { concurrency, ..RULES };
        let mut world = World::new(rules, |seqs, _| if seqs == [3] { later() } else { Answer::Delivered });
        world.newest = 1000;
        world.run_until(1000 * SECOND);
        assert_eq!((world.received.len(), world.cursor), (999, 1000), "all others are there soon");
        assert!(world.tries_of(3) < 20, "and it is tried with backoff");
        assert_eq!(world.dead(), []);
        world.run_until(25 * HOUR);
        assert_eq!(world.dead(), [3]);
        let row = &world.failed[&3];
        let age = row.last_try_at.unwrap().duration_since(row.first_try_at.unwrap());
        assert_eq!(age.as_hours(), 24, "the last try is when its time is up");
        assert!((280..500).contains(&row.tries), "{}", row.tries);
        assert!(!world.advance(at(100 * HOUR)), "a dead letter is not tried again");
    }
}

#[test]
fn a_burst_of_poisonous_outcomes_does_not_keep_the_others_back_for_good() {
    let mut world = World::new(RULES, |seqs, _| if seqs[0] <= 60 { later() } else { Answer::Delivered });
    world.newest = 5000;
    world.run_until(2 * HOUR);
    assert_eq!(world.received.len(), 4940);
    world.run_until(30 * HOUR);
    assert_eq!(world.dead(), (1..=60).collect::<Vec<_>>());
}

#[test]
fn a_third_of_poisonous_outcomes_does_not_keep_the_others_back() {
    let mut world = World::new(RULES, |seqs, _| match seqs[0] % 3 {
        0 => later(),
        _ => Answer::Delivered,
    });
    world.newest = 2000;
    world.run_until(1000 * SECOND);
    assert_eq!((world.received.len(), world.cursor), (1334, 2000));
    world.run_until(30 * HOUR);
    assert_eq!(world.dead().len(), 666);
}

#[test]
fn outcomes_that_wait_for_another_try_are_bounded_and_new_ones_then_wait_in_the_store() {
    // Just enough is delivered to keep the endpoint from being thought down.
    let mut turn = 0;
    let mut world = World::new(Rules { max_age: 48 * HOUR, ..RULES }, move |_, now| {
        turn += 1;
        if turn % 4 == 0 || now > at(24 * HOUR) { Answer::Delivered } else { later() }
    });
    world.newest = 20_000;
    world.run_until(HOUR);
    assert!((900..=MAX_RETRYING + 8).contains(&world.most_failed), "{}", world.most_failed);
    world.run_until(40 * HOUR);
    world.assert_all_received();
}

#[test]
fn a_refused_outcome_is_a_dead_letter_at_once_and_the_others_go_on() {
    let mut world = World::new(RULES, |seqs, _| match seqs[0] % 2 {
        0 => Answer::Refused("410 Gone".into()),
        _ => Answer::Delivered,
    });
    world.newest = 100;
    world.run_until(10 * SECOND);
    assert_eq!(world.dead(), (1..=50).map(|n| 2 * n).collect::<Vec<_>>());
    assert_eq!((world.received.len(), world.tries.len(), world.cursor), (50, 100, 100));
    let row = &world.failed[&2];
    assert_eq!((row.tries, row.error.as_deref()), (1, Some("410 Gone")));
    assert_eq!(world.state.trouble(), None, "an endpoint that refuses is not down");
}

#[test]
fn the_whole_endpoint_is_left_alone_for_as_long_as_it_asks_and_then_probed() {
    let mut calls = 0;
    let mut world = World::new(RULES, move |_, _| {
        calls += 1;
        if calls <= 8 { held(600) } else { Answer::Delivered }
    });
    world.newest = 100;
    world.run_until(HOUR);
    let starts: Vec<u64> = world.tries.iter().map(|(at, _)| at.since(Moment::START).as_secs()).collect();
    assert_eq!(starts[..8], [0; 8], "these were under way");
    assert!(starts[8] >= 600, "{starts:?}");
    assert!(world.tries[9].0 > world.tries[8].0, "one goes first");
    world.assert_all_received();
    assert!(world.most_failed <= 1, "only the one that was told first had failed");
}

#[test]
fn an_answer_with_retry_after_for_one_outcome_holds_back_that_one_only() {
    let mut world = World::new(RULES, |seqs, now| match seqs {
        [1] if now < at(SECOND) => {
            Answer::Later { error: "500".into(), wait: Wait::ThisOne(Duration::from_secs(900)) }
        }
        _ => Answer::Delivered,
    });
    world.newest = 10;
    world.run_until(899 * SECOND);
    assert_eq!((world.received.len(), world.tries_of(1)), (9, 1));
    world.run_until(901 * SECOND);
    world.assert_all_received();
}

#[test]
fn a_batch_is_sent_again_as_it_was_and_parted_only_to_find_the_outcome_that_is_the_cause() {
    let rules = Rules { batch: 100, ..RULES };
    let mut refusing = World::new(rules, |seqs, _| match seqs.contains(&42) {
        true => Answer::Refused("422".into()),
        false => Answer::Delivered,
    });
    refusing.newest = 1000;
    refusing.run_until(HOUR);
    assert_eq!((refusing.dead(), refusing.received.len()), (vec![42], 999));
    assert_eq!(refusing.tries.len(), 10 + 100);

    let mut failing = World::new(rules, |seqs, _| match seqs.contains(&42) {
        true => later(),
        false => Answer::Delivered,
    });
    failing.newest = 1000;
    failing.run_until(HOUR);
    assert_eq!(failing.received.len(), 999, "the others of its batch don't wait for max_age");
    let whole: Vec<i64> = (1..=100).collect();
    let again = failing.tries.iter().filter(|(_, seqs)| *seqs == whole).count();
    assert_eq!(again, 3);

    let mut down = World::new(rules, |_, now| if now < at(HOUR) { later() } else { Answer::Delivered });
    down.newest = 1000;
    down.run_until(2 * HOUR);
    down.assert_all_received();
    assert!(down.tries.iter().all(|(_, seqs)| seqs.len() == 100), "an outage parts none");
}

#[test]
fn what_somebody_orders_is_delivered_again_and_what_is_dropped_is_not() {
    let mut world = World::new(RULES, |seqs, now| match (seqs, now < at(HOUR)) {
        ([3], true) => Answer::Refused("404".into()),
        ([4], true) => later(),
        _ => Answer::Delivered,
    });
    world.newest = 10;
    world.run_until(HOUR);
    assert_eq!(world.dead(), [3]);
    let asked =
        |seq, tries| Failed { seq, dead: false, tries, first_try_at: None, last_try_at: None, error: None };
    world.failed.insert(3, asked(3, 0));
    world.failed.insert(7, asked(7, 0));
    world.failed.remove(&4);
    let dropped_after = world.tries_of(4);
    world.state.forget_failed();
    world.run_until(2 * HOUR);
    assert!(world.received.contains(&3) && world.failed.is_empty());
    assert_eq!((world.tries_of(7), world.tries_of(4)), (2, dropped_after));
}

#[test]
fn more_ordered_outcomes_than_fit_into_memory_are_all_delivered() {
    let mut world = World::new(RULES, |_, _| Answer::Delivered);
    world.newest = 5000;
    world.run_until(HOUR);
    for seq in 1..=5000 {
        let (first_try_at, last_try_at, error) = (None, None, None);
        world.failed.insert(seq, Failed { seq, dead: false, tries: 0, first_try_at, last_try_at, error });
    }
    world.state.forget_failed();
    world.run_until(2 * HOUR);
    assert_eq!((world.failed.len(), world.tries.len()), (0, 10_000));
}

#[test]
fn whatever_the_endpoint_says_and_whenever_the_process_is_killed_every_outcome_ends_up_somewhere() {
    for seed in 0..150 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut whims = random.fork();
        let batch = if random.bool() { 1 } else { random.usize(2..50) };
        let rules = Rules { concurrency: random.usize(1..20), batch, max_age: 6 * HOUR };
        let (mut down_until, mut mood) = (Moment::START, 0);
        let mut world = World::new(rules, move |seqs, now| {
            if now >= down_until {
                mood = whims.u32(0..4);
                down_until = now.after(Duration::from_secs(whims.u64(1..1000)));
            }
            match (mood, whims.u32(0..20)) {
                (0, _) => Answer::none("down"),
                (1, 0) => held(whims.u64(1..600)),
                (_, 1) => Answer::Refused("404".into()),
                (_, 2 | 3) => later(),
                _ if seqs.contains(&17) => later(),
                _ => Answer::Delivered,
            }
        });
        for step in 1..60 {
            world.newest += random.i64(0..100);
            world.run_until(step * Duration::from_secs(random.u64(1..60)));
            if random.u32(0..5) == 0 {
                world.crash(random.u64(..));
            }
        }
        world.run_until(60 * HOUR);
        let dead = world.dead();
        for seq in 1..=world.newest {
            let ended = world.received.contains(&seq) || dead.contains(&seq);
            assert!(ended, "outcome {seq} is lost, with seed {seed}");
            assert!(world.tries_of(seq) > 0, "outcome {seq} was given up unseen, with seed {seed}");
        }
        assert_eq!((world.cursor, world.failed.len()), (world.newest, dead.len()), "with seed {seed}");
    }
}
