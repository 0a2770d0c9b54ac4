//! The wall clock is set while the daemon runs and between two runs: ages, waits and retention follow the elapsed time.

use std::fs;

use jiff::Timestamp;
use serde_json::{Value, json};
use wiremock::ResponseTemplate;

use crate::support::wrong_clock::WrongClock;
use crate::support::{Daemon, Mock, Place, change, delivered, delivery, until_true};

const DAY: i64 = 86_400;

fn start(place: Place, clock: &WrongClock) -> Daemon {
    let command = clock.on(place.command());
    place.start_by(command)
}

fn seconds(record: &Value, key: &str) -> i64 {
    record[key].as_str().unwrap().parse::<Timestamp>().unwrap().as_second()
}

#[track_caller]
fn submit(daemon: &Daemon, pin: &str, deadline: &str) {
    let answer = daemon.client().op(&json!({"op": "submit", "pinId": pin, "deadline": deadline}));
    assert_eq!(answer["state"], "accepted", "{answer}");
}

fn show(daemon: &Daemon, pin: &str) -> Value {
    daemon.client().op(&json!({"op": "show", "pinId": pin}))
}

/// Waits until each of these PINs is polled once more.
#[track_caller]
fn until_polled_again(api: &Mock, pins: &[&str]) {
    for pin in pins {
        let before = api.requests_for(pin);
        until_true("it is polled again", || api.requests_for(pin) > before + 1);
    }
}

fn waiting() -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!([delivery("MESSAGE_WAITING_DELIVERY", false)]))
}

#[test]
fn a_pin_submitted_under_a_slow_clock_keeps_its_age_when_the_clock_is_corrected() {
    let api = Mock::start();
    api.answers_all(waiting());
    let place = Place::new(&api.base_url());
    let Some(clock) = WrongClock::new("a clock that is slow", place.folder.path(), "-3d") else { return };
    let mut daemon = start(place, &clock);
    submit(&daemon, "YOUNG", "1h");
    // While the daemon runs; and over restarts, with a commit by the right clock and without.
    clock.set("+0").unwrap();
    until_polled_again(&api, &["YOUNG"]);
    for _ in 0..2 {
        daemon = start(daemon.kill9(), &clock);
        until_polled_again(&api, &["YOUNG"]);
    }
    assert_eq!(daemon.client().stats()["inFlight"], 1);

    let deadline = seconds(&show(&daemon, "YOUNG")["pin"], "deadlineAt");
    assert!((deadline - Timestamp::now().as_second()).abs() <= 3600, "it is told when its time is really up");

    // Its deadline comes all the same, and the records have the times that the clock showed.
    clock.set("-3d").unwrap();
    submit(&daemon, "SHORT", "2s");
    let daemon = daemon.kill9();
    clock.set("+0").unwrap();
    let daemon = start(daemon, &clock);
    let record = daemon.client().outcome("SHORT");
    assert_eq!(record["outcome"], "deadline");
    let took = seconds(&record, "finishedAt") - seconds(&record, "submittedAt");
    assert!((3 * DAY..3 * DAY + 3600).contains(&took), "{record}");
    assert_eq!(daemon.client().stats()["inFlight"], 1);
}

#[test]
fn a_brake_saved_under_a_fast_clock_ends_after_its_wait() {
    let api = Mock::start();
    api.answers_all(ResponseTemplate::new(429).insert_header("retry-after", "2"));
    let place = Place::new(&api.base_url());
    let Some(clock) = WrongClock::new("a clock that is fast", place.folder.path(), "+2h") else { return };
    let daemon = start(place, &clock);
    submit(&daemon, "A", "1h");
    until_true("the brake is on", || daemon.client().stats()["brake"].is_object());
    // The brake is handed to the store before the next PIN is.
    submit(&daemon, "B", "1h");
    let place = daemon.kill9();
    clock.set("+0").unwrap();
    api.answers_all(delivered());
    let daemon = start(place, &clock);
    for pin in ["A", "B"] {
        assert_eq!(daemon.client().outcome(pin)["outcome"], "final");
    }
}

#[test]
fn setting_the_clock_over_a_reboot_ends_no_pin_and_prolongs_no_brake() {
    let api = Mock::start();
    api.answers_all(ResponseTemplate::new(429).insert_header("retry-after", "3000"));
    let place = Place::new(&api.base_url());
    let Some(clock) = WrongClock::new("a clock that is fast", place.folder.path(), "+2h") else { return };
    let daemon = start(place, &clock);
    submit(&daemon, "A", "1h");
    until_true("the brake is on", || daemon.client().stats()["brake"].is_object());
    let place = daemon.terminate();
    change(&place.store(), "UPDATE history SET boot_id = 'another'");
    clock.set("+30d").unwrap();
    api.answers_all(waiting());
    let daemon = start(place, &clock);
    until_polled_again(&api, &["A"]);
    assert_eq!(daemon.client().stats()["inFlight"], 1);
}

#[test]
fn a_wrong_clock_removes_no_outcome_and_really_old_ones_are_removed() {
    let api = Mock::start();
    api.answers_all(delivered());
    let place = Place::new(&api.base_url()).set("store.retention", "7d");
    let Some(clock) = WrongClock::new("a clock that is fast", place.folder.path(), "+0 x100") else { return };
    // All of the daemon's waits are a hundredth, so that it looks for old outcomes more than once a second. How long the
    // machine runs, it asks the kernel.
    let start = |place: Place| {
        let mut command = clock.on(place.command());
        command.env_remove("FAKETIME_DONT_FAKE_MONOTONIC");
        place.start_by(command)
    };
    let has_looked = |daemon: &Daemon| {
        submit(daemon, "NEVER", "1day");
        let wait = json!({"op": "wait", "pinId": "NEVER", "timeout": "200s"});
        assert_eq!(daemon.client().op(&wait)["ok"], false);
    };
    let daemon = start(place);
    submit(&daemon, "A", "1h");
    assert_eq!(daemon.client().outcome("A")["outcome"], "final");
    api.answers_all(waiting());
    // Not while it runs: that would move the daemon's other clocks too.
    let place = daemon.kill9();
    clock.set("+30d x100").unwrap();
    let daemon = start(place);
    has_looked(&daemon);
    assert_eq!(show(&daemon, "A")["pin"]["state"], "finished");

    let daemon = start(daemon.kill9().set("store.retention", "1s"));
    until_true("it is removed", || show(&daemon, "A")["ok"] == false);
}

#[test]
fn setting_the_clock_does_not_make_a_webhook_give_up_an_outcome() {
    let (api, hook) = (Mock::start(), Mock::start());
    api.answers_all(delivered());
    hook.answers_all(ResponseTemplate::new(503));
    let place = Place::new(&api.base_url());
    let Some(clock) = WrongClock::new("a clock that is set", place.folder.path(), "+0") else { return };
    let config = fs::read_to_string(place.path("pinwatch.toml")).unwrap();
    let sink = format!(
        "[[sink]]\nname = \"hook\"\ntype = \"webhook\"\nurl = \"{}/hook\"\nmax_age = \"1h\"\n\
         secret = \"whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\"\n",
        hook.base_url()
    );
    fs::write(place.path("pinwatch.toml"), config + &sink).unwrap();
    let mut daemon = start(place, &clock);
    submit(&daemon, "A", "1h");
    daemon.client().outcome("A");
    let state = |daemon: &Daemon| {
        let sinks = show(daemon, "A")["pin"]["sinks"].take();
        sinks.as_array().unwrap().iter().find(|sink| sink["name"] == "hook").unwrap()["state"].clone()
    };
    until_true("it is noted that it failed", || state(&daemon) == "retrying");
    for offset in ["+3d", "-3d"] {
        let place = daemon.kill9();
        clock.set(offset).unwrap();
        let before = hook.requests();
        daemon = start(place, &clock);
        until_true("it is tried again", || hook.requests() > before + 1);
        assert_eq!(state(&daemon), "retrying");
    }
    hook.answers_all(ResponseTemplate::new(200));
    until_true("it is delivered", || state(&daemon) == "delivered");
}
