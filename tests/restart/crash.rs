//! `kill -9`: nothing that was acknowledged is lost, and nothing is delivered twice.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::by_pin;
use crate::support::{Client, Daemon, Place, Simulated, change, until, until_true};

#[test]
fn every_acknowledged_pin_is_polled_on_after_a_kill_and_ends_once() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    let mut client = daemon.client();
    let early: Vec<String> = (0..150).map(|n| format!("sim-delivered-{n}")).collect();
    let late: Vec<String> = (0..150).map(|n| format!("sim-1s-{n}")).collect();
    client.submit_all(&early);
    until_true("some are final before", || daemon.records().len() > 50);
    client.submit_all(&late);
    let daemon = daemon.kill9().start();
    let records = daemon.all_records(300);
    let count = by_pin(&records);
    for pin in early.iter().chain(&late) {
        assert_eq!(count.get(pin), Some(&1), "{pin}");
    }
    for record in &records {
        assert_eq!((&record["outcome"], &record["delivered"]), (&json!("final"), &json!(true)), "{record}");
    }
    until_true("it knows of none in flight", || daemon.client().stats()["inFlight"] == 0);
}

#[test]
fn the_details_of_a_submit_survive_a_kill() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).never_due().start();
    let request =
        r#"{"op":"submit","pinId":"sim-waiting-1","reference":"é","metadata":{ "n":1.50 },"deadline":"1h"}"#;
    daemon.client().ask(request);
    let shown = |daemon: &Daemon| {
        let mut client = daemon.client();
        client.write("{\"op\":\"show\",\"pinId\":\"sim-waiting-1\"}\n");
        client.line().unwrap()
    };
    let times = |line: &str| {
        let shown: Value = serde_json::from_str(line).unwrap();
        [shown["pin"]["submittedAt"].clone(), shown["pin"]["deadlineAt"].clone()]
    };
    let before = shown(&daemon);
    let daemon = daemon.kill9().start();
    let after = shown(&daemon);
    assert_eq!(times(&after), times(&before));
    assert!(after.contains(r#""reference":"é","metadata":{"n":1.50}"#), "{after}");
}

/// Submits until the daemon is killed after some answer; returns the PINs that were acknowledged.
fn submit_until_killed(daemon: Daemon, round: usize, random: &mut fastrand::Rng) -> (Vec<String>, Place) {
    let mut client: Client = daemon.client();
    let kinds = ["sim-delivered", "sim-100ms", "sim-400ms", "sim-none"];
    let pins: Vec<String> =
        (0..600).map(|n| format!("{}-{round}-{n}", random.choice(kinds).unwrap())).collect();
    let submit = |pin: &String| format!("{{\"op\":\"submit\",\"pinId\":\"{pin}\",\"deadline\":\"3s\"}}\n");
    // In several pieces, so that there are several commits.
    let mut acknowledged = Vec::new();
    let last_answer = random.usize(1..pins.len());
    let mut unread = 0;
    for (n, pin) in pins.iter().enumerate() {
        client.write(submit(pin));
        unread += 1;
        while unread > 40 || n == last_answer && unread > 0 {
            acknowledged.push(client.answer());
            unread -= 1;
        }
        if n == last_answer {
            break;
        }
    }
    // Of these, too, some may be in flight at the kill.
    client.write(pins[last_answer + 1..].iter().map(submit).collect::<String>());
    let place = daemon.kill9();
    // Answers that it sent before its end are promises.
    while let Some(line) = client.whole_line() {
        acknowledged.push(serde_json::from_str(&line).unwrap());
    }
    let pins = acknowledged.into_iter().map(|answer| {
        assert_eq!(answer["state"], "accepted", "{answer}");
        answer["pinId"].as_str().unwrap().to_owned()
    });
    (pins.collect(), place)
}

#[test]
fn kills_at_any_moment_under_load_lose_and_duplicate_nothing() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let api = Simulated::start();
    let mut place = Place::new(&api.base_url());
    let mut acknowledged = HashSet::new();
    for round in 0..5 {
        let daemon = place.start();
        let pins;
        (pins, place) = submit_until_killed(daemon, round, &mut random);
        acknowledged.extend(pins);
    }
    let daemon = place.start();
    let mut client = daemon.client();
    until_true("all have ended", || client.stats()["inFlight"] == 0);
    let newest = client.stats()["newestSeq"].as_i64();
    until_true("all are delivered", || {
        daemon.records().last().is_some_and(|last| last["seq"].as_i64() == newest)
    });

    let count = by_pin(&daemon.records());
    let lost: Vec<_> = acknowledged.iter().filter(|pin| !count.contains_key(*pin)).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), acknowledged.len());
    // Those that were not acknowledged may have been accepted, or not; none ends twice.
    let doubled: Vec<_> = count.iter().filter(|(_, count)| **count > 1).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
    let seqs: Vec<_> = daemon.records().iter().map(|record| record["seq"].as_i64().unwrap()).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "in order");
}

#[test]
fn a_line_that_a_kill_cut_off_is_written_again() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    daemon.client().submit_all(&["sim-delivered-1".into(), "sim-delivered-2".into()]);
    daemon.all_records(2);
    let place = daemon.kill9();
    let whole = fs::read_to_string(place.results()).unwrap();
    let second = whole.find('\n').unwrap() + 1;
    // The cursor may be past the second: then only the file knows that it has it, so both are set back.
    change(&place.store(), "UPDATE sink SET cursor = (SELECT min(seq) FROM outcome)");
    fs::write(place.results(), &whole[..second + 30]).unwrap();
    let daemon = place.start();
    until("both lines", || {
        let text = fs::read_to_string(daemon.place.results()).unwrap();
        (text == whole).then_some(())
    });
}

#[test]
fn a_cursor_that_is_behind_the_file_after_a_kill_duplicates_no_line() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    let pins: Vec<String> = (0..20).map(|n| format!("sim-delivered-{n}")).collect();
    daemon.client().submit_all(&pins);
    daemon.all_records(20);
    let place = daemon.kill9();
    change(&place.store(), "UPDATE sink SET cursor = 3");
    let daemon = place.start();
    assert_eq!(daemon.client().submit("sim-delivered-new"), "accepted");
    let records = daemon.all_records(21);
    assert_eq!(records[20]["pinId"], "sim-delivered-new");
    assert_eq!(by_pin(&records).len(), 21);
}

#[test]
fn other_files_beside_the_result_file_are_neither_changed_nor_used() {
    let api = Simulated::start();
    let place = Place::new(&api.base_url());
    let (results, audit) = (place.results(), place.path("outcomes.jsonl.audit"));
    let file =
        |name: &str, path: &Path| format!(r#"{{type="file",name="{name}",path={path:?},from="oldest"}}"#);
    let one = format!("[{}]", file("file", &results));
    let two = format!("[{},{}]", file("file", &results), file("audit", &audit));

    let daemon = place.set("sink", &two).start();
    let pins: Vec<String> = (0..20).map(|n| format!("sim-delivered-{n}")).collect();
    daemon.client().submit_all(&pins);
    daemon.all_records(20);
    until_true("the other sink has them", || fs::read_to_string(&audit).unwrap().lines().count() == 20);
    let place = daemon.kill9();
    let text = fs::read_to_string(&results).unwrap();
    // The kill left the cursor of the one behind, and the file was rotated; the other one has lines since.
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let rotated = place.path("outcomes.jsonl.1");
    fs::remove_file(&results).unwrap();
    fs::write(&rotated, lines[..10].concat() + &lines[10][..60]).unwrap();
    change(&place.store(), "UPDATE sink SET cursor = 3 WHERE name = 'file'");
    let copy = lines[..5].concat() + &lines[5][..40];
    let neighbours = [("pos", "{\"seq\":"), ("copy", &copy), ("2.gz", "\u{1f}\u{8b}\n{\"seq\"")];
    for (name, content) in neighbours {
        fs::write(place.path(&format!("outcomes.jsonl.{name}")), content).unwrap();
    }
    let untouched = |place: &Place| {
        for (name, content) in neighbours {
            let path = place.path(&format!("outcomes.jsonl.{name}"));
            assert_eq!(fs::read_to_string(path).unwrap(), content, "{name}");
        }
    };

    let daemon = place.start();
    daemon.all_records(10);
    assert_eq!(fs::read_to_string(&rotated).unwrap(), lines[..10].concat());
    assert_eq!(fs::read_to_string(&results).unwrap(), lines[10..].concat());
    untouched(&daemon.place);
    // A rotation while the daemon runs.
    fs::rename(&results, daemon.place.path("outcomes.jsonl.3")).unwrap();
    daemon.signal(Signal::HUP);
    until_true("a new file", || results.exists());
    daemon.client().submit("sim-delivered-new");
    assert_eq!(daemon.all_records(1)[0]["pinId"], "sim-delivered-new");
    untouched(&daemon.place);
    // A new sink with such a name gets all outcomes.
    let place = daemon.kill9();
    change(&place.store(), "DELETE FROM sink WHERE name = 'file'");
    fs::remove_file(&results).unwrap();
    let daemon = place.set("sink", &one).start();
    daemon.all_records(21);
    untouched(&daemon.place);
}

#[test]
fn a_sink_gets_the_outcomes_that_it_missed_before_a_kill() {
    let api = Simulated::start();
    let place = Place::new(&api.base_url());
    // The sink's folder goes away, as a disk that is not mounted.
    let folder = place.path("disk");
    fs::create_dir(&folder).unwrap();
    let sinks = format!(r#"[{{type="file",path={:?},from="oldest"}}]"#, folder.join("outcomes.jsonl"));
    let daemon = place.set("sink", &sinks).start();
    fs::remove_dir_all(&folder).unwrap();
    let mut client = daemon.client();
    client.submit("sim-delivered-1");
    client.outcome("sim-delivered-1");
    until_true("the trouble is told", || client.stats()["sinks"]["file"]["trouble"].is_object());
    let shown = client.op(&json!({"op": "show", "pinId": "sim-delivered-1"}));
    assert_eq!(shown["pin"]["sinks"][0]["state"], "pending");
    assert!(shown["pin"]["sinks"][0]["lastError"].is_string(), "{shown}");
    let place = daemon.kill9();
    fs::create_dir(&folder).unwrap();
    let _daemon = place.start();
    let line = until("the line", || {
        fs::read_to_string(folder.join("outcomes.jsonl")).ok().filter(|text| text.ends_with('\n'))
    });
    assert_eq!(line.lines().count(), 1);
}
