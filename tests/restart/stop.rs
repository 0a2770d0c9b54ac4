//! SIGTERM: no new PINs, running polls end, everything is written, exit 0; and tasks that do not end by themselves.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use wiremock::ResponseTemplate;

use crate::support::{Mock, Place, Simulated, code, delivery, until_true};

fn delivered_after(delay: Duration) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json([delivery("MESSAGE_DELIVERED", true)]).set_delay(delay)
}

#[test]
fn a_stop_under_load_answers_every_line_that_it_read() {
    let daemon = Place::new("http://127.0.0.1:9").never_due().start();
    let mut client = daemon.client();
    let lines: String = (0..50_000).map(|n| format!("PIN-{n}\n")).collect();
    let writer = client.stream().try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        // It is cut off by the stop, somewhere.
        let _ = std::io::Write::write_all(&mut &writer, lines.as_bytes());
    });
    let mut answers = vec![client.answer()];
    daemon.signal(Signal::TERM);
    while let Some(line) = client.line() {
        answers.push(serde_json::from_str(&line).unwrap());
    }
    writing.join().unwrap();
    let (status, place) = daemon.end();
    assert_eq!(status.code(), Some(0));

    let accepted = answers.iter().take_while(|answer| answer["state"] == "accepted").count();
    for (n, answer) in answers.iter().enumerate() {
        if n < accepted {
            assert_eq!(answer["pinId"], format!("PIN-{n}"));
        } else {
            assert_eq!(code(answer), "shutting_down", "answer {n}");
        }
    }
    let daemon = place.start();
    assert_eq!(daemon.client().stats()["inFlight"], accepted, "those that were accepted, and no other");
}

#[test]
fn a_poll_that_runs_at_a_stop_is_completed_and_its_outcome_is_delivered() {
    for signal in [Signal::TERM, Signal::INT] {
        let api = Mock::start();
        api.answers_all(delivered_after(Duration::from_millis(700)));
        let daemon = Place::new(&api.base_url()).start();
        daemon.client().submit("A");
        until_true("the poll runs", || api.requests() == 1);
        daemon.signal(signal);
        let (status, place) = daemon.end();
        assert_eq!(status.code(), Some(0));
        let records = place.records();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0]["outcome"], "final");
        assert!(!place.socket().exists());
    }
}

#[test]
fn a_poll_that_exceeds_the_shutdown_grace_is_dropped_and_its_pin_is_kept() {
    let api = Mock::start();
    api.answers_all(delivered_after(Duration::from_secs(3600)));
    let place = Place::new(&api.base_url()).set("api.timeout", "10m").set("shutdown_grace", "200ms");
    let daemon = place.start();
    daemon.client().submit("A");
    until_true("the poll runs", || api.requests() == 1);
    let place = daemon.terminate();
    assert!(place.stderr().contains("their PINs are polled after the next start"));
    assert_eq!(place.records(), [] as [Value; 0]);
    api.answers_all(delivered_after(Duration::ZERO));
    let daemon = place.start();
    assert_eq!(daemon.all_records(1)[0]["outcome"], "final");
}

#[test]
fn a_second_signal_ends_the_daemon_at_once_and_loses_nothing() {
    let api = Mock::start();
    api.answers_all(delivered_after(Duration::from_secs(3600)));
    let place = Place::new(&api.base_url()).set("api.timeout", "10m").set("shutdown_grace", "1h");
    let daemon = place.start();
    daemon.client().submit("A");
    until_true("the poll runs", || api.requests() == 1);
    daemon.signal(Signal::TERM);
    until_true("it stops", || daemon.place.stderr().contains("stopping"));
    until_true("it takes no connections", || !daemon.place.socket().exists());
    daemon.signal(Signal::TERM);
    // Or this would wait for an hour.
    let (status, place) = daemon.end();
    assert_eq!(status.code(), Some(1));
    assert!(place.stderr().contains("stopped at once"), "it says why");
    api.answers_all(delivered_after(Duration::ZERO));
    assert_eq!(place.start().all_records(1)[0]["outcome"], "final");
}

#[test]
fn a_stop_loses_no_pin_and_no_outcome() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    let pins: Vec<String> = (0..200).map(|n| format!("sim-{}ms-{n}", n * 3)).collect();
    daemon.client().submit_all(&pins);
    until_true("some are final", || daemon.records().len() > 20);
    let place = daemon.terminate();
    let before = place.records().len();
    let daemon = place.start();
    let finished = daemon.client().stats()["newestSeq"].as_i64().unwrap();
    assert!(finished >= i64::try_from(before).unwrap());
    let records = daemon.all_records(200);
    assert_eq!(super::by_pin(&records).len(), 200);
}

#[test]
fn after_a_rename_and_sighup_lines_go_to_a_new_file_and_none_is_lost() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    let mut client = daemon.client();
    client.submit("sim-delivered-1");
    daemon.all_records(1);
    let rotated = daemon.place.path("outcomes.jsonl.1");
    fs::rename(daemon.place.results(), &rotated).unwrap();
    daemon.signal(Signal::HUP);
    until_true("a new file", || daemon.place.results().exists());
    client.submit("sim-delivered-2");
    assert_eq!(daemon.all_records(1)[0]["pinId"], "sim-delivered-2");
    assert_eq!(fs::read_to_string(&rotated).unwrap().lines().count(), 1);
    // Over a restart, too.
    let daemon = daemon.kill9().start();
    daemon.client().submit("sim-delivered-3");
    assert_eq!(daemon.all_records(2)[1]["pinId"], "sim-delivered-3");
    assert_eq!(daemon.client().op(&json!({"op": "ping"}))["ok"], true);
}
