//! Commands that send requests and print the answers.

use std::io::Read;
use std::process::{Command, Stdio};

use predicates::prelude::*;
use predicates::str::contains;
use serde_json::json;

use super::pinwatch;
use crate::cli::fake::{Fake, end, error, record};

#[test]
fn submit_prints_each_answer_and_a_summary() {
    let fake = Fake::new(|socket| {
        let mut client = socket.accept();
        for (pin, state) in [("9C81", "accepted"), ("9C82", "duplicate"), ("9C83", "finished")] {
            client
                .expect(json!({"op": "submit", "pinId": pin, "reference": "r", "deadline": "30m",
                               "metadata": {"user": 7}}))
                .say(json!({"ok": true, "pinId": pin, "state": state}));
        }
    });
    pinwatch(&["submit", "9C81", "9C82", "9C83", "--reference", "r", "--deadline", "30m"])
        .args(["--metadata", r#"{"user":7}"#, "--socket"])
        .arg(fake.socket())
        .assert()
        .code(0)
        .stdout(predicates::str::starts_with(r#"{"ok":true,"pinId":"9C81","state":"accepted"}"#))
        .stderr("3 PINs: 1 accepted, 1 duplicate, 1 finished before\n");
    fake.join();
}

#[test]
fn each_refused_pin_is_named_with_its_line_and_reason_and_submit_exits_1() {
    let fake = Fake::new(|socket| {
        let mut client = socket.accept();
        client
            .expect(json!({"op": "submit", "pinId": "9C81", "again": true}))
            .say(json!({"ok": true, "pinId": "9C81", "state": "accepted"}))
            .expect(json!({"op": "submit", "pinId": "9C82", "reference": "mine", "again": true}))
            .say(error("at_capacity"));
    });
    let file = fake.dir().join("pins.txt");
    std::fs::write(&file, "# PINs\n9C81\n\nnot a pin\n{\"pinId\":\"9C82\",\"reference\":\"mine\"}\n")
        .unwrap();
    pinwatch(&["submit", "--again", "--file"])
        .arg(file)
        .arg("--socket")
        .arg(fake.socket())
        .assert()
        .code(1)
        .stdout(contains(r#"{"ok":false,"line":4,"pinId":"not a pin","error":"#).and(contains("at_capacity")))
        .stderr(
            contains("line 4: not a pin is refused: a PIN ID has only")
                .and(contains("line 5: 9C82 is refused: says the fake (at_capacity)"))
                .and(contains("3 PINs: 1 accepted, 2 refused")),
        );
    fake.join();
}

#[test]
fn a_file_without_any_valid_pin_makes_a_short_error_message() {
    let fake = Fake::new(|socket| socket.accept().until_gone());
    let file = fake.dir().join("pins.txt");
    std::fs::write(&file, "a,b\n".repeat(1000)).unwrap();
    let assert =
        pinwatch(&["submit", "--file"]).arg(file).arg("--socket").arg(fake.socket()).assert().code(1);
    let stderr = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(stderr.lines().count() < 30 && stderr.ends_with("1,000 PINs: 1,000 refused\n"), "{stderr}");
    fake.join();
}

#[test]
fn submit_reads_while_it_writes_so_neither_side_blocks_the_other() {
    const PINS: usize = 100_000;
    let fake = Fake::new(|socket| {
        let mut client = socket.accept();
        // The answers are far larger than the requests: a client that only writes would block.
        let padding = "x".repeat(200);
        for _ in 0..PINS {
            let pin = client.hear().unwrap()["pinId"].clone();
            client.say(json!({"ok": true, "pinId": pin, "state": "accepted", "padding": padding}));
        }
    });
    let pins: String = (0..PINS).map(|n| format!("PIN-{n}\n")).collect();
    pinwatch(&["submit", "-", "--socket"])
        .arg(fake.socket())
        .write_stdin(pins)
        .assert()
        .code(0)
        .stderr("100,000 PINs: 100,000 accepted\n");
    fake.join();
}

#[test]
fn submit_reports_how_many_pins_were_accepted_if_the_daemon_dies() {
    let fake = Fake::new(|socket| {
        let mut client = socket.accept();
        let pin = client.hear().unwrap()["pinId"].clone();
        client.say(json!({"ok": true, "pinId": pin, "state": "accepted"})).hear();
    });
    pinwatch(&["submit", "9C81", "9C82", "9C83", "--socket"])
        .arg(fake.socket())
        .assert()
        .code(1)
        .stderr(contains("1 PIN: 1 accepted").and(contains("submit them all again")));
    fake.join();
}

#[test]
fn show_list_cancel_stats_and_ping_print_the_daemons_answer() {
    let fake = Fake::new(|socket| {
        let pin = json!({"pinId": "9C81", "state": "in_flight", "polls": 2});
        socket.accept().expect(json!({"op": "show", "pinId": "9C81"})).say(json!({"ok": true, "pin": pin}));
        let answer =
            json!({"ok": true, "pinId": "9C81", "state": "cancelled", "outcome": record(1, "9C81", None)});
        socket
            .accept()
            .expect(json!({"op": "cancel", "pinId": "9C81"}))
            .say(answer)
            .expect(json!({"op": "cancel", "pinId": "9C82"}))
            .say(error("not_found"));
        socket.accept().expect(json!({"op": "stats"})).say(json!({"ok": true, "stats": {"in_flight": 3}}));
        socket.accept().expect(json!({"op": "ping"})).say(json!({"ok": true, "version": "9.9.9"}));
        socket
            .accept()
            .expect(json!({"op": "show", "pinId": "9C82"}))
            .say(error("not_found"))
            .expect(json!({"op": "show", "reference": "9C82"}))
            .say(error("not_found"));
    });
    let ask = |args: &[&str]| pinwatch(args).arg("--socket").arg(fake.socket()).assert();
    ask(&["show", "9C81"]).code(0).stdout("{\"pinId\":\"9C81\",\"state\":\"in_flight\",\"polls\":2}\n");
    ask(&["cancel", "9C81", "9C82"])
        .code(1)
        .stdout(
            contains("cancelled").and(contains(r#"{"ok":false,"pinId":"9C82","error":{"code":"not_found""#)),
        )
        .stderr(contains("PIN 9C82 is not cancelled: says the fake"));
    ask(&["stats"]).code(0).stdout("{\"in_flight\":3}\n");
    ask(&["ping"]).code(0).stdout(contains("9.9.9"));
    ask(&["show", "9C82"])
        .code(1)
        .stdout(contains(r#""pinId":"9C82","error":{"code":"not_found""#))
        .stderr(contains("does not know the PIN or reference 9C82"));
    fake.join();
}

#[test]
fn submit_tries_again_when_the_daemon_has_no_free_connection() {
    let fake = Fake::new(|socket| {
        socket.turn_away(3);
        let mut client = socket.accept();
        for pin in ["9C81", "9C82"] {
            client
                .expect(json!({"op": "submit", "pinId": pin}))
                .say(json!({"ok": true, "pinId": pin, "state": "accepted"}));
        }
    });
    pinwatch(&["submit", "9C81", "9C82", "--socket"])
        .arg(fake.socket())
        .assert()
        .code(0)
        .stderr("2 PINs: 2 accepted\n");
    fake.join();
}

#[test]
fn the_daemons_error_before_it_closes_the_connection_is_shown() {
    let fake = Fake::new(|socket| {
        let mut client = socket.accept();
        client.say(error("timeout"));
    });
    pinwatch(&["stats", "--socket"])
        .arg(fake.socket())
        .assert()
        .code(1)
        .stderr(contains("says the fake (timeout)").and(contains("Broken pipe").not()));
    fake.join();
}

#[test]
fn list_asks_page_by_page_up_to_the_limit_and_prints_the_next_command() {
    let fake = Fake::new(|socket| {
        let page = |from: u64, many: u64, next: &str| {
            let pins: Vec<_> = (from..from + many).map(|n| json!({"pinId": format!("PIN-{n}")})).collect();
            json!({"ok": true, "pins": pins, "next": next})
        };
        socket
            .accept()
            .expect(json!({"op": "list", "limit": 500}))
            .say(page(0, 500, "a"))
            .expect(json!({"op": "list", "limit": 100, "after": "a"}))
            .say(page(500, 100, "b"));
    });
    pinwatch(&["list", "--limit", "600", "--socket"])
        .arg(fake.socket())
        .assert()
        .code(0)
        .stdout(predicates::function::function(|out: &str| {
            out.lines().count() == 601 && out.ends_with("\n{\"next\":\"b\"}\n")
        }))
        .stderr("there are more: --after b\n");
    fake.join();
}

#[test]
fn an_answer_that_is_not_the_protocol_is_quoted_in_one_printable_line() {
    let fake = Fake::new(|socket| {
        socket.accept_unanswered().say_raw("SSH-2.0-\x1b[31mOpenSSH\n").until_gone();
    });
    pinwatch(&["ping", "--socket"])
        .arg(fake.socket())
        .assert()
        .code(1)
        .stderr(contains(r"SSH-2.0-\u{1b}[31mOpenSSH").and(contains("can't read")));
    fake.join();
}

#[test]
fn tail_exits_0_without_a_message_when_its_output_is_closed() {
    let fake = Fake::new(|socket| {
        let mut client = socket.accept();
        client.hear();
        for seq in 0..5000 {
            client.say(record(seq, "9C81", None));
        }
        client.say(end("behind all"));
    });
    let mut tail = Command::new(env!("CARGO_BIN_EXE_pinwatch"))
        .args(["tail", "-n", "5000", "--socket"])
        .arg(fake.socket())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(tail.stdout.take());
    let mut stderr = String::new();
    tail.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((tail.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}
