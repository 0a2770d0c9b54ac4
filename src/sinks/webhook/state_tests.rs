//! Tests the rules of delivery over simulated days.

use std::time::Duration;

use super::circuit_breaker::{ENOUGH, ENOUGH_REFUSED};
use super::response::{Answer, Wait};
use super::simulation::{HOUR, RULES, SECOND, Simulation, at, held, later, refused, unreachable};
use super::state::{MAX_RETRYING, Rules};
use crate::clock::Moment;
use crate::store::Failed;

#[test]
fn an_endpoint_that_was_down_for_a_day_gets_every_outcome() {
    let day = 24 * HOUR;
    let rules = Rules { max_age: 2 * day, ..RULES };
    let mut simulation = Simulation::new(rules, move |_, now| match now < at(day) {
        true => unreachable(),
        false => Answer::Delivered,
    });
    // A PIN ends every second.
    for second in 0..86_400 {
        simulation.newest += 1;
        simulation.run_until(second * SECOND);
    }
    assert_eq!(simulation.cursor, 5, "the cursor stays where it was when the trouble was known");
    assert!(
        simulation.most_failed < ENOUGH + rules.concurrency,
        "{} rows were written",
        simulation.most_failed
    );
    assert!(simulation.tries.len() < 86_400 / 40 + 20, "{} tries", simulation.tries.len());
    assert!(simulation.state.trouble().is_some());
    let probes = simulation.tries.len();
    simulation.run_until(day + HOUR);
    simulation.assert_all_received();
    assert_eq!(simulation.state.trouble(), None);
    println!("{probes} tries in a day, {} in all for {} outcomes", simulation.tries.len(), simulation.newest);
    // One probe a minute to notice the recovery, and one try for each outcome.
    assert!(simulation.tries.len() <= probes + usize::try_from(simulation.newest).unwrap() + 1);
}

#[test]
fn the_next_attempt_and_since_when_the_circuit_is_open_are_known() {
    let up_at = at(HOUR);
    let mut simulation = Simulation::new(RULES, move |seqs, now| match now < up_at || seqs == [3] {
        true => later(),
        false => Answer::Delivered,
    });
    assert_eq!(
        (simulation.state.next_attempt(simulation.now().moment), simulation.state.open_since()),
        (None, None)
    );
    simulation.newest = 100;
    simulation.run_until(HOUR / 2);
    let (next, since) = (
        simulation.state.next_attempt(simulation.now().moment).unwrap(),
        simulation.state.open_since().unwrap(),
    );
    assert!(since < at(60 * SECOND), "it opened soon, and stays open through all probes");
    assert!(next >= at(HOUR / 2) && next <= at(HOUR / 2 + 60 * SECOND), "{next:?}");
    for millis in 0..70_000 {
        simulation.run_until(HOUR / 2 + Duration::from_millis(millis));
        let next = simulation.state.next_attempt(simulation.now().moment);
        assert!(next.is_some(), "also known while a probe runs");
    }
    simulation.run_until(HOUR + 200 * SECOND);
    assert_eq!(simulation.state.open_since(), None);
    let next = simulation.state.next_attempt(simulation.now().moment).expect("one outcome is retried");
    assert!(next >= at(HOUR + 200 * SECOND), "{next:?}");
    simulation.run_until(48 * HOUR);
    assert_eq!((simulation.dead(), simulation.state.next_attempt(simulation.now().moment)), (vec![3], None));
}

#[test]
fn an_outage_longer_than_max_age_costs_only_outcomes_tried_before_it_was_noticed() {
    let mut simulation =
        Simulation::new(RULES, |_, now| if now < at(72 * HOUR) { later() } else { Answer::Delivered });
    simulation.newest = 5000;
    simulation.run_until(80 * HOUR);
    let dead = simulation.dead();
    assert!((ENOUGH..=RULES.concurrency).contains(&dead.len()), "{dead:?}");
    assert_eq!(simulation.received.len() + dead.len(), 5000);
    for seq in dead {
        assert!(simulation.tries_of(seq) > 1 && !simulation.received.contains(&seq));
        let row = &simulation.failed[&seq];
        assert!(row.first_try_at.is_some() && row.error.is_some());
    }
}

#[test]
fn an_endpoint_unreachable_for_longer_than_max_age_loses_no_outcome() {
    for batch in [1, 100] {
        let rules = Rules { batch, ..RULES };
        let mut simulation = Simulation::new(rules, |_, now| match now < at(100 * HOUR) {
            true => unreachable(),
            false => Answer::Delivered,
        });
        simulation.newest = 5000;
        simulation.run_until(99 * HOUR);
        assert!(simulation.state.trouble().is_some());
        let probes = simulation.tries.len();
        simulation.run_until(110 * HOUR);
        simulation.assert_all_received();
        let after = simulation.tries.len() - probes;
        assert!(after < 5000 / batch + 150, "{after} requests: the number of outcomes is not why it failed");
    }
}

#[test]
fn one_failing_outcome_blocks_no_other_and_is_given_up_after_max_age() {
    for concurrency in [1, 8] {
        let rules = Rules { concurrency, ..RULES };
        let mut simulation =
            Simulation::new(rules, |seqs, _| if seqs == [3] { later() } else { Answer::Delivered });
        simulation.newest = 1000;
        simulation.run_until(1000 * SECOND);
        assert_eq!((simulation.received.len(), simulation.cursor), (999, 1000), "all others are there soon");
        assert!(simulation.tries_of(3) < 20, "and it is tried with backoff");
        assert!(simulation.dead().is_empty());
        simulation.run_until(25 * HOUR);
        assert_eq!(simulation.dead(), [3]);
        let row = &simulation.failed[&3];
        let age = row.last_try_at.unwrap().wall.duration_since(row.first_try_at.unwrap().wall);
        assert_eq!(age.as_hours(), 24, "the last try is when its time is up");
        assert!((280..500).contains(&row.tries), "{}", row.tries);
        assert!(!simulation.advance(at(100 * HOUR)), "a dead letter is not tried again");
    }
}

#[test]
fn a_burst_of_failing_outcomes_does_not_block_the_others_for_ever() {
    let mut simulation =
        Simulation::new(RULES, |seqs, _| if seqs[0] <= 60 { later() } else { Answer::Delivered });
    simulation.newest = 5000;
    simulation.run_until(2 * HOUR);
    assert_eq!(simulation.received.len(), 4940);
    simulation.run_until(30 * HOUR);
    assert_eq!(simulation.dead(), (1..=60).collect::<Vec<_>>());
}

#[test]
fn the_other_outcomes_are_delivered_in_time_even_if_a_third_fails() {
    let mut simulation = Simulation::new(RULES, |seqs, _| match seqs[0] % 3 {
        0 => later(),
        _ => Answer::Delivered,
    });
    simulation.newest = 2000;
    simulation.run_until(1000 * SECOND);
    assert_eq!((simulation.received.len(), simulation.cursor), (1334, 2000));
    simulation.run_until(30 * HOUR);
    assert_eq!(simulation.dead().len(), 666);
}

#[test]
fn outcomes_that_wait_for_another_try_are_bounded_and_new_ones_then_wait_in_the_store() {
    // Just enough is delivered that the endpoint does not count as down.
    let mut turn = 0;
    let mut simulation = Simulation::new(RULES, move |_, now| {
        turn += 1;
        if turn % 4 == 0 || now > at(HOUR) { Answer::Delivered } else { later() }
    });
    simulation.newest = 5000;
    simulation.run_until(HOUR / 2);
    assert!((900..=MAX_RETRYING + 8).contains(&simulation.most_failed), "{}", simulation.most_failed);
    simulation.run_until(2 * HOUR);
    simulation.assert_all_received();
}

#[test]
fn an_outcome_refused_twice_while_others_are_accepted_becomes_a_dead_letter() {
    let mut simulation = Simulation::new(RULES, |seqs, _| match seqs[0] % 2 {
        0 => refused("410 Gone"),
        _ => Answer::Delivered,
    });
    simulation.newest = 101;
    simulation.run_until(10 * SECOND);
    assert_eq!(simulation.dead(), (1..=50).map(|n| 2 * n).collect::<Vec<_>>());
    assert_eq!((simulation.received.len(), simulation.tries.len(), simulation.cursor), (51, 151, 101));
    let row = &simulation.failed[&2];
    assert_eq!((row.tries, row.error.as_deref()), (2, Some("410 Gone")));
    assert_eq!(simulation.state.trouble(), None, "an endpoint that refuses some is not in trouble");
}

#[test]
fn an_endpoint_that_refuses_everything_for_a_while_gets_every_outcome_later() {
    for (batch, concurrency) in [(1, 1), (1, 8), (100, 8)] {
        let rules = Rules { batch, concurrency, ..RULES };
        let mut simulation = Simulation::new(rules, |_, now| match now < at(20 * HOUR) {
            true => refused("404 Not Found"),
            false => Answer::Delivered,
        });
        simulation.newest = 5000;
        simulation.run_until(HOUR);
        assert_eq!((simulation.state.trouble(), simulation.dead()), (Some("404 Not Found"), vec![]));
        let before = simulation.tries.len();
        simulation.run_until(20 * HOUR);
        assert!(simulation.tries.len() < before + 19 * 3600 / 40, "it is probed, and not stormed");
        assert!(simulation.most_failed < ENOUGH_REFUSED + 2 * concurrency, "{} rows", simulation.most_failed);
        assert!(simulation.dead().is_empty());
        simulation.run_until(22 * HOUR);
        simulation.assert_all_received();
        assert_eq!(simulation.state.trouble(), None);
    }
}

#[test]
fn an_endpoint_that_refuses_the_only_outcome_is_in_trouble_and_max_age_ends_the_outcome() {
    let mut simulation = Simulation::new(RULES, |_, _| refused("404 Not Found"));
    simulation.newest = 1;
    simulation.run_until(60 * SECOND);
    assert_eq!((simulation.state.trouble(), simulation.dead()), (Some("404 Not Found"), vec![]));
    simulation.run_until(23 * HOUR);
    assert!(simulation.dead().is_empty());
    simulation.run_until(25 * HOUR);
    assert_eq!(simulation.dead(), [1]);
}

#[test]
fn an_endpoint_that_alternates_between_accepting_and_refusing_makes_few_dead_letters() {
    // A minute each, so that outcomes that were refused are refused again.
    let works = |now: Moment| (now.since(Moment::START).as_secs() / 60).is_multiple_of(2);
    let mut simulation = Simulation::new(RULES, move |_, now| match works(now) {
        true => Answer::Delivered,
        false => refused("404 Not Found"),
    });
    for second in 0..3600 {
        simulation.newest += 10;
        simulation.run_until(second * SECOND);
    }
    simulation.run_until(2 * HOUR);
    let dead = simulation.dead().len();
    assert!(dead < 30 * ENOUGH, "{dead} dead letters in 30 bad minutes");
    assert_eq!(simulation.received.len() + dead, 36_000);
}

#[test]
fn a_burst_of_refused_outcomes_delays_the_others_by_minutes_at_most() {
    let mut simulation = Simulation::new(RULES, |seqs, _| match seqs[0] <= 200 {
        true => refused("410 Gone"),
        false => Answer::Delivered,
    });
    simulation.newest = 5000;
    simulation.run_until(600 * SECOND);
    assert_eq!((simulation.received.len(), simulation.dead().len()), (4800, 200));
}

#[test]
fn thousands_of_refused_outcomes_all_become_dead_letters() {
    let mut simulation = Simulation::new(RULES, |seqs, _| match (1000..4000).contains(&seqs[0]) {
        true => refused("410 Gone"),
        false => Answer::Delivered,
    });
    simulation.newest = 5000;
    simulation.run_until(HOUR);
    simulation.newest = 6000;
    simulation.run_until(2 * HOUR);
    assert_eq!((simulation.received.len(), simulation.dead().len()), (3000, 3000));
    assert!(simulation.most_failed <= 3000 + MAX_RETRYING);
}

#[test]
fn an_outcome_that_no_request_can_carry_becomes_a_dead_letter_at_once() {
    for batch in [1, 50] {
        let unsendable = |seqs: &[i64], now: Moment| match (seqs.contains(&7), now < at(HOUR)) {
            (true, _) => Answer::Unsendable("the stored record of outcome 7 can't be read".into()),
            (false, true) => later(),
            (false, false) => Answer::Delivered,
        };
        let mut simulation = Simulation::new(Rules { batch, ..RULES }, unsendable);
        simulation.newest = 100;
        simulation.run_until(2 * HOUR);
        assert_eq!((simulation.dead(), simulation.received.len()), (vec![7], 99));
    }
}

#[test]
fn an_endpoint_that_asks_for_a_pause_gets_nothing_until_a_probe_after_it() {
    let mut calls = 0;
    let mut simulation = Simulation::new(RULES, move |_, _| {
        calls += 1;
        if calls <= 8 { held(600) } else { Answer::Delivered }
    });
    simulation.newest = 100;
    simulation.run_until(HOUR);
    let starts: Vec<u64> = simulation.tries.iter().map(|(at, _)| at.since(Moment::START).as_secs()).collect();
    assert_eq!(starts[..8], [0; 8], "these were under way");
    assert!(starts[8] >= 600, "{starts:?}");
    assert!(simulation.tries[9].0 > simulation.tries[8].0, "one goes first");
    simulation.assert_all_received();
    assert!(simulation.most_failed <= 1, "only the one that was told first had failed");
}

#[test]
fn an_answer_with_retry_after_for_one_outcome_holds_back_that_one_only() {
    let mut simulation = Simulation::new(RULES, |seqs, now| match seqs {
        [1] if now < at(SECOND) => {
            Answer::Later { failure: "500".to_owned().into(), wait: Wait::ThisOne(Duration::from_secs(900)) }
        }
        _ => Answer::Delivered,
    });
    simulation.newest = 10;
    simulation.run_until(899 * SECOND);
    assert_eq!((simulation.received.len(), simulation.tries_of(1)), (9, 1));
    simulation.run_until(901 * SECOND);
    simulation.assert_all_received();
}

#[test]
fn a_failed_batch_is_repeated_unchanged_and_split_only_to_find_a_refused_outcome() {
    let rules = Rules { batch: 100, ..RULES };
    let mut refusing = Simulation::new(rules, |seqs, _| match seqs.contains(&42) {
        true => refused("422"),
        false => Answer::Delivered,
    });
    refusing.newest = 1000;
    refusing.run_until(HOUR);
    assert_eq!((refusing.dead(), refusing.received.len()), (vec![42], 999));
    assert!(refusing.tries.len() < 10 + 2 * 7 + 3, "{} tries: it is found by halves", refusing.tries.len());

    let mut failing = Simulation::new(rules, |seqs, _| match seqs.contains(&42) {
        true => later(),
        false => Answer::Delivered,
    });
    failing.newest = 1000;
    failing.run_until(HOUR);
    assert_eq!(failing.received.len(), 999, "the others of its batch don't wait for max_age");
    let whole: Vec<i64> = (1..=100).collect();
    let again = failing.tries.iter().filter(|(_, seqs)| *seqs == whole).count();
    assert_eq!(again, 3);
}

/// Asks for `batch` outcomes at once where the receiver takes only `most`.
#[track_caller]
fn assert_batches_shrink(most: usize, beyond: impl Fn() -> Answer + 'static) {
    for (batch, concurrency) in [(1000, 8), (1000, 1), (10, 4)] {
        let rules = Rules { batch, concurrency, ..RULES };
        let beyond = beyond();
        let mut simulation = Simulation::new(rules, move |seqs, _| match seqs.len() > most {
            true => beyond.clone(),
            false => Answer::Delivered,
        });
        simulation.newest = 5000;
        simulation.run_until(600 * SECOND);
        simulation.assert_all_received();
        let tries = simulation.tries.len();
        let needed = 5000 / most.min(batch);
        assert!(tries < 3 * needed + 60, "{tries} requests where {needed} would do");
        assert_eq!(simulation.state.trouble(), None);
    }
}

#[test]
fn batches_shrink_until_one_is_accepted_also_while_the_endpoint_is_probed() {
    for most in [1, 3, 130, 999] {
        assert_batches_shrink(most, later);
        assert_batches_shrink(most, || refused("413 Payload Too Large"));
        assert_batches_shrink(most, || Answer::none("time-out: no answer within 10s"));
    }
}

#[test]
fn no_outcome_becomes_a_dead_letter_unless_it_was_tried_alone() {
    // `Simulation` looks at each dead letter. The endpoint fails all day, then takes only one at a time.
    let rules = Rules { batch: 1000, ..RULES };
    let mut simulation = Simulation::new(rules, |seqs, now| match seqs.len() == 1 && now >= at(30 * HOUR) {
        true => Answer::Delivered,
        false => later(),
    });
    simulation.newest = 5000;
    simulation.run_until(29 * HOUR);
    let probes = simulation.tries.len();
    assert!(
        probes < 29 * 3600 / 40 + 100,
        "{probes} tries: outcomes whose time is up are no reason to storm it"
    );
    simulation.run_until(40 * HOUR);
    simulation.assert_all_received();
}

#[test]
fn after_an_outage_batches_are_soon_as_large_as_before() {
    let rules = Rules { batch: 100, ..RULES };
    let mut simulation =
        Simulation::new(rules, |_, now| if now < at(HOUR) { later() } else { Answer::Delivered });
    simulation.newest = 50_000;
    simulation.run_until(2 * HOUR);
    simulation.assert_all_received();
    let after = simulation.tries.iter().filter(|(start, _)| *start > at(HOUR)).count();
    assert!(after < 500 + 150, "{after} requests where 500 would do");
}

#[test]
fn replayed_outcomes_are_delivered_again_and_dropped_ones_are_not() {
    let mut simulation = Simulation::new(RULES, |seqs, now| match (seqs, now < at(HOUR)) {
        ([3], true) => refused("404"),
        ([4], true) => later(),
        _ => Answer::Delivered,
    });
    simulation.newest = 10;
    simulation.run_until(10 * SECOND);
    simulation.newest = 11;
    simulation.run_until(HOUR);
    assert_eq!(simulation.dead(), [3]);
    let asked =
        |seq, tries| Failed { seq, dead: false, tries, first_try_at: None, last_try_at: None, error: None };
    simulation.failed.insert(3, asked(3, 0));
    simulation.failed.insert(7, asked(7, 0));
    simulation.failed.remove(&4);
    let dropped_after = simulation.tries_of(4);
    simulation.state.forget_failed();
    simulation.run_until(2 * HOUR);
    assert!(simulation.received.contains(&3) && simulation.failed.is_empty());
    assert_eq!((simulation.tries_of(7), simulation.tries_of(4)), (2, dropped_after));
}

#[test]
fn more_replayed_outcomes_than_fit_into_memory_are_all_delivered() {
    let mut simulation = Simulation::new(RULES, |_, _| Answer::Delivered);
    simulation.newest = 5000;
    simulation.run_until(HOUR);
    for seq in 1..=5000 {
        let (first_try_at, last_try_at, error) = (None, None, None);
        simulation
            .failed
            .insert(seq, Failed { seq, dead: false, tries: 0, first_try_at, last_try_at, error });
    }
    simulation.state.forget_failed();
    simulation.run_until(2 * HOUR);
    assert_eq!((simulation.failed.len(), simulation.tries.len()), (0, 10_000));
}

#[test]
fn every_outcome_is_delivered_or_a_dead_letter_despite_any_answers_and_kills() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut whims = random.fork();
        let batch = if random.bool() { 1 } else { random.usize(2..50) };
        let rules = Rules { concurrency: random.usize(1..20), batch, max_age: 6 * HOUR };
        let most = random.usize(1..50);
        let (mut down_until, mut mood) = (Moment::START, 0);
        let mut simulation = Simulation::new(rules, move |seqs, now| {
            if now >= down_until {
                mood = whims.u32(0..7);
                down_until = now.after(Duration::from_secs(whims.u64(1..1000)));
            }
            match (mood, whims.u32(0..20)) {
                (0, _) => later(),
                (1, _) => unreachable(),
                (2, _) => refused("404"),
                (3, 0) => held(whims.u64(1..600)),
                (_, 1) => refused("422"),
                (_, 2 | 3) => later(),
                _ if seqs.contains(&17) => later(),
                _ if seqs.contains(&18) => refused("410"),
                _ if seqs.len() > most => Answer::none("time-out"),
                _ => Answer::Delivered,
            }
        });
        for step in 1..60 {
            simulation.newest += random.i64(0..100);
            simulation.run_until(step * Duration::from_secs(random.u64(1..60)));
            if random.u32(0..5) == 0 {
                simulation.crash(random.u64(..));
            }
        }
        simulation.run_until(60 * HOUR);
        let dead = simulation.dead();
        for seq in 1..=simulation.newest {
            let ended = simulation.received.contains(&seq) || dead.contains(&seq);
            assert!(ended, "outcome {seq} is lost, with seed {seed}");
            assert!(simulation.tries_of(seq) > 0, "outcome {seq} was given up unseen, with seed {seed}");
        }
        assert_eq!(
            (simulation.cursor, simulation.failed.len()),
            (simulation.newest, dead.len()),
            "with seed {seed}"
        );
    }
}
