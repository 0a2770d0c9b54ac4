//! Commands that wait for outcomes, also over a restart of the daemon.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use predicates::prelude::*;
use predicates::str::contains;
use serde_json::{Value, json};

use super::pinwatch;
use crate::cli::fake::{Connection, Fake, end, error, follow, position, record};

/// Answers `show` for PINs that are in flight.
fn show_in_flight(client: &mut Connection, pins: &[&str]) {
    for pin in pins {
        client
            .expect(json!({"op": "show", "pinId": pin}))
            .say(json!({"ok": true, "pin": {"pinId": pin, "state": "in_flight"}}));
    }
}

/// The `seq` of each line that is an outcome.
fn seqs(stdout: &[u8]) -> Vec<i64> {
    let lines = String::from_utf8_lossy(stdout);
    lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_i64()).collect()
}

#[test]
fn tail_follows_over_restarts_without_gap_or_duplicate_in_any_order_of_seqs() {
    let fake = Fake::new(|socket| {
        let mut client = socket.accept();
        client
            .expect(json!({"op": "tail", "last": 10, "follow": true, "positions": true}))
            .say(position("start"))
            .say(record(4, "a", None))
            .say(position("behind a"))
            .say(record(8, "b", None))
            .say(record(5, "c", None))
            // The connection breaks in the middle of a record, which the next daemon sends completely.
            .say_raw("{\"seq\":9,\"pinId\":");
        drop(client);
        let socket = socket.restart();
        let mut client = socket.accept();
        client
            .expect(follow("behind a"))
            .say(position("behind a"))
            // Some outcomes after the last position come again, and one that another node committed late.
            .say(record(3, "late", None))
            .say(record(8, "b", None))
            .say(error("shutting_down"));
        client.until_gone();
        socket
            .accept()
            .expect(follow("behind a"))
            .say(position("behind a"))
            .say(record(3, "late", None))
            .say(record(8, "b", None))
            .say(position("behind b"))
            .say(record(5, "c", None))
            .say(record(9, "d", None))
            .say(position("behind d"))
            .say(record(1, "e", None))
            .until_gone();
    });
    let mut tail = Command::new(env!("CARGO_BIN_EXE_pinwatch"))
        .args(["tail", "-f", "--socket"])
        .arg(fake.socket())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Each line is printed at once and not when a buffer is full; else the script would wait for ever.
    let stdout = BufReader::new(tail.stdout.take().unwrap());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let lines: Vec<_> = (0..6).map_while(|_| receiver.recv_timeout(Duration::from_secs(20)).ok()).collect();
    tail.kill().unwrap();
    tail.wait().unwrap();
    assert_eq!(seqs(lines.join("\n").as_bytes()), [4, 8, 5, 3, 9, 1]);
    fake.join();
}

#[test]
fn tail_starts_from_a_position_or_a_seq_and_prints_positions_on_request() {
    for (from, asked) in [("p0,3:7", json!("p0,3:7")), ("7", json!(7)), ("-7", json!(-7))] {
        let fake = Fake::new(move |socket| {
            socket
                .accept()
                .expect(json!({"op": "tail", "from": asked, "follow": false, "positions": true}))
                .say(position("p1"))
                .say(record(8, "a", None))
                .say(position("p2"))
                .say(end("p2"));
        });
        let from = format!("--from={from}");
        let args = ["tail", &from, "--positions", "--socket"];
        let assert = pinwatch(&args).arg(fake.socket()).assert().code(0).stderr("");
        let lines = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(
            (lines.len(), lines[0], lines[2]),
            (3, &*position("p1").to_string(), &*position("p2").to_string())
        );
        fake.join();
    }
    pinwatch(&["tail", "--from", "yesterday"])
        .assert()
        .code(2)
        .stderr(contains("a seq, such as 1200, or a position"));
}

#[test]
fn tail_reports_outcomes_that_were_removed_before_it_could_print_them() {
    let fake = Fake::new(|socket| {
        socket
            .accept()
            .expect(json!({"op": "tail", "last": 10, "follow": false, "positions": true}))
            .say(position("start"))
            .say(record(4, "a", None))
            .say(position("behind a"))
            .say(json!({"ok": true, "removed": {"from": 5, "to": 80_004}}))
            .say(record(80_005, "b", None))
            .say(position("behind b"))
            .say(end("behind b"));
    });
    let assert = pinwatch(&["tail", "--socket"]).arg(fake.socket()).assert().code(0).stderr(
        "outcomes from seq 5 to 80004 are missing here: store.retention removed them before they were read\n",
    );
    assert_eq!(seqs(&assert.get_output().stdout), [4, 80_005]);
    fake.join();
}

#[test]
fn tail_does_not_reconnect_after_a_permanent_refusal() {
    let fake = Fake::new(|socket| {
        socket
            .accept()
            .expect(json!({"op": "tail", "last": 0, "follow": true, "positions": true}))
            .say(position("here"))
            .say(error("invalid_request"));
    });
    pinwatch(&["tail", "-f", "-n", "0", "--socket"])
        .arg(fake.socket())
        .assert()
        .code(1)
        .stdout(contains(r#"{"ok":false,"error":{"code":"invalid_request""#))
        .stderr(contains("says the fake"));
    fake.join();
}

#[test]
fn wait_exits_0_when_all_were_delivered_whether_before_or_meanwhile() {
    let fake = Fake::new(|socket| {
        let mut client = socket.accept();
        client.tell_position("here");
        client
            .expect(json!({"op": "show", "pinId": "a"}))
            .say(json!({"ok": true, "pin": {"pinId": "a", "state": "finished", "outcome": record(2, "a", Some(true))}}));
        show_in_flight(&mut client, &["b"]);
        client
            .expect(follow("here"))
            .say(record(5, "somebody-elses", Some(false)))
            .say(record(6, "b", Some(true)))
            .until_gone();
    });
    let assert =
        pinwatch(&["wait", "a", "b", "a", "--socket"]).arg(fake.socket()).assert().code(0).stderr("");
    assert_eq!(seqs(&assert.get_output().stdout), [2, 6]);
    fake.join();
}

#[test]
fn wait_exits_4_when_a_pin_was_not_delivered_or_its_delivery_is_unknown() {
    for delivered in [Some(false), None] {
        let fake = Fake::new(move |socket| {
            let mut client = socket.accept();
            client.tell_position("here");
            show_in_flight(&mut client, &["a", "b"]);
            client
                .expect(follow("here"))
                .say(record(5, "a", Some(true)))
                .say(record(6, "b", delivered))
                .until_gone();
        });
        pinwatch(&["wait", "a", "b", "--socket"]).arg(fake.socket()).assert().code(4);
        fake.join();
    }
}

#[test]
fn wait_exits_124_on_a_timeout_and_names_the_remaining_pins() {
    let fake = Fake::new(|socket| {
        let mut client = socket.accept();
        client.tell_position("here");
        show_in_flight(&mut client, &["a", "b"]);
        client.expect(follow("here")).say(record(5, "a", Some(false))).until_gone();
    });
    pinwatch(&["wait", "a", "b", "--timeout", "3s", "--socket"])
        .arg(fake.socket())
        .assert()
        .code(124)
        .stdout(contains("\"a\""))
        .stderr("timed out: 1 PIN without an outcome yet, still in flight: b\n");
    fake.join();
}

#[test]
fn a_timeout_that_is_too_long_for_any_clock_means_no_timeout() {
    let fake = Fake::new(|socket| {
        let mut client = socket.accept();
        client.tell_position("5");
        show_in_flight(&mut client, &["a"]);
        client.expect(follow("5")).say(record(5, "a", Some(true))).until_gone();
    });
    pinwatch(&["wait", "a", "--timeout", "400000000000years", "--socket"])
        .arg(fake.socket())
        .assert()
        .code(0);
    fake.join();
}

#[test]
fn wait_outlives_a_restart_and_does_not_wait_for_a_pin_that_is_lost() {
    let fake = Fake::new(|socket| {
        let mut client = socket.accept();
        client.tell_position("here");
        show_in_flight(&mut client, &["a", "b", "c"]);
        client
            .expect(follow("here"))
            .say(position("here"))
            .say(record(6, "a", Some(true)))
            .say(position("behind a"))
            // Its outcome is committed late, with a lower seq than the last one seen.
            .say(record(9, "somebody-elses", None));
        drop(client);
        let mut client = socket.restart().accept();
        show_in_flight(&mut client, &["b"]);
        client.expect(json!({"op": "show", "pinId": "c"})).say(error("not_found"));
        client.expect(follow("behind a")).say(record(3, "b", Some(true))).until_gone();
    });
    let assert = pinwatch(&["wait", "a", "b", "c", "--socket"]).arg(fake.socket()).assert().code(1);
    assert_eq!(seqs(&assert.get_output().stdout), [6, 3]);
    assert!(contains("does not know PIN c").eval(&String::from_utf8_lossy(&assert.get_output().stderr)));
    fake.join();
}

#[test]
fn wait_asks_again_about_its_pins_if_outcomes_were_removed_before_it_saw_them() {
    let fake = Fake::new(|socket| {
        let mut client = socket.accept();
        client.tell_position("here");
        show_in_flight(&mut client, &["a", "b", "c"]);
        client
            .expect(follow("here"))
            .say(position("here"))
            .say(json!({"ok": true, "removed": {"from": 5, "to": 90}}))
            .say(record(91, "a", Some(true)))
            .say(position("there"))
            .until_gone();
        let mut client = socket.accept();
        client.expect(json!({"op": "show", "pinId": "b"})).say(error("not_found"));
        show_in_flight(&mut client, &["c"]);
        client.expect(follow("there")).say(record(92, "c", Some(true))).until_gone();
    });
    let assert = pinwatch(&["wait", "a", "b", "c", "--socket"]).arg(fake.socket()).assert().code(1);
    assert_eq!(seqs(&assert.get_output().stdout), [91, 92]);
    assert!(contains("does not know PIN b").eval(&String::from_utf8_lossy(&assert.get_output().stderr)));
    fake.join();
}

#[test]
fn wait_says_why_it_can_not_reconnect_and_continues_when_it_can() {
    let fake = Fake::new(|socket| {
        let mut client = socket.accept();
        client.tell_position("5");
        show_in_flight(&mut client, &["a"]);
        client.expect(follow("5"));
        drop(client);
        let socket = socket.restart();
        // More than one connect tries.
        socket.turn_away(12);
        let mut client = socket.accept();
        show_in_flight(&mut client, &["a"]);
        client.expect(follow("5")).say(record(5, "a", Some(true))).until_gone();
    });
    let stderr = contains("takes no more connections now: says the fake (at_capacity); trying again\n");
    pinwatch(&["wait", "a", "--socket"]).arg(fake.socket()).assert().code(0).stderr(stderr.count(1));
    fake.join();
}

#[test]
fn submit_with_wait_prints_outcomes_that_arrive_while_it_submits() {
    let fake = Fake::new(|socket| {
        let mut client = socket.accept();
        client.tell_position("here");
        for pin in ["a", "b"] {
            client
                .expect(json!({"op": "submit", "pinId": pin}))
                .say(json!({"ok": true, "pinId": pin, "state": "accepted"}));
        }
        client.expect(json!({"op": "submit", "pinId": "c"})).say(
            json!({"ok": true, "pinId": "c", "state": "finished", "outcome": record(1, "c", Some(true))}),
        );
        client
            .expect(follow("here"))
            .say(record(5, "a", Some(true)))
            .say(record(6, "b", Some(false)))
            .until_gone();
    });
    let assert =
        pinwatch(&["submit", "a", "b", "c", "--wait", "--socket"]).arg(fake.socket()).assert().code(4);
    assert_eq!(seqs(&assert.get_output().stdout), [1, 5, 6]);
    fake.join();
}

#[test]
fn submit_with_wait_exits_1_for_a_refused_pin_even_if_another_is_undelivered() {
    let fake = Fake::new(|socket| {
        let mut client = socket.accept();
        client.tell_position("here").expect(json!({"op": "submit", "pinId": "a"})).say(
            json!({"ok": true, "pinId": "a", "state": "finished", "outcome": record(1, "a", Some(false))}),
        );
        client.until_gone();
    });
    pinwatch(&["submit", "a", "a/b", "--wait", "--socket"])
        .arg(fake.socket())
        .assert()
        .code(1)
        .stderr(contains("a/b is refused"));
    fake.join();
}
