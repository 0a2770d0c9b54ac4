//! What learned schedules cost, beside backoff and beside the optimum, for the same PINs.

use pinwatch::schedule::learn::{Aim, Cost};

use super::lives::Population;
use super::optimum::{by_plan, mean, optimum, worst};
use super::run::{Fate, Run, Settings, run};

/// Windows of so many PINs, submitted one after the other, are looked at.
const WINDOW: usize = 2_000;

/// One learned schedule. Means are of the PINs that were submitted after a quarter of all had ended; where lives change in
/// the middle, of the last quarter.
pub struct Compared {
    pub backoff: Cost,
    pub learned: Cost,
    pub optimum: Cost,
    /// What a poll costs the optimum, in seconds of weighted delay.
    pub price: f64,
    /// The cost over the worst 2,000 PINs in a row, to backoff's.
    pub worst: f64,
    /// Polls of all PINs from the first on, to backoff's; and of the first 2,000.
    pub polls_of_all: f64,
    pub polls_of_first: f64,
}

impl Compared {
    /// Price times polls plus weighted delay, to the optimum's.
    pub fn to_optimum(&self) -> f64 {
        self.learned.at(self.price) / self.optimum.at(self.price)
    }

    /// Polls, to backoff's.
    pub fn polls(&self) -> f64 {
        self.learned.polls / self.backoff.polls
    }

    /// Weighted delay, to backoff's.
    pub fn delay(&self) -> f64 {
        self.learned.delay / self.backoff.delay
    }
}

fn first(fates: &[Fate]) -> &[Fate] {
    &fates[..WINDOW.min(fates.len())]
}

/// Both kinds of learned schedule ("sooner", "fewer"), and the run by backoff.
pub fn compare(population: Population, count: usize, settings: &Settings) -> ([Compared; 2], Run) {
    let pins = population.draw(count, settings.seed);
    let backoff = run(&pins, settings);
    let compared = [Aim::Sooner, Aim::Fewer].map(|aim| {
        let learned = run(&pins, &settings.adapt(aim)).fates;
        let is_settled = |fate: &Fate| fate.endings_before >= count / 4;
        let from = if population.drifts() {
            count * 3 / 4
        } else {
            learned.iter().position(is_settled).unwrap_or(0)
        };
        let budget = mean(&backoff.fates[from..]);
        let plan = optimum(population, aim, budget, settings);
        Compared {
            backoff: budget,
            learned: mean(&learned[from..]),
            optimum: mean(&by_plan(&plan, &pins[from..])),
            price: plan.price,
            worst: worst(&learned, &backoff.fates, plan.price, WINDOW.min(count)),
            polls_of_all: mean(&learned).polls / mean(&backoff.fates).polls,
            polls_of_first: mean(first(&learned)).polls / mean(first(&backoff.fates)).polls,
        }
    });
    (compared, backoff)
}
