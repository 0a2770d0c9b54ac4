use super::super::bins::BINS;
use super::super::{Answer, Channel};
use super::*;

const PRICE: f64 = 1.0;

fn backoff() -> Backoff {
    Backoff::new(Duration::from_secs(1), 1.5, Duration::from_secs(3600), 0.2)
}

/// Runs a PIN that becomes final at age `life`, polled at intervals of `interval_at`, with each poll `late` by this
/// time.
fn live(
    safety: &mut Safety,
    hazard: &Hazard,
    life: f64,
    late: f64,
    interval_at: &dyn Fn(f64) -> f64,
) -> Vec<Change> {
    let nominal = Nominal::new(&backoff(), Duration::from_secs(172_800));
    let (mut since, mut is_final, mut changes) = (0.0, false, Vec::new());
    while !is_final {
        let age = since + interval_at(since) + late;
        is_final = life <= age;
        let [from, to, behind] = [since, age, late].map(Duration::from_secs_f64);
        let answer = Answer { channel: Channel::Sms, since: from, age: to, late: behind, is_final };
        changes.extend(safety.record(&nominal.compare(&answer, hazard), is_final, Some(PRICE)));
        since = age;
    }
    changes
}

/// Runs this many PINs with a constant hazard; returns after which of them what changed.
fn changes(
    pins: usize,
    rate: f64,
    late: f64,
    believed: f64,
    interval_at: &dyn Fn(f64) -> f64,
) -> Vec<(usize, Change)> {
    let (mut safety, hazard) = (Safety::default(), Hazard([believed; BINS]));
    let mut random = fastrand::Rng::with_seed(4);
    let lives = std::iter::repeat_with(|| -(1.0 - random.f64()).ln() / rate).take(pins);
    let run = |(n, life)| {
        live(&mut safety, &hazard, life, late, interval_at).into_iter().map(move |change| (n, change))
    };
    lives.enumerate().flat_map(run).collect()
}

fn as_backoff(age: f64) -> f64 {
    backoff().interval_at(Duration::from_secs_f64(age)).as_secs_f64()
}

#[test]
fn backoff_is_neither_better_nor_worse_than_itself() {
    let mut random = fastrand::Rng::with_seed(6);
    let mut safety = Safety::default();
    let hazard = Hazard([0.1; BINS]);
    for _ in 0..JUDGED {
        let life = -(1.0 - random.f64()).ln() / 0.1;
        assert_eq!(live(&mut safety, &hazard, life, 0.0, &as_backoff), []);
    }
    let (count, sum) = safety.recent();
    assert_eq!(count, JUDGED);
    assert!((sum.real.polls / sum.backoff.polls - 1.0).abs() < 1e-6, "{sum:?}");
    assert!((sum.real.delay / sum.backoff.delay - 1.0).abs() < 1e-6, "{sum:?}");
    assert!((sum.expected / JUDGED as f64 - 1.0).abs() < 0.1, "{sum:?}");
}

#[test]
fn a_bad_schedule_is_abandoned_and_retried_after_more_and_more_endings() {
    let found = changes(4_000, 0.1, 0.0, 0.1, &|_| 60.0);
    let expected = [Change::Worse, Change::Retries, Change::Worse, Change::Retries, Change::Worse];
    assert_eq!(found.iter().map(|(_, change)| *change).collect::<Vec<_>>()[..5], expected);
    let at: Vec<usize> = found.iter().map(|(n, _)| *n).collect();
    assert!(at[0] < JUDGED, "{at:?}");
    assert_eq!((at[1] - at[0], at[3] - at[2]), (500, 1_000));
}

#[test]
fn a_good_schedule_stays() {
    // Constant intervals are optimal for a constant hazard.
    assert_eq!(changes(5_000, 0.1, 0.0, 0.1, &|_| 5.0), []);
}

#[test]
fn an_outage_that_makes_all_polls_late_is_not_blamed_on_the_schedule() {
    assert_eq!(changes(2_000, 0.1, 30.0, 0.1, &as_backoff), []);
}

#[test]
fn pins_that_are_final_before_the_first_look_are_noticed() {
    // The hazard assumes 200 s; the PINs really take 2 s, and the schedule first polls after a minute.
    let found = changes(200, 0.5, 0.0, 0.005, &|_| 20.0);
    assert_eq!(found.first().map(|(_, change)| *change), Some(Change::Early));
    assert!(found[0].0 < 60, "{found:?}");
}

#[test]
fn old_relapses_are_forgotten_and_the_probation_survives_a_restart() {
    let mut safety = Safety::default();
    safety.resume((3, 2));
    let fine = Comparison { expected: 1.0, ..Comparison::default() };
    assert!(!safety.is_trusting());
    let changes: Vec<Change> = (0..3).filter_map(|_| safety.record(&fine, true, Some(PRICE))).collect();
    assert_eq!((changes, safety.standing()), (vec![Change::Retries], (0, 2)));
    for _ in 0..FORGIVEN {
        assert_eq!(safety.record(&fine, true, Some(PRICE)), None);
    }
    assert_eq!(safety.standing(), (0, 0));
    safety.resume((u32::MAX, u32::MAX));
    assert_eq!(safety.standing().0, LONGEST_PROBATION);
}
