//! Tests the history in simulated time.

use super::*;

const BEGUN: i64 = 1_767_323_045_000;

/// This many seconds after the first sample.
fn at(seconds: u64) -> Steady {
    Steady::from_millis(BEGUN + i64::try_from(seconds).unwrap() * 1000)
}

/// A sample of a daemon with this many polls, whose only sink is this many outcomes behind.
fn sample(polls: u64, behind: u64) -> Option<Sample> {
    let counts = Counts { polls, understood: polls, ..Counts::default() };
    Some(Sample { in_flight: polls / 2, rate: Some(5.0), counts, backlog: vec![("file".into(), behind)] })
}

/// The last values.
fn last(values: &Values, count: usize) -> &[Option<f64>] {
    &values[values.len() - count..]
}

#[test]
fn both_histories_have_the_documented_size_and_span() {
    assert_eq!(2 * STEPS * size_of::<Point>(), 161_280);
    assert!(size_of::<Rings>() < 4096, "{}", size_of::<Rings>());
    let spans = [Span::Hour, Span::Day].map(|span| span.step() * u32::try_from(STEPS).unwrap());
    assert_eq!(spans, [Duration::from_hours(1), Duration::from_hours(24)]);
}

#[test]
fn a_counter_is_shown_as_its_growth_and_a_gauge_as_its_value() {
    let history = History::default();
    for (n, polls) in [10, 30, 80].into_iter().enumerate() {
        history.record(at(10 * n as u64), sample(polls, 7 + n as u64));
    }
    let series = history.series(Span::Hour);
    assert_eq!(series.in_flight.len(), 360);
    assert_eq!(series.polls[0].name, "understood");
    assert_eq!(last(&series.polls[0].values, 4), [None, None, Some(2.0), Some(5.0)]);
    assert_eq!(last(&series.in_flight, 4), [None, Some(5.0), Some(15.0), Some(40.0)]);
    assert_eq!(series.backlog.len(), 1);
    assert_eq!(last(&series.backlog[0].values, 3), [Some(7.0), Some(8.0), Some(9.0)]);
    assert_eq!(last(&series.final_median, 1), [None], "nothing became final");
}

#[test]
fn a_step_without_a_sample_is_a_gap_and_the_next_one_shows_no_growth() {
    let history = History::default();
    history.record(at(0), sample(10, 0));
    history.record(at(10), None);
    history.record(at(20), sample(20, 0));
    // The machine slept.
    history.record(at(60), sample(90, 0));
    history.record(at(70), sample(100, 0));
    let series = history.series(Span::Hour);
    let in_flight = [Some(5.0), None, Some(10.0), None, None, None, Some(45.0), Some(50.0)];
    assert_eq!(last(&series.in_flight, 8), in_flight);
    let polls = [None, None, None, None, None, None, None, Some(1.0)];
    assert_eq!(last(&series.polls[0].values, 8), polls);
}

#[test]
fn samples_with_jitter_fall_into_their_steps_of_the_hour_and_of_the_day() {
    let history = History::default();
    let mut random = fastrand::Rng::with_seed(7);
    for n in 0..=720_u64 {
        let jitter = if n == 0 { 0 } else { random.i64(-4000..4000) };
        history.record(Steady::from_millis(at(10 * n).millis() + jitter), sample(n, 0));
    }
    let hour = history.series(Span::Hour);
    assert!(hour.in_flight.iter().all(Option::is_some), "a ring that went round twice is full");
    assert_eq!(last(&hour.in_flight, 1), [Some(360.0)]);
    let day = history.series(Span::Day);
    assert_eq!(day.in_flight.iter().flatten().count(), 31, "two hours and the first moment");
    assert!(
        last(&day.polls[0].values, 30).iter().all(|polls| (polls.unwrap() - 0.1).abs() < 0.01),
        "{day:?}"
    );
}

#[test]
fn the_times_until_final_are_those_of_one_step_only() {
    let history = History::default();
    let mut sample = sample(0, 0).unwrap();
    // 100 PINs within 1 s, which is before the step in question.
    sample.counts.final_ages[0] = 100;
    history.record(at(0), Some(sample.clone()));
    // 10 PINs between 10 s and 20 s, noticed 3 s late on average.
    sample.counts.final_ages[4] = 10;
    (sample.counts.noticed, sample.counts.notice_delay) = (10, Duration::from_secs(30));
    sample.counts.statuses[1] = 3;
    history.record(at(10), Some(sample));
    let series = history.series(Span::Hour);
    let newest = |values: &Values| values.last().copied().flatten();
    let times = [&series.final_median, &series.final_p95, &series.notice_delay].map(newest);
    assert_eq!(times, [Some(15.0), Some(19.5), Some(3.0)]);
    let statuses: Vec<_> = series.statuses.iter().map(|line| (&*line.name, newest(&line.values))).collect();
    assert_eq!(statuses, [("MESSAGE_NOT_SENT", Some(3.0))], "only what occurs is listed");
}

#[test]
fn sinks_beyond_the_limit_are_left_out_and_affect_no_other() {
    let history = History::default();
    let backlog = (0..40).map(|n| (format!("sink{n:02}"), n)).collect();
    history.record(at(0), Some(Sample { backlog, ..Sample::default() }));
    history.record(
        at(10),
        Some(Sample { backlog: vec![("sink39".into(), 1), ("sink03".into(), 9)], ..Sample::default() }),
    );
    let backlog = history.series(Span::Hour).backlog;
    assert_eq!(backlog.len(), SINKS);
    assert_eq!(last(&backlog[3].values, 2), [Some(3.0), Some(9.0)]);
    assert_eq!(last(&backlog[4].values, 2), [Some(4.0), None]);
}

#[test]
fn a_history_without_samples_is_empty() {
    let series = History::default().series(Span::Day);
    assert!(series.in_flight.is_empty() && series.polls[0].values.is_empty());
}
