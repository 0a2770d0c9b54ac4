use proptest::prelude::*;

use super::*;

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn learner(aim: Aim) -> Learner {
    let limits = Limits { shortest: seconds(1.0), longest: seconds(3600.0), deadline: seconds(172_800.0) };
    Learner::new(aim, &Backoff::new(limits.shortest, 1.5, limits.longest, 0.2), limits)
}

/// Teaches the learner this many PINs that become final around 30 s, polled as it decides.
fn teach(learner: &mut Learner, channel: Channel, pins: u32) {
    let mut random = fastrand::Rng::with_seed(2);
    for _ in 0..pins {
        let life = seconds(25.0 + 10.0 * random.f64());
        let (mut since, mut told) = (Duration::ZERO, None);
        while since < life {
            let interval =
                learner.interval_at(told, since).unwrap_or_else(|| learner.backoff.interval_at(since));
            let age = since + learner.backoff.jittered(interval, &mut random);
            learner.answered(&Answer { channel, since, age, late: Duration::ZERO, is_final: age >= life });
            (since, told) = (age, Some(channel));
        }
        if let Some(problem) = learner.problem() {
            learner.adopt(problem.solve());
        }
    }
}

#[test]
fn below_200_endings_of_a_channel_nothing_differs_from_backoff() {
    let mut learner = learner(Aim::Fewer);
    teach(&mut learner, Channel::Call, LEAST_ENDINGS - 1);
    for channel in Channel::ALL.map(Some).into_iter().chain([None]) {
        assert_eq!(learner.interval_at(channel, Duration::ZERO), None);
    }
    teach(&mut learner, Channel::Call, 101);
    assert!(learner.interval_at(None, Duration::ZERO).expect("a plan") > seconds(10.0));
    assert!(learner.interval_at(Some(Channel::Call), seconds(1.0)).is_some());
    assert_eq!(learner.interval_at(Some(Channel::Sms), seconds(1.0)), None, "of SMS it knows nothing");
    assert_eq!(learner.interval_at(None, seconds(1.0)), None, "no answer told the channel yet");
}

#[test]
fn the_learned_state_survives_a_restart_in_a_few_kilobytes() {
    let mut before = learner(Aim::Sooner);
    teach(&mut before, Channel::Sms, 1_000);
    let state = before.save();
    assert!(state.len() < 3 * 1024, "{}", state.len());
    let mut after = learner(Aim::Sooner);
    assert!(after.restore(&state));
    let plans = [&mut before, &mut after].map(|learner| {
        learner.fresh = PLAN_EVERY;
        learner.budget = BUDGET;
        learner.problem().expect("enough is known").solve().expect("a plan")
    });
    assert!((plans[0].price / plans[1].price - 1.0).abs() < 0.05);
    assert_eq!(plans[0].first, plans[1].first);
}

#[test]
fn after_a_relapse_old_counts_fade_and_a_restart_does_not_shorten_the_probation() {
    let mut before = learner(Aim::Fewer);
    teach(&mut before, Channel::Call, 600);
    let first = before.interval_at(None, Duration::ZERO).expect("a plan");
    // Now all PINs are final long before the first poll.
    let age = first.mul_f64(0.7);
    let early =
        Answer { channel: Channel::Call, since: Duration::ZERO, age, late: Duration::ZERO, is_final: true };
    let relapse = (0..100).find_map(|_| before.answered(&early));
    assert_eq!((relapse, before.plan()), (Some(Change::Early), None));
    assert!(before.counts(Channel::Call).events.iter().sum::<f64>() < 20.0);

    let mut after = learner(Aim::Fewer);
    assert!(after.restore(&before.save()));
    let plan = after.problem().expect("enough is known").solve();
    assert!(plan.is_some());
    after.adopt(plan);
    assert_eq!((after.plan(), after.safety().standing()), (None, (500, 1)));
}

#[test]
fn a_state_of_another_layout_is_refused() {
    let mut state = learner(Aim::Fewer).save();
    assert!(learner(Aim::Fewer).restore(&state));
    state[0] = LAYOUT + 1;
    assert!(!learner(Aim::Fewer).restore(&state));
    assert!(!learner(Aim::Fewer).restore(&[]));
}

#[test]
fn an_answer_out_of_order_teaches_nothing() {
    let mut learner = learner(Aim::Sooner);
    let before = learner.save();
    for (since, age) in [(5.0, 5.0), (5.0, 4.0)] {
        let [since, age] = [since, age].map(seconds);
        learner.answered(&Answer { channel: Channel::Sms, since, age, late: Duration::ZERO, is_final: true });
    }
    assert_eq!(learner.save(), before);
}

/// The length of a saved state without its first byte, in bytes.
const SAVED: usize = 8 + CHANNELS * Counts::SAVED;

/// Numbers that a manipulated state may contain.
fn any_count() -> impl Strategy<Value = f32> {
    prop_oneof![
        Just(0.0),
        Just(1e19),
        Just(1e-30),
        Just(f32::NAN),
        Just(-1.0),
        Just(f32::INFINITY),
        0.0..1e6f32,
        any::<f32>()
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_saved_state_causes_a_panic_or_an_invalid_interval(
        layout in prop_oneof![Just(LAYOUT), any::<u8>()],
        plain: bool, length in prop_oneof![Just(SAVED), 0..5_000usize],
        counts in prop::collection::vec(any_count(), SAVED / 4),
        (since, length_of_interval, is_final) in (0.0..1e6f64, 0.0..1e6f64, any::<bool>()),
    ) {
        let mut state = vec![layout];
        for count in counts {
            // Half of the states hold only possible numbers.
            let count = if plain && !(0.0..=1e19).contains(&count) { 1.0 } else { count };
            state.extend(count.to_le_bytes());
        }
        state.resize(1 + length, 0);
        let mut learner = learner(Aim::Sooner);
        let before = learner.save();
        if !learner.restore(&state) {
            prop_assert_eq!(learner.save(), before);
        }
        let [since, age] = [since, since + length_of_interval].map(seconds);
        learner.answered(&Answer { channel: Channel::Call, since, age, late: Duration::ZERO, is_final });
        if let Some(problem) = learner.problem() {
            learner.adopt(problem.solve());
        }
        for channel in Channel::ALL.map(Some).into_iter().chain([None]) {
            for age in [Duration::ZERO, seconds(1.0), age, Duration::MAX] {
                let interval = learner.interval_at(channel, age).unwrap_or(seconds(1.0));
                prop_assert!(interval >= seconds(1.0) && interval <= seconds(3600.0));
            }
        }
        prop_assert!(learner.save().len() < 3 * 1024);
    }
}
