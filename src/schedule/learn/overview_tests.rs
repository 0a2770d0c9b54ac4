//! The overview of the schedule agrees with how PINs are polled.

use super::super::{Aim, Answer, Learner};
use super::*;

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn limits() -> Limits {
    Limits { shortest: seconds(1.0), longest: seconds(3600.0), deadline: seconds(172_800.0) }
}

fn backoff() -> Backoff {
    Backoff::new(limits().shortest, 1.5, limits().longest, 0.2)
}

/// A learner that saw this many SMS become final around 30 s.
fn learner(aim: Aim, pins: u32) -> Learner {
    let mut learner = Learner::new(aim, &backoff(), limits());
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..pins {
        let life = seconds(25.0 + 10.0 * random.f64());
        let (mut since, mut told) = (Duration::ZERO, None);
        while since < life {
            let interval = learner.interval_at(told, since).unwrap_or_else(|| backoff().interval_at(since));
            let age = since + backoff().jittered(interval, &mut random);
            let (channel, late, is_final) = (Channel::Sms, Duration::ZERO, age >= life);
            learner.answered(&Answer { channel, since, age, late, is_final });
            (since, told) = (age, Some(Channel::Sms));
        }
        if let Some(problem) = learner.problem() {
            learner.adopt(problem.solve());
        }
    }
    learner
}

#[test]
fn without_learning_there_are_the_ages_of_backoff_and_no_cost() {
    let snapshot = Snapshot { backoff: backoff(), limits: limits(), learned: None };
    for class in snapshot.describe() {
        assert_eq!(class.backoff.ages[..4], [1.0, 2.5, 4.75, 8.125].map(seconds));
        assert_eq!(class.backoff.ages.last(), Some(&limits().deadline));
        // The figure of config/pinwatch.toml and docs/schedule.md.
        assert_eq!(class.backoff.until_deadline, Some(67));
        assert!(class.backoff.cost.is_none() && class.learned.is_none() && class.finals.is_empty());
    }
}

#[test]
fn the_overview_shows_the_ages_at_which_pins_are_polled_and_the_expected_gain() {
    for aim in [Aim::Sooner, Aim::Fewer] {
        let learner = learner(aim, 1_000);
        let snapshot = learner.snapshot();
        assert_eq!(snapshot.learned.as_ref().unwrap().standing, Standing::InForce);
        let [sms, call, _] = snapshot.describe();
        assert!(sms.is_learned && sms.endings == 1_000, "{sms:?}");
        let learned = sms.learned.unwrap();
        let mut age = Duration::ZERO;
        for listed in &learned.ages {
            let told = (!age.is_zero()).then_some(Channel::Sms);
            age = (age + learner.interval_at(told, age).unwrap()).min(limits().deadline);
            assert_eq!(*listed, age);
        }
        let (cost, of_backoff) = (learned.cost.unwrap(), sms.backoff.cost.unwrap());
        assert!(cost.polls < 1.03 * of_backoff.polls, "{aim:?}: {cost:?}, {of_backoff:?}");
        assert!(cost.delay < 1.03 * of_backoff.delay, "{aim:?}: {cost:?}, {of_backoff:?}");
        match aim {
            Aim::Sooner => assert!(cost.delay < 0.6 * of_backoff.delay, "{cost:?}, {of_backoff:?}"),
            Aim::Fewer => assert!(cost.polls < 0.6 * of_backoff.polls, "{cost:?}, {of_backoff:?}"),
        }

        // Of calls nothing is known, but their first poll is before anybody knows that they are calls.
        assert!(!call.is_learned && call.known_until.is_none() && call.backoff.cost.is_none());
        let after_first = learned.ages[0] + backoff().interval_at(learned.ages[0]);
        assert_eq!(call.learned.unwrap().ages[..2], [learned.ages[0], after_first]);
    }
}

#[test]
fn the_shares_of_final_pins_are_shown_up_to_an_age_that_enough_pins_reached() {
    let [sms, ..] = learner(Aim::Sooner, 1_000).snapshot().describe();
    let until = sms.known_until.unwrap();
    assert!(until > seconds(30.0) && until < seconds(60.0), "{until:?}");
    assert!(sms.finals.is_sorted() && sms.finals.last().unwrap().0 == until, "{:?}", sms.finals);
    let by = |age: f64| sms.finals.iter().rfind(|(at, _)| *at <= seconds(age)).unwrap().1;
    assert!(by(20.0) < 0.05 && by(40.0) > 0.9, "{:?}", sms.finals);
}

#[test]
fn the_overview_says_whether_endings_or_a_plan_are_missing() {
    let standing = |learner: &Learner| learner.snapshot().learned.unwrap().standing;
    let few = learner(Aim::Sooner, LEAST_ENDINGS - 1);
    assert_eq!(standing(&few), Standing::Learning);
    assert_eq!(few.snapshot().describe()[0].known_until, None);

    let mut restarted = Learner::new(Aim::Sooner, &backoff(), limits());
    assert!(restarted.restore(&learner(Aim::Sooner, 400).save()));
    assert_eq!(standing(&restarted), Standing::Planning);
    restarted.adopt(None);
    assert_eq!(standing(&restarted), Standing::NoneBetter);
}

#[test]
fn after_a_relapse_the_overview_shows_its_cause_and_duration() {
    let mut learner = learner(Aim::Fewer, 600);
    let (channel, since, late) = (Channel::Sms, Duration::ZERO, Duration::ZERO);
    let early = Answer { channel, since, age: seconds(5.0), late, is_final: true };
    assert!((0..100).any(|_| learner.answered(&early) == Some(Change::Early)));
    let fell_back = |cause, endings_until_retry| Standing::FellBack { cause, endings_until_retry };
    let standing = |learner: &Learner| learner.snapshot().learned.unwrap().standing;
    assert_eq!(standing(&learner), fell_back(Some(Change::Early), 500));

    let mut restarted = Learner::new(Aim::Fewer, &backoff(), limits());
    assert!(restarted.restore(&learner.save()));
    assert_eq!(standing(&restarted), fell_back(None, 500));
    assert!((0..500).any(|_| learner.answered(&early) == Some(Change::Retries)));
    assert_eq!(standing(&learner), Standing::InForce);
}

#[test]
fn the_overview_lists_a_bounded_number_of_ages() {
    let limits =
        Limits { shortest: seconds(0.001), longest: seconds(0.001), deadline: seconds(31_536_000.0) };
    let backoff = Backoff::new(limits.shortest, 1.0, limits.longest, 0.0);
    for class in (Snapshot { backoff, limits, learned: None }).describe() {
        assert_eq!((class.backoff.ages.len(), class.backoff.until_deadline), (MAX_AGES, None));
    }
}
