//! Outages and 429s of the API, with the real binary, and what survives a restart. The rules
//! themselves are tested in `src/schedule/`, without a process.

use crate::support::{Mock, Place, brake, delivered, pins, until_true};
use serde_json::json;
use wiremock::ResponseTemplate;

#[test]
fn in_an_outage_only_probes_are_sent_and_every_pin_ends_when_the_api_is_back() {
    let api = Mock::start();
    api.answers_all(ResponseTemplate::new(503));
    let place = Place::new(&api.base_url()).set("api.concurrency", "4").set("schedule.deadline", "300ms");
    let daemon = place.start();
    let mut client = daemon.client();
    client.submit_all(&pins(100));
    assert_eq!(brake(&mut client)["reason"], "outage");
    until_true("all are due, and wait", || client.stats()["due"].as_u64() >= Some(95));
    until_true("it is said of a PIN, unless that is the probe just now", || {
        let story = client.op(&json!({"op": "show", "pinId": "PIN-50"}));
        story["pin"]["nextPoll"]["why"].as_str().unwrap().contains("outage")
    });
    api.answers_all(delivered());
    let records = daemon.all_records(100);
    assert!(
        records.iter().all(|record| record["outcome"] == "final"),
        "none is given up for want of an answer"
    );
    daemon.terminate();
}

#[test]
fn a_pin_that_an_outage_keeps_from_its_last_poll_waits_no_longer_than_the_grace() {
    let api = Mock::start();
    api.answers_all(ResponseTemplate::new(500));
    let place = Place::new(&api.base_url()).set("schedule.deadline", "100ms");
    let daemon = place.set("schedule.deadline_grace", "0s").start();
    daemon.client().submit_all(&pins(20));
    let records = daemon.all_records(20);
    assert!(records.iter().all(|r| r["outcome"] == "deadline" && r["status"].is_null()), "{records:?}");
    daemon.terminate();
}

#[test]
fn a_429_pauses_all_polling_and_the_pause_survives_kill_9() {
    let api = Mock::start();
    let throttled = || ResponseTemplate::new(429).insert_header("Retry-After", "3600");
    api.answers_all(throttled());
    let place = Place::new(&api.base_url()).set("api.concurrency", "4");
    let daemon = place.start();
    let mut client = daemon.client();
    client.submit_all(&pins(50));
    assert_eq!(brake(&mut client)["reason"], "throttled");
    let until = brake(&mut client)["until"].clone();
    // The brake was sent to the writer before the submit, so it is durable too.
    client.submit("ONE-MORE");
    until_true("those that ran have their answer", || client.stats()["polling"] == 0);
    api.answers_all(throttled());
    let daemon = daemon.kill9().start();
    let mut client = daemon.client();
    let after = brake(&mut client);
    assert_eq!(after["reason"], "throttled");
    assert_eq!(after["until"].as_str().unwrap()[..16], until.as_str().unwrap()[..16], "to the minute");
    assert!(client.stats()["rate"].is_number(), "what the 429 taught is kept too");
    until_true("all are due, and wait", || client.stats()["due"].as_u64() >= Some(51));
    assert_eq!(api.requests(), 0, "no poll before the time is over");
    daemon.terminate();
}

#[test]
fn after_a_429_every_pin_still_becomes_final() {
    let api = Mock::start();
    api.answers_all(ResponseTemplate::new(429).insert_header("Retry-After", "1"));
    let daemon = Place::new(&api.base_url()).set("schedule.deadline", "200ms").start();
    let mut client = daemon.client();
    client.submit_all(&pins(3));
    brake(&mut client);
    api.answers_all(delivered());
    let records = daemon.all_records(3);
    assert!(records.iter().all(|record| record["outcome"] == "final"), "{records:?}");
    daemon.terminate();
}
