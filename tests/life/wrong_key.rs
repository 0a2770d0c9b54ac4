//! A wrong key and other problems of the account, with the real binary: polling waits, no
//! PIN is given up, and no secret is shown.

use std::process::Command;

use serde_json::{Value, json};
use wiremock::ResponseTemplate;

use crate::support::{
    Daemon, Ended, Mock, Place, Simulated, brake, delivered, pins, program, run_to_end, until_true,
};

/// The secret that must not appear anywhere.
const SECRET: &str = "hunter2-hunter2";

/// A client program of this daemon.
fn run_client(daemon: &Daemon, args: &[&str]) -> Ended {
    let mut command: Command = program();
    command.args(args).arg("--socket").arg(daemon.place.socket());
    run_to_end(command)
}

#[test]
fn a_401_for_the_key_pauses_all_polling_and_gives_up_no_pin() {
    a_refused_key_pauses_all_polling(401);
}

#[test]
fn a_403_for_the_key_pauses_all_polling_and_gives_up_no_pin() {
    a_refused_key_pauses_all_polling(403);
}

fn a_refused_key_pauses_all_polling(status: u16) {
    let api = Mock::start();
    api.answers_all(ResponseTemplate::new(status));
    // Deadline and grace go by meanwhile.
    let place = Place::new(&api.base_url()).set("api.concurrency", "8").set("schedule.deadline", "500ms");
    let daemon = place.set("schedule.not_found_grace", "100ms").start();
    let mut client = daemon.client();
    client.submit_all(&pins(100));
    assert_eq!(brake(&mut client)["reason"], "unauthorized");
    until_true("all are due, and wait", || client.stats()["due"].as_u64() >= Some(99));
    // Those that ran when the first one was refused, and a probe now and then; unbraked, each would have had
    // several by now.
    assert!(api.requests() <= 8 + 4, "{} requests", api.requests());
    until_true("it is said of a PIN, unless that is the probe just now", || {
        let shown = client.op(&json!({"op": "show", "pinId": "PIN-7"}));
        shown["pin"]["nextPoll"]["why"] == "all polling waits: unauthorized"
    });
    let stats = client.stats();
    assert_eq!((&stats["inFlight"], &stats["polls"]["rejected"]), (&json!(100), &json!(0)));
    assert_eq!(daemon.records(), [] as [Value; 0]);
    assert_eq!(daemon.place.stderr().matches("the API refuses the credentials").count(), 1, "said once");

    // The API accepts the key again: a probe notices.
    api.answers_all(delivered());
    let records = daemon.all_records(100);
    assert!(records.iter().all(|record| record["outcome"] == "final"));
    assert_eq!(client.stats()["brake"], Value::Null);
    until_true("the log says so", || daemon.place.stderr().contains("polling goes on"));
}

#[test]
fn pins_are_accepted_and_can_be_cancelled_while_the_key_is_refused() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).key("another-key").start();
    let mut client = daemon.client();
    client.submit("sim-delivered-1");
    brake(&mut client);
    assert_eq!(client.submit("sim-delivered-2"), "accepted");
    assert_eq!(client.op(&json!({"op": "cancel", "pinId": "sim-delivered-1"}))["state"], "cancelled");

    // With the right key after a restart, what waited goes on.
    let daemon = daemon.terminate().key("demo-key").start();
    assert_eq!(daemon.client().outcome("sim-delivered-2")["outcome"], "final");
    assert!(api.counts().bad_keys >= 1);
}

#[test]
fn a_429_pauses_all_polling_and_gives_up_no_pin() {
    let api = Mock::start();
    api.answers_all(ResponseTemplate::new(429).insert_header("Retry-After", "2"));
    let place = Place::new(&api.base_url()).set("api.concurrency", "4").set("schedule.deadline", "500ms");
    let daemon = place.start();
    let mut client = daemon.client();
    client.submit_all(&pins(50));
    assert_eq!(brake(&mut client)["reason"], "throttled");
    until_true("all are due, and wait", || client.stats()["due"] == 50);
    assert_eq!(client.stats()["inFlight"], 50);
    api.answers_all(delivered());
    let records = daemon.all_records(50);
    assert!(records.iter().all(|record| record["outcome"] == "final"));
    assert_eq!(client.stats()["brake"], Value::Null);
}

#[test]
fn the_key_appears_in_no_log_answer_or_file() {
    let api = Mock::start();
    // A server that says what it got, as a careless one may.
    let plain = format!("Who is App {SECRET}?");
    let echo = json!({"requestError": {"serviceException": {"messageId": "X", "text": format!("bad key App {SECRET}")}}});
    api.answers("UNAUTHORIZED", ResponseTemplate::new(401));
    api.answers("BAD", ResponseTemplate::new(400).set_body_json(&echo));
    api.answers("PLAIN", ResponseTemplate::new(405).set_body_string(&plain));
    api.answers("ECHO", ResponseTemplate::new(200).set_body_json(&echo));
    api.answers("DOWN", ResponseTemplate::new(503).set_body_json(&echo));
    api.answers("HTML", ResponseTemplate::new(200).set_body_string("<html>"));
    api.answers("MOVED", ResponseTemplate::new(302).insert_header("Location", "https://elsewhere.example/"));
    let place = Place::new(&api.base_url()).key(SECRET).set("log.level", "trace");
    let daemon = place.start();
    let mut client = daemon.client();
    let mut told = String::new();
    let all = ["BAD", "DOWN", "ECHO", "HTML", "MOVED", "PLAIN", "UNAUTHORIZED"];
    for pin in all {
        client.submit(pin);
    }
    until_true("each was asked for", || all.iter().all(|pin| api.requests_for(pin) > 0));
    assert_eq!(client.stats()["brake"], Value::Null, "one PIN that is refused says nothing about the key");
    for pin in all {
        told += &client.op(&json!({"op": "show", "pinId": pin})).to_string();
    }
    told += &client.stats().to_string();
    told += &client.op(&json!({"op": "list"})).to_string();
    told += &client.ask(format!("{{\"op\":\"{}\"}}", "x".repeat(50))).to_string();
    for args in [&["stats"][..], &["list"], &["show", "DOWN"], &["ping"], &["stats", "--json"]] {
        let ended = run_client(&daemon, args);
        assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.stderr);
        told += &ended.stdout;
        told += &ended.stderr;
    }
    let command_line = daemon.command_line();
    let place = daemon.terminate();
    told += &place.stderr();
    told += &format!("{:?}", place.records());
    told += &command_line;
    assert!(told.contains("bad key App ***") && told.contains("TRACE"), "there is something to search");
    for line in told.lines() {
        assert!(!line.contains(SECRET), "{line}");
    }
    // Nor in what the daemon keeps.
    for name in ["pinwatch.db", "pinwatch.db.lock"] {
        let bytes = std::fs::read(place.path(name)).unwrap();
        let found = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        assert!(!found, "{name}");
    }
}
