//! Tests the guarantees of [`super`] over many PINs.

use super::*;
use crate::outcome::Weight;

const PINS: usize = 10_000;

fn lives(settings: &LifeSettings) -> impl Iterator<Item = Life> {
    (0..PINS).map(move |n| Life::of(settings, &format!("{n:032X}")))
}

fn reported(life: &Life, age: Duration) -> Vec<Reported> {
    life.at(age).collect()
}

/// Ages of growing distance, up to past the longest life.
fn ages() -> impl Iterator<Item = Duration> {
    let ages = std::iter::successors(Some(Duration::from_millis(10)), |age| Some(age.mul_f64(1.3)));
    std::iter::once(Duration::ZERO).chain(ages.take_while(|age| *age < LONGEST * 5))
}

#[test]
fn the_same_seed_and_pin_id_have_the_same_life_in_every_process() {
    let settings = LifeSettings { seed: 7, ..LifeSettings::default() };
    for (one, other) in lives(&settings).zip(lives(&settings.clone())) {
        assert_eq!(one, other);
    }
    // Every other process and build must compute these values.
    assert_eq!(stable_hash(0, b"9C817C6F8AF3D48F9FE553282AFA2B67"), 3_535_317_744_138_609_471);
    assert_eq!(stable_hash(7, b"9C817C6F8AF3D48F9FE553282AFA2B67"), 5_018_430_468_186_810_365);
    assert_eq!(
        Life::of(&settings, "9C817C6F8AF3D48F9FE553282AFA2B67").settles(),
        Some(Duration::from_micros(4_699_844))
    );
}

#[test]
fn another_seed_or_pin_id_has_another_life() {
    let one = LifeSettings::default();
    let other = LifeSettings { seed: 1, ..LifeSettings::default() };
    let differing = lives(&one).zip(lives(&other)).filter(|(one, other)| one != other).count();
    assert_eq!(differing, PINS);
    assert!(lives(&one).zip(lives(&one).skip(1)).all(|(one, next)| one != next));
}

#[test]
fn deliveries_are_only_added_and_what_is_final_stays() {
    let settings = LifeSettings { unknown_share: 0.01, ..LifeSettings::default() };
    for life in lives(&settings) {
        let mut before = Vec::new();
        for age in ages() {
            let now = reported(&life, age);
            assert!(now.len() >= before.len(), "an array shrank: {life:?} at {age:?}");
            for (old, new) in before.iter().zip(&now) {
                let old: &Reported = old;
                assert!(!old.status.is_final() || old == new, "a final status changed: {life:?} at {age:?}");
            }
            let was_final = !before.is_empty() && before.iter().all(|reported| reported.status.is_final());
            assert!(!was_final || now == before, "a final PIN got a resend: {life:?} at {age:?}");
            before = now;
        }
        let all_final = before.iter().all(|reported| reported.status.is_final());
        assert_eq!(life.settles().is_some(), all_final, "{life:?}");
    }
}

#[test]
fn a_pin_is_final_from_the_age_that_settles_names_and_not_before() {
    for life in lives(&LifeSettings::default()) {
        let Some(settles) = life.settles() else { continue };
        assert!(reported(&life, settles).iter().all(|reported| reported.status.is_final()));
        if let Some(before) = settles.checked_sub(Duration::from_nanos(1)) {
            let before = reported(&life, before);
            assert!(
                before.is_empty() || before.iter().any(|reported| !reported.status.is_final()),
                "{life:?}"
            );
        }
    }
}

#[test]
fn half_of_the_deliveries_end_within_the_median_and_the_tail_is_long() {
    let settings = LifeSettings { call_share: 0.0, ..LifeSettings::default() };
    let mut times: Vec<_> = lives(&settings)
        .filter(|life| reported(life, LONGEST)[0].status == Known::Sms(SmsStatus::Delivered))
        .filter_map(|life| life.courses[0].and_then(|course| Some(course.settles? - course.begins)))
        .collect();
    times.sort_unstable();
    let quantile = |share: f64| times[(times.len() as f64 * share) as usize].as_secs_f64();
    assert!((3.8..4.2).contains(&quantile(0.5)), "median {}", quantile(0.5));
    // exp(1.2 * 2.326) = 16.3 medians.
    assert!((52.0..80.0).contains(&quantile(0.99)), "99 % {}", quantile(0.99));
}

#[test]
fn without_sigma_every_ordinary_delivery_takes_the_median() {
    let settings = LifeSettings { sigma: 0.0, call_share: 0.0, empty_share: 0.0, ..LifeSettings::default() };
    for life in lives(&settings) {
        let first = life.courses[0].unwrap();
        if first.end == Known::Sms(SmsStatus::Delivered) {
            assert_eq!(first.settles, Some(settings.median));
        }
    }
}

#[test]
fn most_pins_are_delivered_and_few_stay_open_for_ever() {
    let (mut delivered, mut open, mut resent, mut calls) = (0, 0, 0, 0);
    for life in lives(&LifeSettings::default()) {
        let last = reported(&life, LONGEST * 4);
        delivered +=
            usize::from(last.iter().any(|reported| reported.status.status().weight() == Weight::Delivered));
        open += usize::from(life.settles().is_none());
        resent += usize::from(last.len() > 1);
        calls += usize::from(matches!(last[0].status, Known::Call(_)));
    }
    assert!((8_700..9_700).contains(&delivered), "{delivered} delivered");
    assert!((50..250).contains(&open), "{open} open for ever");
    assert!((500..2_000).contains(&resent), "{resent} resent");
    assert!((900..1_100).contains(&calls), "{calls} calls");
}

#[test]
fn every_status_of_both_tables_occurs_among_10000_pins() {
    let mut missing: Vec<_> = SmsStatus::ALL.iter().copied().map(Known::Sms).collect();
    missing.extend(CallStatus::ALL.iter().copied().map(Known::Call));
    for life in lives(&LifeSettings::default()) {
        let last = reported(&life, LONGEST * 4);
        missing.retain(|status| last.iter().all(|reported| reported.status != *status));
    }
    assert_eq!(missing, []);
}

#[test]
fn an_undocumented_status_occurs_only_when_asked_for() {
    let unknown = |share| {
        let settings = LifeSettings { unknown_share: share, ..LifeSettings::default() };
        let undocumented = |reported: Reported| reported.status == Known::Undocumented;
        lives(&settings).filter(|life| life.at(LONGEST * 4).any(undocumented)).count()
    };
    assert_eq!(unknown(0.0), 0);
    assert!((70..150).contains(&unknown(0.01)));
}

#[test]
fn final_status_is_a_boolean_mostly_a_string_sometimes_and_absent_only_from_calls() {
    let mut forms = [0; 3];
    for reported in lives(&LifeSettings::default()).flat_map(|life| reported(&life, LONGEST * 4)) {
        forms[reported.form as usize] += 1;
        assert!(reported.form != FinalForm::Absent || matches!(reported.status, Known::Call(_)));
    }
    let [bools, texts, absent] = forms;
    assert!(bools > 9_000 && (400..800).contains(&texts) && (150..500).contains(&absent), "{forms:?}");
}

#[test]
fn impossible_settings_make_long_lives_and_no_panics() {
    for (median, sigma) in [(Duration::MAX, f64::NAN), (Duration::ZERO, f64::INFINITY), (LONGEST, -1e300)] {
        let settings = LifeSettings { median, sigma, call_share: f64::NAN, ..LifeSettings::default() };
        assert!(lives(&settings).all(|life| life.at(Duration::MAX).count() >= 1));
    }
}
