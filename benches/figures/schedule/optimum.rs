//! The best schedule for whoever knows the distribution of lives, and what schedules cost.

use std::time::Duration;

use pinwatch::schedule::learn::hazard::Lives;
use pinwatch::schedule::learn::plan::{self, Known, Plan};
use pinwatch::schedule::learn::{Aim, Channel, Cost};

use super::lives::{Drawn, Population};
use super::run::{DEADLINE, Fate, Settings};

/// The distribution is known by so many lives, others than those that are polled.
const KNOWN: usize = 200_000;

/// The seed of those lives.
const SEED: u64 = u64::MAX;

/// The best schedule that needs no more than a budget: no more polls, or no more delay. It knows the distribution as it is
/// after the middle, but no single life, and has no jitter.
pub fn optimum(population: Population, aim: Aim, budget: Cost, settings: &Settings) -> Plan {
    let limits = settings.limits();
    let (grid, drawn) = (plan::grid(&limits), population.draw_late(KNOWN, SEED));
    let known = [Channel::Sms, Channel::Call].into_iter().filter_map(|channel| {
        let of_channel = drawn.iter().filter(|pin| pin.channel == channel);
        let mut ends: Vec<f64> = of_channel.map(|pin| pin.final_at).collect();
        ends.sort_by(f64::total_cmp);
        let count = ends.len() as f64;
        let is_final = |age: f64| ends.partition_point(|&end| end <= age) as f64 / count;
        let lives = Lives::new(&grid, |age| 1.0 - is_final(age));
        (count > 0.0).then(|| Known::new(channel, count / KNOWN as f64, lives, &settings.backoff()))
    });
    plan::best(aim, known.collect(), budget, &limits).expect("a schedule within the budget")
}

/// The ages at which a plan polls a channel's PINs, in seconds.
pub fn ages(plan: &Plan, channel: Channel) -> Option<Vec<f64>> {
    let schedule = plan.channels[channel as usize].as_ref()?;
    let interval_at = |age: Duration| if age.is_zero() { plan.first } else { schedule.interval_at(age) };
    Some(plan::poll_ages(DEADLINE, interval_at).map(|age| age.as_secs_f64()).collect())
}

/// What these PINs cost by a plan.
pub fn by_plan(plan: &Plan, pins: &[Drawn]) -> Vec<Fate> {
    let ages = Channel::ALL.map(|channel| ages(plan, channel));
    let fate = |pin: &Drawn| {
        let ages = ages[pin.channel as usize].as_ref().expect("its channel is in the plan");
        let poll = ages.partition_point(|&age| age < pin.final_at).min(ages.len() - 1);
        Fate::new((poll + 1) as f64, pin.final_at, ages[poll])
    };
    pins.iter().map(fate).collect()
}

/// What a PIN costs on average.
pub fn mean(fates: &[Fate]) -> Cost {
    let mut mean = Cost::default();
    let share = 1.0 / fates.len() as f64;
    fates.iter().for_each(|fate| mean.add(share, Cost { polls: fate.polls, delay: fate.weighted }));
    mean
}

/// The greatest ratio of costs, at a price, over so many PINs that were submitted one after the other.
pub fn worst(ours: &[Fate], theirs: &[Fate], price: f64, window: usize) -> f64 {
    let sums = |fates: &[Fate]| -> Vec<f64> {
        let costs = fates.iter().map(|fate| price * fate.polls + fate.weighted);
        std::iter::once(0.0)
            .chain(costs.scan(0.0, |sum, cost| {
                *sum += cost;
                Some(*sum)
            }))
            .collect()
    };
    let (ours, theirs) = (sums(ours), sums(theirs));
    let ratios = (window..ours.len()).map(|end| {
        let begin = end - window;
        (ours[end] - ours[begin]) / (theirs[end] - theirs[begin])
    });
    ratios.fold(0.0, f64::max)
}
