use proptest::prelude::*;

use super::super::Cost;
use super::super::bins::{BINS, Hazard};
use super::*;

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn limits(shortest: f64, longest: f64, deadline: f64) -> Limits {
    Limits { shortest: seconds(shortest), longest: seconds(longest), deadline: seconds(deadline) }
}

fn defaults() -> (Backoff, Limits) {
    (Backoff::new(seconds(1.0), 1.5, seconds(3600.0), 0.2), limits(1.0, 3600.0, 172_800.0))
}

/// Returns the share of standard normal numbers below `z`, by Simpson's rule.
fn normal(z: f64) -> f64 {
    let (z, steps) = (z.clamp(-8.0, 8.0), 400);
    let width = (z + 8.0) / f64::from(steps);
    let density = |n: i32| (-0.5 * (f64::from(n) * width - 8.0).powi(2)).exp();
    let weight = |n: i32| {
        if n == 0 || n == steps {
            1.0
        } else if n % 2 == 1 {
            4.0
        } else {
            2.0
        }
    };
    (0..=steps).map(|n| weight(n) * density(n)).sum::<f64>() * width / 3.0 / std::f64::consts::TAU.sqrt()
}

/// Returns the exact survival function of the study's lifetimes.
fn study(kind: &str) -> impl Fn(f64) -> f64 {
    let (median, sigma, slow) = match kind {
        "sms" => (4.0, 1.0, 0.05),
        "mixed" => (6.0, 1.5, 0.10),
        _ => (35.0, 0.5, 0.05),
    };
    let below = |age: f64, median: f64, sigma: f64| normal((age.max(1e-9) / median).ln() / sigma);
    move |age| match age {
        ..172_000.0 => 1.0 - (1.0 - slow) * below(age, median, sigma) - slow * below(age, 3600.0, 1.5),
        _ => 0.0,
    }
}

/// Polls and weighted delay of the study's own optimum, as `tests/schedule/study-figures.py` prints them. 2026-11-28, with
/// numpy 1.24.
const STUDY: [(&str, f64, f64, f64); 9] = [
    ("sms", 0.5, 5.3060, 2.3735),
    ("sms", 1.0, 4.1006, 3.2239),
    ("sms", 8.0, 2.0970, 8.5503),
    ("mixed", 0.5, 9.0275, 4.2645),
    ("mixed", 1.0, 6.9236, 5.7382),
    ("mixed", 8.0, 3.1716, 15.7774),
    ("call", 0.5, 7.7382, 3.7283),
    ("call", 1.0, 5.7255, 5.1387),
    ("call", 8.0, 2.5273, 13.6959),
];

#[test]
fn the_optimum_agrees_with_the_study_within_one_percent() {
    let (_, limits) = defaults();
    let grid = grid(&limits);
    for (kind, price, polls, delay) in STUDY {
        let lives = Lives::new(&grid, study(kind));
        let policy = Policy::best(&lives, price, &limits);
        let own = policy.forecast(&lives, policy.next[0]);
        let (cost, expected) = (own.at(price), price * polls + delay);
        assert!(
            (cost / expected - 1.0).abs() < 0.01,
            "{kind} at {price}: {own:?}, in the study {polls} {delay}"
        );
        assert!((policy.cost[0] / cost - 1.0).abs() < 1e-9, "the cost to go is the cost of going");
    }
}

#[test]
fn backoff_costs_as_many_polls_and_as_much_delay_as_in_the_study() {
    let (backoff, limits) = defaults();
    let grid = grid(&limits);
    for (kind, polls, delay) in
        [("sms", 4.2892, 7.9413), ("mixed", 5.9570, 15.9867), ("call", 8.3273, 14.8153)]
    {
        let ages = poll_ages(limits.deadline, |age| backoff.interval_at(age));
        let own = forecast(&Lives::new(&grid, study(kind)), ages);
        assert!((own.polls / polls - 1.0).abs() < 0.01, "{kind}: {own:?}");
        assert!((own.delay / delay - 1.0).abs() < 0.01, "{kind}: {own:?}");
    }
}

/// Returns the lowest cost from a point to the last one, by trying every choice. If no point is within the limits,
/// the next poll is at the first point that is not too early.
fn by_brute_force(lives: &Lives, price: f64, (shortest, longest): (f64, f64), now: usize) -> f64 {
    let points = lives.points();
    let last = points.len() - 1;
    if now == last {
        return 0.0;
    }
    let gap = |poll: usize| points[poll].age - points[now].age;
    let mut polls: Vec<usize> =
        (now + 1..=last).filter(|poll| (shortest..=longest).contains(&gap(*poll))).collect();
    if polls.is_empty() {
        polls.push((now + 1..=last).find(|poll| gap(*poll) >= shortest).unwrap_or(last));
    }
    let rest = polls.into_iter().map(|poll| {
        points[now].delay_until(&points[poll]) + by_brute_force(lives, price, (shortest, longest), poll)
    });
    price * points[now].survival + rest.fold(f64::INFINITY, f64::min)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn on_small_grids_brute_force_finds_nothing_better(
        steps in prop::collection::vec(0.2..3.0f64, 1..14),
        ends in prop::collection::vec(0.0..1.0f64, 15),
        price in 0.001..10.0f64, shortest in 0.1..3.0f64, longest in 1.0..8.0f64,
    ) {
        let grid: Vec<f64> = std::iter::once(0.0)
            .chain(steps.iter().scan(0.0, |age, step| { *age += step; Some(*age) }))
            .collect();
        let (total, last) = (ends.iter().sum::<f64>() + 0.01, grid.len());
        let lives = Lives::new(&grid, |age| {
            let passed = grid.iter().take(last).filter(|point| **point < age).count();
            1.0 - ends[..passed].iter().sum::<f64>() / total
        });
        let own = Policy::best(&lives, price, &limits(shortest, longest, grid[last - 1])).cost[0];
        let brute = by_brute_force(&lives, price, (shortest, longest), 0);
        prop_assert!((own - brute).abs() <= 1e-9 * brute.max(1.0), "{own} and {brute}");
    }

    #[test]
    fn a_schedule_stays_within_its_limits_and_its_next_polls_ascend(
        (shortest, longest, deadline) in (0.01..100.0f64, 0.5..10_000.0f64, 1.0..1e6f64),
        rates in prop::collection::vec(-12.0..1.0f64, BINS), share in 0.1..0.9f64,
        multiplier in 1.0..3.0f64, is_sooner: bool,
        ages in prop::collection::vec(0.0..2e6f64, 50),
    ) {
        let limits = limits(shortest, longest, deadline);
        let backoff = Backoff::new(limits.shortest, multiplier, limits.longest, 0.2);
        let hazard = |shift: usize| Hazard(std::array::from_fn(|bin| 10_f64.powf(rates[(bin + shift) % BINS])));
        let problem = Problem {
            aim: if is_sooner { Aim::Sooner } else { Aim::Fewer },
            limits,
            backoff: backoff.clone(),
            budget: 1.0,
            channels: [Some((share, hazard(0))), Some((1.0 - share, hazard(7))), None],
        };
        let Some(plan) = problem.solve() else { return Ok(()) };
        let (mut own, mut old) = (Cost::default(), Cost::default());
        let bounds = limits.shortest.min(limits.longest)..=limits.longest.max(limits.shortest);
        prop_assert!(bounds.contains(&plan.first));
        for (schedule, share) in plan.channels.iter().flatten().zip([share, 1.0 - share]) {
            own.add(share, schedule.forecast);
            old.add(share, schedule.backoff);
            let mut ages = ages.clone();
            ages.sort_by(f64::total_cmp);
            let mut before = Duration::ZERO;
            for age in ages.into_iter().map(seconds) {
                let interval = schedule.interval_at(age);
                prop_assert!(bounds.contains(&interval), "{interval:?} at {age:?}");
                let next = age + interval;
                prop_assert!(next + Duration::from_millis(1) >= before.min(limits.deadline), "at {age:?}");
                before = next;
            }
            let polls: Vec<Duration> = poll_ages(limits.deadline, |age| schedule.interval_at(age)).take(9_999).collect();
            prop_assert!(polls.is_sorted_by(|one, next| one < next));
        }
        match problem.aim {
            Aim::Sooner => prop_assert!(own.polls <= old.polls * (1.0 + 1e-9), "{own:?} {old:?}"),
            Aim::Fewer => prop_assert!(own.delay <= old.delay * (1.0 + 1e-9), "{own:?} {old:?}"),
        }
    }
}

#[test]
fn none_of_a_thousand_random_schedules_is_better_than_the_optimum() {
    let (_, limits) = defaults();
    let grid = grid(&limits);
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for (kind, price) in [("sms", 1.0), ("mixed", 8.0), ("call", 0.5), ("call", 8.0)] {
        let lives = Lives::new(&grid, study(kind));
        let policy = Policy::best(&lives, price, &limits);
        let best = policy.forecast(&lives, policy.next[0]).at(price);
        for n in 0..1_000 {
            // Half of them are slightly changed optima; the others are arbitrary.
            let (near, spread) = (n % 2 == 0, random.f64());
            let stretch = (random.f64() - 0.5).exp();
            let mut drawn = random.fork();
            let draws = std::cell::RefCell::new(&mut drawn);
            let interval_at = |age: Duration| {
                let draw = (spread * (draws.borrow_mut().f64() - 0.5)).exp();
                let age = age.as_secs_f64();
                let interval = if near {
                    let point = grid.partition_point(|point| *point < age).min(grid.len() - 1);
                    (grid[policy.next[point]] - age) * draw
                } else {
                    (0.3 * age + 1.0) * stretch * draw.powi(4)
                };
                seconds(interval.clamp(1.0, 3600.0))
            };
            let other = forecast(&lives, poll_ages(limits.deadline, interval_at)).at(price);
            assert!(other >= best * 0.998, "{kind} at {price}, seed {seed}: {other} is less than {best}");
        }
    }
}

#[test]
fn the_first_poll_serves_all_channels() {
    let (_, limits) = defaults();
    let grid = grid(&limits);
    // All SMS become final at three seconds and all calls at a minute; both have the same first poll.
    let sharp = |age: f64| {
        Hazard(std::array::from_fn(|bin| {
            let (begins, ends) = super::super::bins::bounds(bin);
            if (begins..ends).contains(&age) { 20.0 / (ends - begins) } else { 1e-6 }
        }))
    };
    let first = |sms: f64| {
        let known =
            [(Channel::Sms, sms, 3.2), (Channel::Call, 1.0 - sms, 60.0)].map(|(channel, share, age)| {
                let (lives, backoff) = (Lives::of(&sharp(age), &grid), Cost::default());
                Known { channel, share, lives, backoff }
            });
        grid[Draft::new(&known, 10.0, &limits).first]
    };
    let (mostly_sms, mostly_calls) = (first(0.99), first(0.01));
    assert!((2.5..6.0).contains(&mostly_sms) && mostly_calls > 20.0, "{mostly_sms}, {mostly_calls}");
}

#[test]
fn limits_that_leave_no_choice_make_no_plan() {
    let limits = limits(1.0, 1.0, 600.0);
    let backoff = Backoff::new(limits.shortest, 1.0, limits.longest, 0.2);
    let channels = [Some((1.0, Hazard([0.1; BINS]))), None, None];
    let problem = Problem { aim: Aim::Sooner, limits, backoff, budget: 0.97, channels };
    assert!(problem.solve().is_none());
}

#[test]
fn before_any_evidence_backoff_is_nearly_the_best_schedule() {
    let (backoff, limits) = defaults();
    let prior = super::super::hazard::prior(&backoff, limits.deadline);
    for aim in [Aim::Sooner, Aim::Fewer] {
        let channels = [Some((1.0, prior.clone())), None, None];
        let plan =
            Problem { aim, limits, backoff: backoff.clone(), budget: 1.0, channels }.solve().expect("a plan");
        let schedule = plan.channels[0].as_ref().expect("a schedule");
        let (own, old) = (schedule.forecast.at(plan.price), schedule.backoff.at(plan.price));
        assert!(own <= old && own > 0.9 * old, "{own} beside backoff's {old}");
    }
}

#[test]
fn a_plan_costs_as_many_polls_and_as_much_delay_as_it_predicts() {
    let (backoff, limits) = defaults();
    let grid = grid(&limits);
    for aim in [Aim::Sooner, Aim::Fewer] {
        // The constant hazard is so low that the longest interval matters.
        let hazard = Hazard([2e-5; BINS]);
        let problem = Problem {
            aim,
            limits,
            backoff: backoff.clone(),
            budget: 1.0,
            channels: [None, Some((1.0, hazard.clone())), None],
        };
        let plan = problem.solve().expect("a plan");
        let schedule = plan.channels[Channel::Call as usize].as_ref().expect("a schedule");
        let interval_at = |age: Duration| if age.is_zero() { plan.first } else { schedule.interval_at(age) };
        let walked = forecast(&Lives::of(&hazard, &grid), poll_ages(limits.deadline, interval_at));
        assert!(
            (walked.polls / schedule.forecast.polls - 1.0).abs() < 0.01,
            "{walked:?} {:?}",
            schedule.forecast
        );
        assert!(
            (walked.delay / schedule.forecast.delay - 1.0).abs() < 0.01,
            "{walked:?} {:?}",
            schedule.forecast
        );
    }
}
