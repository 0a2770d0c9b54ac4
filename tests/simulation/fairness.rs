//! Checks how long a PIN that is final, or past its deadline, may stay without its outcome while
//! everything works.

use std::time::Duration;

use super::api::Api;
use super::clocks::Time;
use super::daemon::{LEAST_GROWTH, LEAST_RATE};
use super::oracle::{Broken, Oracle};
use super::plan::{Plan, SECOND};
use super::store::Store;

/// This long after its end a brake limits nothing any more.
const RAMPS_UP: Duration = Duration::from_secs(15);

/// Since when everything works, and what follows from it.
#[derive(Debug, Default)]
pub struct Fairness {
    well_since: Option<Time>,
    /// How long the backlog of this fair time takes to be worked off; worked out when somebody asks.
    backlog: Option<Option<Duration>>,
    /// When the machine slept, by its monotonic clock, and how long it had slept then in all.
    slept: Vec<(Time, Duration)>,
}

impl Fairness {
    pub fn slept(&mut self, now: Time, in_all: Duration) {
        self.slept.push((now, in_all));
    }

    /// Whether all is well: the process runs, and neither API nor store fail.
    pub fn is_well(&mut self, is_well: bool, now: Time) {
        if is_well != self.well_since.is_some() {
            self.well_since = is_well.then_some(now);
            self.backlog = None;
        }
    }

    /// Makes sure that this PIN, in flight without a verdict, is not overdue. True if it might have been.
    pub fn check(
        &mut self,
        pin: usize,
        plan: &Plan,
        api: &Api,
        store: &Store,
        oracle: &Oracle,
        now: Time,
    ) -> Result<bool, Broken> {
        let (Some(well_since), Some(watched)) = (self.well_since, oracle.watched(pin)) else {
            return Ok(false);
        };
        if !plan.pins[pin].pin_history.is_answered() {
            // It may wait for its last poll until its grace is over, which is checked for every PIN.
            return Ok(false);
        }
        let settled = api.settled(plan, pin).map_or(Time::MAX, |truth| self.monotonic(truth));
        let from = settled.min(watched.deadline).max(well_since).max(watched.since);
        if from > now {
            return Ok(false);
        }
        // A poll from the time of a fault may still hang, and occupy its place.
        let free = oracle.free_from.max(well_since + plan.timeout);
        let due = from + oracle.intervals.longest(from.saturating_sub(watched.submitted));
        let mut due = due.max(free);
        if plan.strays > 0.0 {
            // A stray refusal costs an interval; the next poll goes out on a connection of its own.
            due += oracle.intervals.longest(due.saturating_sub(watched.submitted));
        }
        let Some(backlog) = *self.backlog.get_or_insert_with(|| backlog(well_since, plan, store, oracle))
        else {
            return Ok(false);
        };
        let overdue = due + backlog + plan.timeout + RAMPS_UP;
        if now > overdue {
            return Err(format!(
                "PIN {pin} could have had its outcome {:?} ago, and had to {:?} ago: \
                 well since {:?}, free from {:?} ago, a backlog of {backlog:?}, {watched:?}",
                now - from,
                now - overdue,
                now - well_since,
                now.saturating_sub(oracle.free_from),
            ));
        }
        Ok(true)
    }

    /// When the machine's monotonic clock showed what is this true time.
    fn monotonic(&self, truth: Time) -> Time {
        let mut before = Duration::ZERO;
        for &(at, in_all) in &self.slept {
            if truth < at + in_all {
                return at.min(truth - before);
            }
            before = in_all;
        }
        truth - before
    }
}

/// In this time all polls can be sent, at the rate, that can come due within it, wherever in this fair time it
/// begins: a PIN that came due is polled by then, in whatever order that is. Every PIN that is not there may
/// still come. `None` if there is no such time, because the demand is over the rate.
fn backlog(since: Time, plan: &Plan, store: &Store, oracle: &Oracle) -> Option<Duration> {
    let at_once = plan.concurrency as f64 / plan.slowest().as_secs_f64();
    let rate = plan.rate.map_or(at_once, |rate| at_once.min(f64::from(rate.get())));
    let can_send = |time: Duration| {
        let time = time.as_secs_f64();
        if !oracle.was_throttled {
            return rate * time;
        }
        // It climbs back from the bottom, in the worst case.
        let back = ((rate - LEAST_RATE) / LEAST_GROWTH).max(0.0);
        let climbing = time.min(back);
        LEAST_RATE.min(rate) * time + LEAST_GROWTH * climbing * (time - climbing / 2.0)
    };
    let ages = |pin: usize| oracle.watched(pin).map(|watched| since.saturating_sub(watched.submitted));
    let demand = |time: Duration| {
        let here = store.rows().filter_map(|(pin, _)| ages(pin));
        let here: f64 = here.map(|age| oracle.intervals.polls(age, age + time)).sum();
        let coming = (0..plan.pins.len()).filter(|pin| store.row(*pin).is_none()).count();
        here + coming as f64 * oracle.intervals.polls(Duration::ZERO, time)
    };
    let times = std::iter::successors(Some(SECOND), |time| Some(*time * 3 / 2));
    times.take_while(|time| *time < 1000 * 3600 * SECOND).find(|time| demand(*time) <= can_send(*time))
}
