//! The rules of delivery, proved over simulated days.

use std::time::Duration;

use super::gate::ENOUGH;
use super::response::{Answer, Wait};
use super::state::{MAX_RETRYING, Rules};
use super::world::{HOUR, RULES, SECOND, World, at, held, later};
use crate::clock::Moment;
use crate::store::Failed;

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
    assert_eq!(world.cursor, 5, "the cursor stays where it was when the trouble was known");
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
        assert!(world.dead().is_empty());
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
    let mut world = World::new(RULES, move |_, now| {
        turn += 1;
        if turn % 4 == 0 || now > at(HOUR) { Answer::Delivered } else { later() }
    });
    world.newest = 5000;
    world.run_until(HOUR / 2);
    assert!((900..=MAX_RETRYING + 8).contains(&world.most_failed), "{}", world.most_failed);
    world.run_until(2 * HOUR);
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
    for seed in 0..60 {
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
