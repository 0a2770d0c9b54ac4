//! The simulation around the core: the queue of events, and the loop that processes them.

#[path = "polls.rs"]
mod polls;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use fastrand::Rng;
use pinwatch::clock::Dated;
use pinwatch::outcome::Verdict;
use pinwatch::schedule::Ticket;
use pinwatch::store::InFlight;

use super::api::{Api, Reply};
use super::clocks::{BEGIN, Clocks, Time};
use super::conditions::{Condition, span};
use super::daemon::{Daemon, Standing};
use super::fairness::Fairness;
use super::oracle::{Broken, Oracle};
use super::pin_history::pin_id;
use super::plan::{HOUR, MINUTE, Plan, PlannedEvent, SECOND, closes};
use super::store::{Sink, Store, Submit};
use super::totals::Totals;

#[derive(Debug, PartialEq)]
enum Event {
    Planned(PlannedEvent),
    Start,
    Commit,
    PollEnds(u64),
    /// The conditions of the API, the store or a sink may have changed.
    Look,
    Audit,
    /// The task looks for PINs that have waited too long.
    Expire,
}

/// A poll under way.
struct Running {
    ticket: Ticket,
    pin: usize,
    reply: Reply,
}

pub struct Simulation {
    plan: Plan,
    clocks: Clocks,
    rng: Rng,
    /// When, and in which order what comes at the same time; the event is in `events`.
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    events: BTreeMap<u64, Event>,
    next_id: u64,
    daemon: Option<Daemon>,
    processes: u64,
    starts_at: Time,
    running: BTreeMap<u64, Running>,
    api: Api,
    store: Store,
    sinks: [Sink; 2],
    oracle: Oracle,
    fairness: Fairness,
    /// Planned events that are still to come.
    left: usize,
    totals: Totals,
    /// The last things that happened, for people; empty unless asked for.
    log: Option<VecDeque<String>>,
}

/// Things that are kept for people.
const LOG: usize = 60;

impl Simulation {
    pub fn new(plan: Plan, with_log: bool) -> Self {
        let count = plan.pins.len();
        let mut simulation = Self {
            clocks: Clocks::new(),
            rng: Rng::with_seed(!plan.seed),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next_id: 0,
            daemon: None,
            processes: 0,
            starts_at: BEGIN,
            running: BTreeMap::new(),
            api: Api::new(&plan),
            store: Store::new(count),
            sinks: [Sink::exactly_once(), Sink::default()],
            oracle: Oracle::new(&plan),
            fairness: Fairness::default(),
            left: plan.happenings.len(),
            totals: Totals { seeds: 1, pins: count as u64, ..Totals::default() },
            log: with_log.then(VecDeque::new),
            plan,
        };
        simulation.at(BEGIN, Event::Start);
        simulation.at(BEGIN, Event::Audit);
        simulation.at(BEGIN, Event::Expire);
        for (time, happening) in simulation.plan.happenings.clone() {
            simulation.at(time, Event::Planned(happening));
        }
        let windows = simulation.plan.store_fails.iter().chain(simulation.plan.sinks_fail.iter().flatten());
        for time in windows.flat_map(|(begin, end)| [*begin, *end]).collect::<Vec<_>>() {
            simulation.at(time, Event::Look);
        }
        simulation
    }

    /// The last things that happened.
    pub fn log(&self) -> impl Iterator<Item = &String> {
        self.log.iter().flatten()
    }

    /// Runs until every PIN has its outcome and every sink has all outcomes.
    pub async fn run(&mut self) -> Result<Totals, Broken> {
        self.conditions_change();
        let longest = (0..self.plan.pins.len()).map(|pin| self.plan.lifetime(pin)).max().unwrap_or_default();
        let patience = 100 * HOUR + 3 * longest + 20 * self.plan.schedule.max_interval;
        let last = self.plan.happenings.iter().map(|(time, _)| *time).max().unwrap_or(BEGIN);
        let give_up = last.max(self.plan.conditions.end()) + patience;
        while !self.is_over() {
            let wake = self.start_polls()?;
            let next = self.queue.peek().map(|Reverse((time, _))| *time);
            let Some(next) = [next, wake].into_iter().flatten().min() else {
                return Err("nothing is left to happen, and not all is done".to_owned());
            };
            if next > give_up {
                return Err(self.store.is_settled().err().unwrap_or("it never ends".to_owned()));
            }
            self.clocks.advance_to(next).await;
            while self.queue.peek().is_some_and(|Reverse((time, _))| *time <= next) {
                if let Some(event) = self.queue.pop().and_then(|Reverse((_, id))| self.events.remove(&id)) {
                    self.happen(event)?;
                }
            }
        }
        self.store.is_settled()?;
        self.sinks.iter().try_for_each(|sink| sink.check(&self.store))?;
        for (_, ending) in self.store.outbox() {
            self.totals.outcomes[*ending as usize] += 1;
        }
        self.totals.simulated = self.clocks.truth() - BEGIN;
        Ok(self.totals.clone())
    }

    fn is_over(&self) -> bool {
        let delivered = self.sinks.iter().all(|sink| sink.cursor() == self.store.outbox().len());
        self.left == 0 && self.daemon.is_some() && !self.store.has_work() && delivered && self.rows() == 0
    }

    fn rows(&self) -> usize {
        self.store.rows().count()
    }

    fn at(&mut self, time: Time, event: Event) {
        // The daemon's moments are whole microseconds; so is whatever happens.
        let time = Duration::from_micros(time.as_nanos().div_ceil(1000) as u64);
        self.next_id += 1;
        self.events.insert(self.next_id, event);
        self.queue.push(Reverse((time, self.next_id)));
    }

    fn note(&mut self, what: impl FnOnce(&Self) -> String) {
        let Some(mut log) = self.log.take() else { return };
        let (now, line) = (self.clocks.now() - BEGIN, what(self));
        log.push_back(format!("{:>16.6} {line}", now.as_secs_f64()));
        if log.len() > LOG {
            log.pop_front();
        }
        self.log = Some(log);
    }

    fn happen(&mut self, event: Event) -> Result<(), Broken> {
        match event {
            Event::PollEnds(id) => return self.poll_ends(id),
            Event::Commit => return self.commit(),
            Event::Audit => return self.audit(),
            Event::Expire => return self.expire(),
            _ => self.note(|_| format!("{event:?}")),
        }
        let now = self.clocks.now();
        match event {
            Event::Planned(happening) => return self.planned(happening, now),
            Event::Start => self.start(now),
            Event::Look => {
                self.conditions_change();
                self.deliver();
                self.commit_soon();
            }
            Event::PollEnds(_) | Event::Commit | Event::Audit | Event::Expire => {}
        }
        self.look_whether_well();
        Ok(())
    }

    fn planned(&mut self, happening: PlannedEvent, now: Time) -> Result<(), Broken> {
        self.left -= 1;
        match happening {
            PlannedEvent::Submit { pin, again } => self.submit(pin, again, now),
            PlannedEvent::Cancel { pin } => {
                let id = pin_id(pin).parse().expect("a PIN ID");
                if let Some(verdict) = self.daemon.as_mut().and_then(|daemon| daemon.cancel(&id)) {
                    self.oracle.cancelled(pin, &verdict)?;
                    self.finish(verdict);
                }
            }
            PlannedEvent::Crash { down } => {
                self.totals.fault("crash");
                // A crash while it is down is one that takes longer.
                self.starts_at = self.starts_at.max(now + down);
                let lost = self.store.crash();
                self.try_again(lost, self.starts_at + SECOND);
                if self.daemon.take().is_some() {
                    self.at(self.starts_at, Event::Start);
                }
                self.running.clear();
                self.oracle.process_died();
            }
            PlannedEvent::Suspend(time) => {
                self.totals.fault("suspend");
                self.clocks.suspend(time);
                self.fairness.slept(now, self.clocks.suspended());
                self.conditions_change();
            }
            PlannedEvent::Jump { forward, by } => {
                self.totals.fault("clock jump");
                self.clocks.jump(forward, by);
            }
            PlannedEvent::Reload => {
                if let Some(daemon) = &mut self.daemon {
                    self.totals.fault("reload");
                    let renewed = self.rng.bool();
                    daemon.reload(&self.plan, renewed);
                    self.oracle.reloaded(renewed.then_some(self.next_id));
                }
            }
        }
        self.look_whether_well();
        Ok(())
    }

    fn submit(&mut self, pin: usize, again: bool, now: Time) {
        self.api.send(pin, self.clocks.truth());
        if self.daemon.is_none() {
            self.left += 1;
            let back = self.starts_at.max(now) + SECOND;
            return self.at(back, Event::Planned(PlannedEvent::Submit { pin, again }));
        }
        // The store keeps milliseconds.
        let wall =
            jiff::Timestamp::from_millisecond(self.clocks.wall().as_millisecond()).expect("this century");
        let deadline_at = wall + self.plan.lifetime(pin);
        let deadline_at =
            jiff::Timestamp::from_millisecond(deadline_at.as_millisecond()).expect("this century");
        let submitted_at = Dated { wall, steady: self.clocks.steady() };
        let row = InFlight { pin: pin_id(pin).parse().expect("a PIN ID"), submitted_at, deadline_at };
        self.store.submit(Submit { pin, again, row });
        self.commit_soon();
    }

    /// Clients that were refused, or heard nothing, try again.
    fn try_again(&mut self, submits: Vec<Submit>, at: Time) {
        for Submit { pin, again, .. } in submits {
            self.left += 1;
            let late = Duration::from_micros(self.rng.u64(..1_000_000));
            self.at(at + late, Event::Planned(PlannedEvent::Submit { pin, again }));
        }
    }

    fn start(&mut self, now: Time) {
        if self.starts_at > now || self.daemon.is_some() {
            return self.at(self.starts_at, Event::Start);
        }
        self.processes += 1;
        let rows: Vec<_> = self.store.rows().map(|(_, row)| row.clone()).collect();
        self.daemon =
            Some(Daemon::start(&self.plan, &self.clocks, self.processes, &rows, self.store.brake()));
        self.oracle.resumed(&self.plan, self.store.brake(), self.store.rows(), &self.clocks);
        for (index, sink) in self.sinks.iter_mut().enumerate() {
            sink.restart(index, &self.store);
        }
        self.deliver();
    }

    fn finish(&mut self, verdict: Verdict) {
        self.note(|_| format!("{verdict:?}"));
        self.store.finish(verdict);
        self.commit_soon();
    }

    fn commit_soon(&mut self) {
        if self.daemon.is_some() && self.store.has_work() && !self.store.is_commit_due {
            self.store.is_commit_due = true;
            let takes = span(Duration::from_millis(1), SECOND / 5, &mut self.rng);
            self.at(self.clocks.now() + takes, Event::Commit);
        }
    }

    fn commit(&mut self) -> Result<(), Broken> {
        self.store.is_commit_due = false;
        let now = self.clocks.now();
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        if closes(&self.plan.store_fails, now).is_some() {
            self.totals.fault("store fails");
            let refused = self.store.fail();
            let pause = span(SECOND, 10 * MINUTE, &mut self.rng);
            self.try_again(refused, now + pause);
            // What is left is tried again when somebody looks.
            return Ok(());
        }
        let applied = self.store.commit()?;
        if applied.is_brake_saved {
            self.oracle.brake_saved();
        }
        for pin in &applied.finished {
            daemon.finished(&pin_id(*pin).parse().expect("a PIN ID"));
            self.oracle.finished(*pin);
        }
        for submit in &applied.accepted {
            daemon.accept(&submit.row);
            self.oracle.accepted(submit.pin, &submit.row, now);
        }
        self.note(|_| format!("committed {applied:?}"));
        self.deliver();
        Ok(())
    }

    fn deliver(&mut self) {
        let now = self.clocks.now();
        for index in 0..self.sinks.len() {
            let fails = &self.plan.sinks_fail[index];
            if closes(fails, now).is_some() {
                self.totals.fault("sink is down");
            } else if self.daemon.is_some() && self.sinks[index].deliver(&self.store) {
                self.store.advance(index, self.sinks[index].cursor());
            }
        }
        self.commit_soon();
    }

    fn conditions_change(&mut self) {
        if let Some(turns) = self.plan.conditions.turns(self.clocks.truth()) {
            let turns = turns - self.clocks.suspended();
            self.at(turns, Event::Look);
        }
    }

    fn look_whether_well(&mut self) {
        let (now, truth) = (self.clocks.now(), self.clocks.truth());
        let is_well = self.daemon.is_some()
            && self.plan.conditions.at(truth) == Condition::Normal
            && !self.plan.is_limited(truth)
            && closes(&self.plan.store_fails, now).is_none();
        self.fairness.is_well(is_well, now);
    }

    /// Looks at every PIN in flight.
    fn audit(&mut self) -> Result<(), Broken> {
        let now = self.clocks.now();
        let pause = span(MINUTE, 12 * HOUR, &mut self.rng);
        self.at(now + pause, Event::Audit);
        let Self { daemon: Some(daemon), fairness, plan, api, store, oracle, .. } = self else {
            return Ok(());
        };
        for (pin, row) in store.rows() {
            let standing = daemon.standing(&row.pin);
            oracle.goes_on(pin, standing, now, store.has_verdict_of(pin))?;
            if standing != Standing::Finishing {
                fairness.check(pin, plan, api, store, oracle, now)?;
            }
        }
        Ok(())
    }
}

/// One whole simulation, on a runtime of its own whose clock stands still unless it is advanced.
pub fn simulate(seed: u64, with_log: bool) -> Result<Totals, (Broken, Vec<String>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let mut simulation = Simulation::new(Plan::of(seed), with_log);
        let result = simulation.run().await;
        result.map_err(|broken| (broken, simulation.log().cloned().collect()))
    })
}
