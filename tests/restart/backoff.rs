//! The position in the backoff after a restart follows from the PIN's age.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::{Daemon, Place, Simulated, change};

const HOUR: &str = "3600000";

/// A daemon with the default intervals on a store whose PINs were submitted an hour ago.
fn with_old_pins(api: &Simulated, pins: &[String], and: &str) -> Daemon {
    let daemon = Place::new(&api.base_url()).never_due().start();
    daemon.client().submit_all(pins);
    let place = daemon.kill9();
    let sql = "UPDATE pin SET submitted_at = submitted_at - HOUR, deadline_at = deadline_at - HOUR;";
    change(&place.store(), &(sql.replace("HOUR", HOUR) + and));
    place.set("schedule.initial_interval", "1s").set("schedule.max_interval", "10m").start()
}

/// All PINs in flight.
fn listed(daemon: &Daemon) -> Vec<Value> {
    let mut client = daemon.client();
    let mut pins = Vec::new();
    let mut request = json!({"op": "list", "limit": 1000});
    loop {
        let mut page = client.op(&request);
        pins.append(page["pins"].as_array_mut().unwrap());
        let Some(next) = page.get("next") else { return pins };
        request["after"] = next.clone();
    }
}

#[test]
fn two_thousand_old_pins_are_polled_over_their_interval_and_not_at_once() {
    let api = Simulated::start();
    let before = Timestamp::now();
    let pins: Vec<String> = (0..2000).map(|n| format!("sim-waiting-{n}")).collect();
    let daemon = with_old_pins(&api, &pins, "");
    let listed = listed(&daemon);
    let polls = api.counts().requests;
    assert_eq!(listed.len(), 2000);

    // After an hour the interval is 10 minutes: each minute has its tenth of them, more or less. Chance alone
    // takes none over a quarter in the life of this machine.
    let mut minutes = [0; 13];
    for pin in &listed {
        // None while it is polled.
        let Some(next) = pin["nextPollAt"].as_str() else { continue };
        let wait = next.parse::<Timestamp>().unwrap().duration_since(before).as_secs();
        minutes[usize::try_from(wait / 60).unwrap().min(12)] += 1;
    }
    assert!(minutes.iter().all(|count| *count < 500), "{minutes:?}");
    assert!(minutes.iter().filter(|count| **count > 50).count() >= 8, "{minutes:?}");
    assert!(polls < 500, "{polls} polls while the daemon started");
}

#[test]
fn a_pin_keeps_its_times_over_a_restart_and_continues_from_its_age() {
    let api = Simulated::start();
    let daemon = with_old_pins(
        &api,
        &["sim-waiting-1".into()],
        "UPDATE pin SET deadline_at = submitted_at + 172800000;",
    );
    let pin = &listed(&daemon)[0];
    let time = |member: &str| pin[member].as_str().unwrap().parse::<Timestamp>().unwrap();
    let age = Timestamp::now().duration_since(time("submittedAt"));
    assert!(age.as_hours() == 1, "{pin}");
    assert_eq!(time("deadlineAt").duration_since(time("submittedAt")).as_hours(), 48);
}

#[test]
fn a_pin_whose_deadline_passed_while_the_daemon_was_down_is_polled_one_last_time() {
    let api = Simulated::start();
    let pins = ["sim-waiting-1".into(), "sim-delivered-1".into(), "sim-503-1".into()];
    let daemon = with_old_pins(&api, &pins, "UPDATE pin SET deadline_at = submitted_at + 60000;");
    let mut client = daemon.client();
    for (pin, ending, status, polls) in [
        ("sim-waiting-1", "deadline", json!("MESSAGE_WAITING_DELIVERY"), 1),
        ("sim-delivered-1", "final", json!("MESSAGE_DELIVERED"), 1),
        // While others are in flight, one failure does not end a PIN.
        ("sim-503-1", "deadline", Value::Null, 2),
    ] {
        let outcome = client.outcome(pin);
        assert_eq!((&outcome["outcome"], &outcome["status"]), (&json!(ending), &status));
        assert!((1..=polls).contains(&outcome["polls"].as_u64().unwrap()), "{outcome}");
    }
}

#[test]
fn a_pin_with_a_submission_time_in_the_future_is_polled_as_a_new_one() {
    let api = Simulated::start();
    // The clock was an hour ahead when it was submitted.
    let sql = "UPDATE pin SET submitted_at = submitted_at + 7200000, deadline_at = deadline_at + 7200000;";
    let daemon = with_old_pins(&api, &["sim-delivered-1".into()], sql);
    assert_eq!(daemon.client().outcome("sim-delivered-1")["outcome"], "final");
}
