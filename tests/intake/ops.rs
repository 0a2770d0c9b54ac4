//! Valid requests of every op.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{idle, polling};
use crate::support::not_run::not_run;
use crate::support::{Place, Simulated, code, pins};

#[test]
fn a_line_with_only_a_pin_id_is_accepted_and_its_outcome_is_delivered() {
    let (_api, daemon) = polling();
    let mut client = daemon.client();
    assert_eq!(
        client.ask("sim-delivered-1"),
        json!({"ok": true, "pinId": "sim-delivered-1", "state": "accepted"})
    );
    assert_eq!(daemon.all_records(1)[0]["pinId"], "sim-delivered-1");
    // As it comes from Windows, and with spaces.
    assert_eq!(client.submit("sim-delivered-2\r"), "accepted");
    assert_eq!(client.submit("  sim-delivered-3\t"), "accepted");
    assert_eq!(client.outcome("sim-delivered-2")["outcome"], "final");
    assert_eq!(client.outcome("sim-delivered-3")["outcome"], "final");
}

#[test]
fn netcat_can_submit_and_wait() {
    // Other netcats have other options.
    let help = Command::new("nc").arg("-h").output();
    if !help.is_ok_and(|help| String::from_utf8_lossy(&help.stderr).contains("OpenBSD")) {
        not_run("netcat as a client", "the package netcat-openbsd");
        return;
    }
    let (_api, daemon) = polling();
    let mut nc = Command::new("nc")
        .arg("-NU")
        .arg(daemon.place.socket())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    nc.stdin
        .take()
        .unwrap()
        .write_all(b"sim-delivered-1\n{\"op\":\"wait\",\"pinId\":\"sim-delivered-1\"}\n")
        .unwrap();
    let output = nc.wait_with_output().unwrap();
    assert!(output.status.success());
    let told = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert_eq!(lines[0]["state"], "accepted");
    assert_eq!(lines[1]["outcome"], daemon.all_records(1)[0]);
}

#[test]
fn a_pin_in_flight_is_a_duplicate_and_an_ended_one_is_finished_unless_again_is_set() {
    let (_api, daemon) = polling();
    let mut client = daemon.client();
    assert_eq!(client.submit("sim-waiting-1"), "accepted");
    for request in [
        json!({"op": "submit", "pinId": "sim-waiting-1"}),
        json!({"op": "submit", "pinId": "sim-waiting-1", "again": true}),
    ] {
        assert_eq!(client.op(&request), json!({"ok": true, "pinId": "sim-waiting-1", "state": "duplicate"}));
    }

    client.submit("sim-delivered-1");
    let outcome = client.outcome("sim-delivered-1");
    assert_eq!(
        client.ask("sim-delivered-1"),
        json!({"ok": true, "pinId": "sim-delivered-1", "state": "finished", "outcome": outcome})
    );
    let again = json!({"op": "submit", "pinId": "sim-delivered-1", "again": true, "reference": "second"});
    assert_eq!(client.op(&again)["state"], "accepted");
    let records = daemon.all_records(2);
    assert_eq!(records[0], outcome);
    assert_eq!(
        (&records[1]["pinId"], &records[1]["reference"]),
        (&json!("sim-delivered-1"), &json!("second"))
    );
    assert!(records[1]["seq"].as_i64() > records[0]["seq"].as_i64());
    // From now on the newer one is the PIN's outcome.
    assert_eq!(client.ask("sim-delivered-1")["outcome"], records[1]);
}

#[test]
fn the_same_pin_twice_in_one_write_is_accepted_once() {
    let daemon = idle();
    let mut client = daemon.client();
    client.write("A\nB\nA\n{\"op\":\"submit\",\"pinId\":\"B\"}\nA\n");
    let states: Vec<_> = (0..5).map(|_| client.answer()["state"].clone()).collect();
    assert_eq!(states, ["accepted", "accepted", "duplicate", "duplicate", "duplicate"]);
    assert_eq!(client.stats()["inFlight"], 2);
}

#[test]
fn list_has_every_pin_in_flight_once_in_the_order_of_submission() {
    let daemon = idle();
    let mut client = daemon.client();
    let pins: Vec<String> = (0..250).map(|n| format!("pin-{n:x}")).collect();
    client.submit_all(&pins);
    for limit in [1000, 100, 125, 7] {
        let mut request = json!({"op": "list", "limit": limit});
        let mut listed = Vec::new();
        loop {
            let page = client.op(&request);
            assert_eq!(page["ok"], true, "{page}");
            let page_pins = page["pins"].as_array().unwrap();
            assert!(page_pins.len() <= limit);
            for pin in page_pins {
                assert!(pin["submittedAt"].is_string() && pin["deadlineAt"].is_string(), "{pin}");
                assert!(pin["nextPollAt"].is_string() && pin["polls"] == 0, "{pin}");
                listed.push(pin["pinId"].as_str().unwrap().to_owned());
            }
            let Some(next) = page.get("next") else { break };
            request["after"] = next.clone();
        }
        assert_eq!(listed, pins, "limit {limit}");
    }
    assert_eq!(client.op(&json!({"op": "list", "after": "pin-f9"})), json!({"ok": true, "pins": []}));
    assert_eq!(client.op(&json!({"op": "list", "after": "pin-f8"}))["pins"][0]["pinId"], "pin-f9");
    for unknown in ["zzz", "@x", "@", "@1 ", "a b"] {
        assert_eq!(code(&client.op(&json!({"op": "list", "after": unknown}))), "invalid_request");
    }
    assert_eq!(client.op(&json!({"op": "list"}))["pins"].as_array().unwrap().len(), 100);
}

#[test]
fn show_has_all_details_of_a_pin_in_flight() {
    let daemon = idle();
    let mut client = daemon.client();
    let metadata = r#"{ "n" : 1.50, "big":1e400, "half":"\ud83d" }"#;
    let request = format!(
        r#"{{"op":"submit","pinId":"A","reference":"order-42","metadata":{metadata},"deadline":"2days"}}"#
    );
    assert_eq!(client.submit(&request), "accepted");
    client.write("{\"op\":\"show\",\"pinId\":\"A\"}\n");
    let line = client.line().unwrap();
    let kept = r#"{"n":1.50,"big":1e400,"half":"\ud83d"}"#;
    assert!(line.contains(&format!(r#""metadata":{kept}"#)), "numbers and escapes to the letter: {line}");
    let shown: Value = serde_json::from_str(&line.replace(kept, "null")).unwrap();
    assert_eq!(shown["ok"], true, "{shown}");
    let pin = &shown["pin"];
    assert_eq!(pin["pinId"], "A");
    assert_eq!(pin["state"], "in_flight");
    assert_eq!(pin["reference"], "order-42");
    assert_eq!(pin["polls"], 0);
    assert_eq!(pin["nextPoll"]["why"], "next interval");
    let time = |member: &str| pin[member].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(time("deadlineAt") - time("submittedAt"), jiff::Span::new().seconds(2 * 86_400).fieldwise());
    let listed = &client.op(&json!({"op": "list"}))["pins"][0];
    for member in ["submittedAt", "deadlineAt"] {
        assert_eq!(pin[member], listed[member]);
    }
    assert_eq!(pin["nextPoll"]["at"], pin["nextPollAt"]);
    assert_eq!(code(&client.op(&json!({"op": "show", "pinId": "B"}))), "not_found");
}

#[test]
fn show_has_the_last_answer_of_the_api_for_a_pin_in_flight() {
    let (_api, daemon) = polling();
    let mut client = daemon.client();
    for (pin, what) in [
        ("sim-waiting-1", "MESSAGE_WAITING_DELIVERY, not final"),
        ("sim-404-1", "404 not found"),
        ("sim-503-1", "503 Service Unavailable"),
        ("sim-none-1", "nothing known yet"),
        ("sim-malformed-1", "not understood"),
    ] {
        client.submit(pin);
        let shown = crate::support::until("an answer", || {
            let shown = client.op(&json!({"op": "show", "pinId": pin}));
            shown["pin"]["lastAnswer"].is_object().then_some(shown)
        });
        let told = shown["pin"]["lastAnswer"]["what"].as_str().unwrap();
        assert!(told.starts_with(what), "{pin}: {told}");
        assert!(shown["pin"]["polls"].as_u64().unwrap() >= 1);
    }
}

#[test]
fn show_says_which_sinks_have_the_outcome_of_a_finished_pin() {
    let (_api, daemon) = polling();
    let mut client = daemon.client();
    client.submit("sim-delivered-1");
    let record = daemon.all_records(1).remove(0);
    let show = json!({"op": "show", "pinId": "sim-delivered-1"});
    crate::support::until_true("delivered", || client.op(&show)["pin"]["sinks"][0]["state"] == "delivered");
    let mut answer = client.op(&show);
    let since = answer["pin"]["sinks"][0].as_object_mut().unwrap().remove("since").expect("since when");
    assert!(since.as_str() >= record["finishedAt"].as_str(), "{since}");
    let expected = json!({"ok": true, "pin": {
        "pinId": "sim-delivered-1", "state": "finished", "outcome": record,
        "sinks": [{"name": "file", "state": "delivered"}],
    }});
    assert_eq!(answer, expected);
    // The sink has what it got before a restart; the time is not known any more.
    let daemon = daemon.terminate().start();
    assert_eq!(daemon.client().op(&show), expected);
}

#[test]
fn cancel_withdraws_a_pin_in_flight_and_does_not_change_a_finished_one() {
    let (api, daemon) = polling();
    let mut client = daemon.client();
    client.submit("sim-waiting-1");
    let answer = client.op(&json!({"op": "cancel", "pinId": "sim-waiting-1"}));
    assert_eq!((&answer["ok"], &answer["state"]), (&json!(true), &json!("cancelled")), "{answer}");
    assert_eq!(answer["outcome"]["outcome"], "cancelled");
    assert_eq!(daemon.all_records(1)[0], answer["outcome"]);
    assert_eq!(client.op(&json!({"op": "cancel", "pinId": "sim-waiting-1"})), answer, "a second cancel");

    client.submit("sim-delivered-1");
    let outcome = client.outcome("sim-delivered-1");
    assert_eq!(
        client.op(&json!({"op": "cancel", "pinId": "sim-delivered-1"})),
        json!({"ok": true, "pinId": "sim-delivered-1", "state": "finished", "outcome": outcome})
    );
    assert_eq!(code(&client.op(&json!({"op": "cancel", "pinId": "never-seen"}))), "not_found");
    assert_eq!(daemon.all_records(2).len(), 2);
    assert_eq!(api.counts().bad_keys, 0);
}

#[test]
fn ping_returns_the_version_and_stats_returns_the_counts() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).set("schedule.not_found_grace", "100ms").start();
    let mut client = daemon.client();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(client.op(&json!({"op": "ping"})), json!({"ok": true, "version": version}));
    client.submit("sim-waiting-1");
    client.submit("sim-400-1");
    client.outcome("sim-400-1");
    let stats = crate::support::until("the sink's cursor", || {
        let stats = client.stats();
        (stats["sinks"]["file"]["behind"] == 0 && stats["polls"]["understood"] != 0).then_some(stats)
    });
    assert_eq!(stats["version"], version);
    assert_eq!(stats["inFlight"], 1);
    let ages = json!({"0-1m": 1, "1m-15m": 0, "15m-1h": 0, "1h-6h": 0, "6h-24h": 0, "24h+": 0});
    assert_eq!(stats["inFlightByAge"], ages);
    assert_eq!(stats["connections"], 1);
    assert_eq!(stats["brake"], Value::Null);
    assert!(stats["polls"]["rejected"].as_u64() >= Some(3));
    assert_eq!(stats["newestSeq"], 1);
    assert_eq!(
        stats["outcomes"],
        json!({"final": 0, "deadline": 0, "not_found": 0, "rejected": 1, "cancelled": 0})
    );
    assert_eq!(
        stats["sinks"]["file"],
        json!({"configured": true, "delivered": 1, "cursor": 1, "behind": 0, "oldestUndelivered": null, "retrying": 0, "deadLetters": 0, "closed": false,
            "nextAttempt": null, "openSince": null, "trouble": null})
    );
}

#[test]
fn cancels_that_arrive_together_share_commits_and_are_answered_in_order() {
    let daemon = idle();
    let mut client = daemon.client();
    let pins = pins(1000);
    client.submit_all(&pins);
    // The lock file tells how many commits there were, of PINs, outcomes and cursors.
    let lock = daemon.place.store().with_extension("db.lock");
    let commits = || std::fs::read_to_string(&lock).unwrap().trim().parse::<u32>().unwrap();
    let before = commits();
    // One of them twice, one that was never submitted, and another question in between.
    let ids = [&pins[..600], &["NEVER".to_owned(), pins[7].clone()], &pins[600..]].concat();
    let cancel = |pin: &String| format!("{}\n", json!({"op": "cancel", "pinId": pin}));
    let mut lines: Vec<String> = ids.iter().map(cancel).collect();
    lines.insert(300, "{\"op\":\"ping\"}\n".to_owned());
    client.write(lines.concat());
    for (n, line) in lines.iter().enumerate() {
        let (asked, answer) = (serde_json::from_str::<Value>(line).unwrap(), client.answer());
        match n {
            300 => assert!(answer["version"].is_string(), "{answer}"),
            601 => assert_eq!(code(&answer), "not_found"),
            _ => assert_eq!((&answer["pinId"], &answer["state"]), (&asked["pinId"], &json!("cancelled"))),
        }
    }
    let commits = commits() - before;
    assert!(commits < 250, "{commits} commits for 1000 cancels");
    assert_eq!(client.stats()["inFlight"], 0);
}
