//! Estimates a hazard from counts, and computes survival and delay from a hazard.
//!
//! The estimate begins with the hazard for which the configured backoff is the best schedule, as if a few PINs with
//! that hazard had been seen. A bin with too few endings is combined with its neighbours. Guarantees a hazard above
//! zero at every age. Pure. Must not know how a schedule is chosen.

use std::time::Duration;

use super::bins::{self, BINS, Counts, Hazard};
use crate::backoff::Backoff;

/// The number of PINs that the estimate assumes before any evidence.
const PRIOR_PINS: f64 = 20.0;

/// The share of PINs that live to the deadline under the hazard before any evidence.
const PRIOR_UNENDING: f64 = 0.05;

/// A bin is combined with its neighbours until they hold this many endings, or until this many PINs passed through
/// it.
const ENOUGH_EVENTS: f64 = 10.0;
const ENOUGH_AT_RISK: f64 = 200.0;

/// The most neighbours on each side that are combined.
const REACH: usize = 4;

/// Returns the weight of a second of delay at this age: a PIN that is an hour old is of little use. A PIN is valid
/// for 15 minutes by default.
pub fn value(age: f64) -> f64 {
    1.0 / (1.0 + age / 900.0)
}

/// Returns the hazard for which backoff is the best schedule.
///
/// Polls at an interval x cost price / x per second, and their delay costs value * hazard * x / 2; so x is best where
/// hazard = 2 * price / (value * x * x). The price is the one with which the share `PRIOR_UNENDING` of PINs lives
/// to the deadline.
pub fn prior(backoff: &Backoff, deadline: Duration) -> Hazard {
    let mut hazard = Hazard(std::array::from_fn(|bin| {
        let (begins, ends) = bins::bounds(bin);
        let age = (begins + ends) / 2.0;
        let interval = backoff.interval_at(Duration::from_secs_f64(age)).as_secs_f64().max(1e-3);
        1.0 / (value(age) * interval * interval)
    }));
    let total: f64 = bins::pieces(0.0, deadline.as_secs_f64().max(1.0))
        .map(|(bin, _, length)| hazard.0[bin] * length)
        .sum();
    hazard.0.iter_mut().for_each(|rate| *rate *= -PRIOR_UNENDING.ln() / total);
    hazard
}

/// Estimates the hazard from counts, beginning with a prior one.
pub fn estimate(counts: &Counts, prior: &Hazard) -> Hazard {
    let mut alive = PRIOR_PINS;
    let (mut events, mut exposure) = (counts.events, counts.exposure);
    for bin in 0..BINS {
        let (begins, ends) = bins::bounds(bin);
        let ending = alive * -(-prior.0[bin] * (ends - begins)).exp_m1();
        alive -= ending;
        events[bin] += ending;
        exposure[bin] += ending / prior.0[bin];
    }
    Hazard(std::array::from_fn(|bin| {
        let (begins, ends) = bins::bounds(bin);
        let sum = |reach: usize| {
            let near = bin.saturating_sub(reach)..=(bin + reach).min(BINS - 1);
            (events[near.clone()].iter().sum::<f64>(), exposure[near].iter().sum::<f64>())
        };
        let is_enough =
            |events: f64| events >= ENOUGH_EVENTS || exposure[bin] >= ENOUGH_AT_RISK * (ends - begins);
        let (events, exposure) =
            (0..REACH).map(sum).find(|&(events, _)| is_enough(events)).unwrap_or_else(|| sum(REACH));
        if exposure > 0.0 { (events / exposure).max(1e-12) } else { prior.0[bin] }
    }))
}

/// The distribution of lifetimes: survival, and the sums that give the cost of delay, at each age of a grid.
#[derive(Debug, Clone)]
pub struct Lives {
    points: Vec<Point>,
}

/// Sums over the PINs that became final up to an age.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    pub age: f64,
    /// The share of PINs that are not final yet.
    pub survival: f64,
    /// The sum of the weights of a second for each PIN, and the sum of weight times lifetime.
    value: f64,
    moment: f64,
}

impl Point {
    /// Returns the weighted delay, in seconds, of the PINs that become final from here to a poll at `to`.
    pub fn delay_until(&self, to: &Self) -> f64 {
        to.age * (to.value - self.value) - (to.moment - self.moment)
    }
}

impl Lives {
    /// Makes lifetimes from a function that gives the share of PINs not final at an age.
    pub fn new(grid: &[f64], survival: impl Fn(f64) -> f64) -> Self {
        let mut point = Point { age: 0.0, survival: 1.0, value: 0.0, moment: 0.0 };
        let points = grid.iter().map(|&age| {
            let (middle, survival) = ((point.age + age) / 2.0, survival(age).min(point.survival));
            let valued = (point.survival - survival) * value(middle);
            point =
                Point { age, survival, value: point.value + valued, moment: point.moment + valued * middle };
            point
        });
        Self { points: points.collect() }
    }

    /// Makes the lifetimes that a hazard implies.
    pub fn of(hazard: &Hazard, grid: &[f64]) -> Self {
        let mut risk = 0.0;
        let mut before = 0.0;
        let risks: Vec<f64> = grid
            .iter()
            .map(|&age| {
                risk += bins::pieces(before, age).map(|(bin, _, length)| hazard.0[bin] * length).sum::<f64>();
                before = age;
                risk
            })
            .collect();
        Self::new(grid, |age| (-risks[grid.partition_point(|&point| point < age)]).exp())
    }

    /// Returns the points of the grid.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Returns the sums at any age; between two points of the grid, PINs become final evenly.
    pub fn at(&self, age: f64) -> Point {
        let next = self.points.partition_point(|point| point.age < age).clamp(1, self.points.len() - 1);
        let (left, right) = (self.points[next - 1], self.points[next]);
        let age = age.clamp(left.age, right.age);
        let share = (age - left.age) / (right.age - left.age);
        let valued = share * (right.value - left.value);
        Point {
            age,
            survival: left.survival + share * (right.survival - left.survival),
            value: left.value + valued,
            moment: left.moment + valued * (left.age + age) / 2.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prior_of_defaults() -> Hazard {
        let seconds = Duration::from_secs;
        prior(&Backoff::new(seconds(1), 1.5, seconds(3600), 0.2), seconds(172_800))
    }

    /// Lifetimes with a constant hazard, polled at intervals that grow by half, and observed until the age `until`.
    fn seen(rate: f64, pins: usize, until: f64, counts: &mut Counts) {
        let mut random = fastrand::Rng::with_seed(9);
        let mut hazard = prior_of_defaults();
        for n in 0..pins {
            if n % 100 == 0 {
                hazard = estimate(counts, &prior_of_defaults());
            }
            let life = -(1.0 - random.f64()).ln() / rate;
            let (mut from, mut interval) = (0.0, 1.0);
            while from < until {
                let to = from + interval * (0.8 + 0.4 * random.f64());
                if life <= to {
                    counts.add_ending(from, to, &hazard);
                    break;
                }
                counts.add_exposure(from, to);
                (from, interval) = (to, interval * 1.5);
            }
        }
    }

    #[test]
    fn the_hazard_is_estimated_correctly_from_intervals() {
        let mut counts = Counts::default();
        seen(0.1, 8_000, f64::INFINITY, &mut counts);
        let found = estimate(&counts, &prior_of_defaults());
        for age in [1.0, 2.0, 5.0, 10.0, 20.0] {
            let rate = found.0[bins::bin_of(age)];
            assert!((rate / 0.1 - 1.0).abs() < 0.2, "{rate} at {age} s");
        }
    }

    #[test]
    fn pins_in_flight_count_for_the_estimate() {
        let mut counts = Counts::default();
        // Nine of ten PINs are still in flight when observation ends.
        seen(0.01, 20_000, 9.0, &mut counts);
        let rate = estimate(&counts, &prior_of_defaults()).0[bins::bin_of(5.0)];
        assert!((rate / 0.01 - 1.0).abs() < 0.3, "{rate}");
    }

    #[test]
    fn without_evidence_the_estimate_is_the_prior() {
        let prior = prior_of_defaults();
        let found = estimate(&Counts::default(), &prior);
        let lives = Lives::of(&found, &[0.0, 60.0, 3_600.0, 172_800.0]);
        let survival = lives.points()[3].survival;
        assert!((survival / PRIOR_UNENDING - 1.0).abs() < 0.2, "{survival}");
    }

    #[test]
    fn survival_and_delay_are_exact_for_a_constant_hazard() {
        let grid: Vec<f64> = (0..=1_000).map(|n| f64::from(n) / 50.0).collect();
        let lives = Lives::of(&Hazard([0.2; BINS]), &grid);
        assert!((lives.at(5.0).survival - (-1.0_f64).exp()).abs() < 1e-9);
        // The mean delay until 10 s is the integral of the share that is final; its weight is slightly below one.
        let delay = lives.at(0.0).delay_until(&lives.at(10.0));
        let exact = 10.0 - (1.0 - (-2.0_f64).exp()) / 0.2;
        assert!(delay < exact && delay > exact * value(10.0), "{delay} of {exact}");
    }
}
