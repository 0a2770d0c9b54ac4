//! Computes the optimal checking schedule: for each age, when to poll next.
//!
//! Minimises price * polls + weighted delay, after R. E. Barlow, L. C. Hunter and F. Proschan, "Optimum checking
//! procedures", 1963. The cost of the best schedule from an age on is that of the best next poll plus the cost from
//! there on, so dynamic programming over a grid of ages finds the optimum. Bisection then finds the price at which
//! polls, or delay, equal backoff's. Only an answer shows a PIN's channel, so all channels share the first poll, and
//! each has its own schedule afterwards; one price for all channels puts polls where they help most.
//!
//! Guarantees intervals within [`Limits`]. Pure. Takes milliseconds, so it must run on a thread of its own. Must not
//! know clocks or PINs.

use std::time::Duration;

use super::bins::Hazard;
use super::hazard::{Lives, Point};
use super::{Aim, CHANNELS, Channel, Cost};
use crate::backoff::Backoff;

/// The step between two points of the grid, as a share of the age.
const STEP: f64 = 0.035;

/// The shortest step, as a share of the shortest interval, and the longest step, as a share of the longest interval.
const OF_SHORTEST: f64 = 1.0 / 16.0;
const OF_LONGEST: f64 = 1.0 / 4.0;

/// The most points of the grid. A grid that would need more ends before the deadline; later intervals are the longest
/// ones.
const MAX_POINTS: usize = 4_096;

/// The range of the price, in seconds of weighted delay per poll, and the number of bisection steps.
const PRICES: (f64, f64) = (1e-3, 1e5);
const HALVINGS: usize = 20;

/// The limits of every schedule.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub shortest: Duration,
    pub longest: Duration,
    /// The age at which a PIN gets its last poll.
    pub deadline: Duration,
}

/// The input for a plan.
#[derive(Debug, Clone)]
pub struct Problem {
    pub aim: Aim,
    pub limits: Limits,
    pub backoff: Backoff,
    /// The cost that a plan may need, as a share of backoff's.
    pub budget: f64,
    /// The share of PINs and the hazard of each channel that is known well enough.
    pub channels: [Option<(f64, Hazard)>; CHANNELS],
}

/// When to poll, by age.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The price of a poll, in seconds of weighted delay.
    pub price: f64,
    /// The interval from submission to the first poll.
    pub first: Duration,
    pub channels: [Option<Schedule>; CHANNELS],
}

/// When to poll the PINs of one channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    shortest: f64,
    longest: f64,
    /// The ages of the grid, and the age of the next poll after each of them, in seconds. Both ascend.
    ages: Box<[f32]>,
    next: Box<[f32]>,
    pub forecast: Cost,
    /// The cost of backoff for the same PINs.
    pub backoff: Cost,
}

impl Problem {
    /// Returns the best schedule within the budget; `None` if there is none, if no channel is known well enough, or
    /// if the limits leave no choice.
    pub fn solve(&self) -> Option<Plan> {
        if self.limits.longest < self.limits.shortest * 2 {
            return None;
        }
        let grid = grid(&self.limits);
        let known = |(channel, known): (Channel, &Option<(f64, Hazard)>)| {
            let (share, hazard) = known.as_ref()?;
            Some(Known::new(channel, *share, Lives::of(hazard, &grid), &self.backoff))
        };
        let known: Vec<Known> = Channel::ALL.into_iter().zip(&self.channels).filter_map(known).collect();
        let mut budget = Cost::default();
        known.iter().for_each(|known| budget.add(self.budget * known.share, known.backoff));
        best(self.aim, known, budget, &self.limits)
    }
}

/// The PINs of a channel.
pub struct Known {
    channel: Channel,
    share: f64,
    lives: Lives,
    backoff: Cost,
}

impl Known {
    /// Describes a channel with this share of all PINs and these lifetimes.
    pub fn new(channel: Channel, share: f64, lives: Lives, backoff: &Backoff) -> Self {
        // A grid that had to be cut off ends before the deadline.
        let deadline = Duration::from_secs_f64(lives.points().last().map_or(0.0, |point| point.age));
        let backoff = forecast(&lives, poll_ages(deadline, |age| backoff.interval_at(age)));
        Self { channel, share, lives, backoff }
    }
}

/// The best schedule of these channels, on one grid, that needs no more than a budget; `None` if there is none.
pub fn best(aim: Aim, known: Vec<Known>, budget: Cost, limits: &Limits) -> Option<Plan> {
    if known.is_empty() {
        return None;
    }
    let (mut cheap, mut dear) = (PRICES.0.ln(), PRICES.1.ln());
    let mut best = None;
    for _ in 0..HALVINGS {
        let middle = (cheap + dear) / 2.0;
        let draft = Draft::new(&known, middle.exp(), limits);
        let needs = draft.forecast(&known);
        let is_within = match aim {
            Aim::Sooner => needs.polls <= budget.polls,
            Aim::Fewer => needs.delay <= budget.delay,
        };
        // A higher price makes fewer polls and more delay.
        if is_within == (aim == Aim::Sooner) {
            dear = middle
        } else {
            cheap = middle
        }
        if is_within {
            best = Some(draft);
        }
    }
    best.map(|draft| draft.finish(known, limits))
}

/// The best schedules at one price.
struct Draft {
    price: f64,
    first: usize,
    policies: Vec<Policy>,
}

impl Draft {
    fn new(known: &[Known], price: f64, limits: &Limits) -> Self {
        let policies: Vec<Policy> =
            known.iter().map(|known| Policy::best(&known.lives, price, limits)).collect();
        let points = known[0].lives.points();
        let cost = |first: &usize| -> f64 {
            let each = known.iter().zip(&policies).map(|(known, policy)| {
                let points = known.lives.points();
                known.share * (points[0].delay_until(&points[*first]) + policy.cost[*first])
            });
            each.sum()
        };
        let (soonest, latest) = window(points, 0, limits);
        let first = (soonest..=latest).min_by(|a, b| cost(a).total_cmp(&cost(b))).unwrap_or(soonest);
        Self { price, first, policies }
    }

    fn forecast(&self, known: &[Known]) -> Cost {
        let mut sum = Cost::default();
        for (known, policy) in known.iter().zip(&self.policies) {
            sum.add(known.share, policy.forecast(&known.lives, self.first));
        }
        sum
    }

    fn finish(self, known: Vec<Known>, limits: &Limits) -> Plan {
        let mut channels = [const { None }; CHANNELS];
        let mut first = Duration::ZERO;
        for (known, policy) in known.into_iter().zip(self.policies) {
            let points = known.lives.points();
            first = Duration::from_secs_f64(points[self.first].age);
            channels[known.channel as usize] = Some(Schedule {
                shortest: limits.shortest.as_secs_f64(),
                longest: limits.longest.as_secs_f64(),
                ages: points.iter().map(|point| point.age as f32).collect(),
                next: policy.next.iter().map(|&next| points[next].age as f32).collect(),
                forecast: policy.forecast(&known.lives, self.first),
                backoff: known.backoff,
            });
        }
        Plan { price: self.price, first: first.min(limits.longest).max(limits.shortest), channels }
    }
}

/// The best schedule from every point of the grid on.
pub struct Policy {
    /// The point of the next poll. The last point refers to itself.
    pub next: Vec<usize>,
    /// The remaining cost, multiplied by the share of PINs that are not final yet.
    pub cost: Vec<f64>,
}

impl Policy {
    /// Computes the best schedule by dynamic programming, from the last age to the first.
    pub fn best(lives: &Lives, price: f64, limits: &Limits) -> Self {
        let points = lives.points();
        let last = points.len() - 1;
        let (mut next, mut cost) = (vec![last; points.len()], vec![0.0; points.len()]);
        for now in (0..last).rev() {
            let (soonest, latest) = window(points, now, limits);
            // The best next poll never moves earlier as the age grows, so it is no later than the one of the
            // following point.
            let latest = latest.min(next[now + 1]).max(soonest);
            let from = points[now];
            let mut best = (last, f64::INFINITY);
            for poll in soonest..=latest {
                let total = from.delay_until(&points[poll]) + cost[poll];
                if total < best.1 {
                    best = (poll, total);
                }
            }
            next[now] = best.0;
            cost[now] = best.1 + price * from.survival;
        }
        Self { next, cost }
    }

    /// Returns the cost of PINs whose first poll is at this point.
    pub fn forecast(&self, lives: &Lives, first: usize) -> Cost {
        let points = lives.points();
        let mut sum = Cost::default();
        let (mut now, mut poll) = (0, first);
        while now != poll {
            sum.polls += points[now].survival;
            sum.delay += points[now].delay_until(&points[poll]);
            (now, poll) = (poll, self.next[poll]);
        }
        sum
    }
}

/// Returns the ages at which a schedule polls, up to the deadline.
pub fn poll_ages(
    deadline: Duration,
    interval_at: impl Fn(Duration) -> Duration,
) -> impl Iterator<Item = Duration> {
    let next = move |age: &Duration| {
        let interval = interval_at(*age).max(Duration::from_millis(1));
        (*age < deadline).then(|| age.saturating_add(interval).min(deadline))
    };
    std::iter::successors(Some(Duration::ZERO), next).skip(1)
}

/// Returns the cost of PINs that are polled at these ages.
pub fn forecast(lives: &Lives, polls: impl Iterator<Item = Duration>) -> Cost {
    let mut sum = Cost::default();
    let mut now = lives.at(0.0);
    for poll in polls {
        let poll = lives.at(poll.as_secs_f64());
        sum.add(1.0, Cost { polls: now.survival, delay: now.delay_until(&poll) });
        now = poll;
    }
    sum
}

/// Returns the first and the last point at which the poll after this one may be.
fn window(points: &[Point], now: usize, limits: &Limits) -> (usize, usize) {
    let age_after = |interval: Duration| points[now].age + interval.as_secs_f64();
    let (soonest, latest) =
        (age_after(limits.shortest) * (1.0 - 1e-9), age_after(limits.longest) * (1.0 + 1e-9));
    let soonest = points.partition_point(|point| point.age < soonest).min(points.len() - 1);
    let latest = points.partition_point(|point| point.age <= latest) - 1;
    (soonest, latest.max(soonest))
}

/// Returns the ages among which schedules choose, in seconds.
pub fn grid(limits: &Limits) -> Vec<f64> {
    let deadline = limits.deadline.as_secs_f64().max(1e-3);
    let least = limits.shortest.as_secs_f64().max(1e-3) * OF_SHORTEST;
    let most = (limits.longest.as_secs_f64() * OF_LONGEST).max(least);
    let mut ages = vec![0.0];
    let mut age: f64 = 0.0;
    while age < deadline && ages.len() < MAX_POINTS {
        age = (age + (age * STEP).clamp(least, most)).min(deadline);
        ages.push(age);
    }
    ages
}

impl Schedule {
    /// Returns the interval from a poll at this age to the next one.
    pub fn interval_at(&self, age: Duration) -> Duration {
        let age = age.as_secs_f64();
        let last = self.ages.len() - 1;
        let right = self.ages.partition_point(|&point| f64::from(point) <= age).min(last);
        let at = |n: usize| (f64::from(self.ages[n]), f64::from(self.next[n]));
        let ((left, sooner), (right, later)) = (at(right.saturating_sub(1)), at(right));
        // The last poll is at the PIN's own deadline, which limits this interval elsewhere.
        let interval = if later >= at(last).0 || right <= left {
            self.longest
        } else {
            sooner + (later - sooner) * (age - left) / (right - left) - age
        };
        Duration::from_secs_f64(interval.clamp(self.shortest, self.longest.max(self.shortest)))
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
