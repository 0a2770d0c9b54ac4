//! Every documented metric is served with the right value.

use std::fs;

use pinwatch::metrics::catalogue::{self, Kind};
use serde_json::Value;

use crate::http::served::{Numbers, Served, submit};
use crate::support::{json, until};

#[test]
fn every_metric_of_the_catalogue_is_served_with_its_type_and_labels_and_no_other_is() {
    let served = Served::start();
    served.finish(&["sim-delivered-1"]);
    let numbers = served.numbers();
    for metric in catalogue::ALL {
        let name = metric.name;
        let kind = format!("# TYPE {name} {}\n", metric.kind.as_str());
        assert_eq!(numbers.text.matches(&kind).count(), 1, "{kind}");
        assert!(numbers.text.contains(&format!("# HELP {name} {}\n", metric.help)), "{name}");
        let part = if metric.kind == Kind::Histogram { format!("{name}_count") } else { name.to_owned() };
        assert!(numbers.series(&part).next().is_some(), "{name} has no series");
        for (series, _) in numbers.series(&part) {
            let labels = series.split_once('{').map_or("", |(_, labels)| labels);
            let names: Vec<_> =
                labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0)).collect();
            assert_eq!(names, metric.labels, "{series}");
        }
    }
    let types = numbers.text.lines().filter(|line| line.starts_with("# TYPE")).count();
    assert_eq!(types, catalogue::ALL.len(), "there is a metric that is in no catalogue:\n{}", numbers.text);
}

#[test]
fn submits_polls_and_outcomes_are_counted_correctly() {
    let served = Served::start();
    served.finish(&["sim-delivered-1", "sim-delivered-2", "sim-unknown-1", "sim-400-1", "sim-404-1"]);
    let mut client = served.daemon.client();
    assert_eq!(submit(&mut client, "sim-delivered-1"), "finished");
    assert_eq!(submit(&mut client, "sim-waiting-1"), "accepted");
    assert_eq!(submit(&mut client, "sim-waiting-1"), "duplicate");
    assert_eq!(client.ask(r#"{"op":"cancel","pinId":"sim-waiting-1"}"#)["ok"], true);
    let commits = |numbers: &Numbers, of: &str| numbers.value(&format!("pinwatch_store_commit_{of}_count"));
    // A scrape may come between the two records of a commit.
    let numbers = until("no poll is running, and each commit is counted whole", || {
        let numbers = served.numbers();
        let is_whole = commits(&numbers, "duration_seconds") == commits(&numbers, "changes");
        (is_whole && numbers.value("pinwatch_polls_in_flight") == 0.0).then_some(numbers)
    });

    let outcome = |outcome: &str, status: &str| {
        numbers.value(&format!(r#"pinwatch_outcomes_total{{outcome="{outcome}",status="{status}"}}"#))
    };
    assert_eq!(outcome("final", "MESSAGE_DELIVERED"), 2.0);
    assert_eq!(outcome("final", "other"), 1.0, "an undocumented status makes no label of its own");
    assert_eq!(outcome("rejected", "none"), 1.0);
    assert_eq!(outcome("not_found", "none"), 1.0);
    let cancelled = ["none", "MESSAGE_WAITING_DELIVERY"].map(|status| outcome("cancelled", status));
    assert_eq!(cancelled.iter().sum::<f64>(), 1.0);
    let all: f64 = numbers.series("pinwatch_outcomes_total").map(|(_, value)| value).sum();
    assert_eq!(all, 6.0);
    let ages: f64 = numbers.series("pinwatch_submit_to_outcome_seconds_count").map(|(_, count)| count).sum();
    assert_eq!(ages, all);

    let submits = ["accepted", "duplicate", "finished", "at_capacity"]
        .map(|result| numbers.value(&format!(r#"pinwatch_submits_total{{result="{result}"}}"#)));
    assert_eq!(submits, [6.0, 1.0, 1.0, 0.0]);

    // The times that they took.
    let of_final =
        |part: &str| numbers.value(&format!(r#"pinwatch_polls_per_pin_{part}{{outcome="final"}}"#));
    assert_eq!(of_final("count"), 3.0);
    assert!(of_final("sum") >= 3.0);
    let ended: f64 = numbers.series("pinwatch_polls_per_pin_count").map(|(_, count)| count).sum();
    assert_eq!(ended, all);
    let stats = client.stats();
    assert_eq!(stats["neverFinal"], 0.0);
    assert_eq!(numbers.value("pinwatch_never_final_ratio"), 0.0);
    let noticed =
        ["sum", "count"].map(|part| numbers.value(&format!("pinwatch_final_notice_delay_seconds_{part}")));
    assert_eq!(noticed[1], 3.0);
    assert_close(stats["finalNoticeDelay"].as_f64().unwrap(), noticed[0] / noticed[1]);
    let per_pin: f64 = numbers.series("pinwatch_polls_per_pin_sum").map(|(_, sum)| sum).sum();
    assert_close(stats["pollsPerPin"].as_f64().unwrap(), per_pin / all);
    let ages = stats["timeToFinal"].as_object().unwrap();
    assert_eq!(ages.values().filter_map(Value::as_u64).sum::<u64>(), 3, "{ages:?}");
    let young = numbers.value(r#"pinwatch_polls_by_age_total{age="0-1m"}"#);
    assert_eq!(stats["pollsByAge"]["0-1m"].as_f64(), Some(young));
    let in_flight: f64 = numbers.series("pinwatch_pins_in_flight_by_age").map(|(_, value)| value).sum();
    assert_eq!((in_flight, numbers.series("pinwatch_pins_in_flight_by_age").count()), (0.0, 6));
    assert_eq!(numbers.value("pinwatch_polls_late"), 0.0);
    let by_age: f64 = numbers.series("pinwatch_polls_by_age_total").map(|(_, value)| value).sum();
    assert_eq!(Some(by_age), stats["polls"]["total"].as_f64());

    let polls: f64 = numbers.series("pinwatch_polls_total").map(|(_, value)| value).sum();
    assert_eq!(Some(polls), stats["polls"]["total"].as_f64());
    assert!(numbers.value(r#"pinwatch_polls_total{class="rejected"}"#) >= 3.0);
    assert!(numbers.value(r#"pinwatch_polls_total{class="understood"}"#) >= 3.0);
    assert_eq!(numbers.value("pinwatch_poll_duration_seconds_count"), polls);
    assert_eq!(numbers.value("pinwatch_poll_lateness_seconds_count"), polls);
    assert!(commits(&numbers, "changes") >= 1.0);

    assert_eq!(numbers.value("pinwatch_pins_in_flight"), 0.0);
    assert_eq!(numbers.value("pinwatch_pins_in_flight_max"), 1_000_000.0);
    assert_eq!(numbers.value("pinwatch_polls_in_flight_max"), 32.0);
    assert_eq!(numbers.value("pinwatch_connections_max"), 256.0);
    assert_eq!(numbers.value("pinwatch_poll_rate_limit"), 0.0);
    let version = env!("CARGO_PKG_VERSION");
    let build = &served.daemon.client().stats()["build"];
    let names = ["commit", "date", "target", "features", "sqlite"];
    let rest = names.map(|name| format!(r#",{name}="{}""#, build[name].as_str().unwrap())).concat();
    let labels = format!(r#"version="{version}"{rest}"#);
    assert_eq!(numbers.value(&format!("pinwatch_build_info{{{labels}}}")), 1.0);
    assert!(numbers.value("process_start_time_seconds") > 1_700_000_000.0);
    for part in ["schedule", "store"] {
        assert_eq!(numbers.value(&format!(r#"pinwatch_part_up{{part="{part}"}}"#)), 1.0);
    }
    // Ours; those before it may take a moment to be gone.
    served.until("pinwatch_connections", 1.0);
}

/// `stats` tells thousandths.
#[track_caller]
fn assert_close(told: f64, exact: f64) {
    assert!((told - exact).abs() <= 0.000_51, "{told} for {exact}");
}

#[test]
fn pinwatch_never_final_ratio_counts_pins_that_reach_their_deadline() {
    let served = Served::with(&["schedule.deadline=300ms", "schedule.deadline_grace=0s"]);
    served.finish(&["sim-delivered-1", "sim-waiting-1"]);
    let numbers = served.numbers();
    assert_eq!(numbers.value("pinwatch_never_final_ratio"), 0.5);
    assert_eq!(numbers.value(r#"pinwatch_polls_per_pin_count{outcome="deadline"}"#), 1.0);
    assert_eq!(served.daemon.client().stats()["neverFinal"], 0.5);
}

#[test]
fn metrics_show_the_configured_rate_and_the_polls_in_flight() {
    let served = Served::with(&["api.rate=100"]);
    assert_eq!(served.numbers().value("pinwatch_poll_rate_limit"), 100.0);
    let mut client = served.daemon.client();
    for n in 0..3 {
        submit(&mut client, &format!("sim-stall-{n}"));
    }
    let numbers = served.until("pinwatch_polls_in_flight", 3.0);
    assert_eq!(numbers.value("pinwatch_pins_in_flight"), 3.0);
}

#[test]
fn metrics_show_the_trouble_backlog_and_oldest_outcome_of_a_failing_sink() {
    let served = Served::start();
    served.finish(&["sim-delivered-1"]);
    served.until(r#"pinwatch_sink_backlog{sink="file"}"#, 0.0);
    let away = served.place.folder.path().join("away");
    fs::rename(&served.place.out, &away).expect("a folder can be renamed");
    // The first may still go to the file that was open.
    served.finish(&["sim-delivered-2"]);
    served.finish(&["sim-delivered-3", "sim-delivered-4"]);
    let numbers = served.until(r#"pinwatch_sink_trouble{sink="file"}"#, 1.0);
    assert!(numbers.value(r#"pinwatch_sink_backlog{sink="file"}"#) >= 2.0);
    assert_eq!(numbers.value(r#"pinwatch_sink_circuit_open{sink="file"}"#), 0.0, "only a webhook has one");
    until("the next attempt is known, and soon", || {
        let next = served.numbers().value(r#"pinwatch_sink_next_attempt_seconds{sink="file"}"#);
        (next > 0.0 && next <= 6.0).then_some(())
    });
    until("the oldest outcome has an age", || {
        let age = served.numbers().value(r#"pinwatch_sink_oldest_undelivered_age_seconds{sink="file"}"#);
        (age > 0.0).then_some(())
    });
    let (status, ready) = served.ready();
    assert_eq!((status, &ready["status"]), (200, &json(r#""degraded""#)), "{ready}");
    let reason = &ready["reasons"][0];
    assert_eq!(
        (&reason["code"], &reason["sink"]),
        (&json(r#""sink_trouble""#), &json(r#""file""#)),
        "{ready}"
    );
    assert!(["since", "until", "what"].iter().all(|member| reason[*member].is_string()), "{ready}");

    fs::rename(&away, &served.place.out).expect("a folder can be renamed");
    let numbers = served.until(r#"pinwatch_sink_trouble{sink="file"}"#, 0.0);
    assert_eq!(numbers.value(r#"pinwatch_sink_backlog{sink="file"}"#), 0.0);
    assert_eq!(numbers.value(r#"pinwatch_sink_oldest_undelivered_age_seconds{sink="file"}"#), 0.0);
    assert_eq!(numbers.value(r#"pinwatch_sink_next_attempt_seconds{sink="file"}"#), 0.0);
    assert_eq!(served.ready(), (200, json(r#"{"status":"ready","reasons":[]}"#)));
}
