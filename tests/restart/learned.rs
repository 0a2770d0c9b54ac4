//! What the schedule learned (`schedule.adapt`) outlives the daemon.

use serde_json::json;

use crate::support::{Daemon, Place, Simulated, until_true};

fn learned(daemon: &Daemon, member: &str) -> serde_json::Value {
    daemon.client().stats()["learned"][member].clone()
}

#[test]
fn a_learned_schedule_comes_into_force_and_continues_after_a_restart() {
    let api = Simulated::start();
    let place = Place::new(&api.base_url()).set("schedule.max_interval", "2s").set("schedule.adapt", "fewer");
    let daemon = place.start();
    let pins: Vec<String> = (0..300).map(|n| format!("sim-500ms-{n}")).collect();
    daemon.client().submit_all(&pins);
    until_true("it is in force", || learned(&daemon, "inForce") == true);
    until_true("all have ended", || learned(&daemon, "endings") == 300);

    let daemon = daemon.terminate().start();
    assert_eq!(learned(&daemon, "endings"), 300);
    daemon.client().submit("sim-500ms-more");
    until_true("it is in force again", || learned(&daemon, "inForce") == true);
    assert_eq!(daemon.client().stats()["neverFinal"], 0.0);
}

/// What `schedule` answers.
fn schedule(daemon: &Daemon) -> serde_json::Value {
    daemon.client().ask(r#"{"op":"schedule"}"#)["schedule"].take()
}

#[test]
fn the_schedule_command_shows_the_state_of_learning_beside_backoff() {
    let api = Simulated::start();
    let place = Place::new(&api.base_url()).set("schedule.max_interval", "2s").set("schedule.adapt", "fewer");
    let daemon = place.start();
    let before = schedule(&daemon);
    assert_eq!((&before["adapt"], &before["state"]), (&json!("fewer"), &json!("learning")), "{before}");
    assert_eq!((&before["endingsNeeded"], &before["maxInterval"]), (&json!(200), &json!(2.0)), "{before}");
    let classes: Vec<_> = before["classes"].as_array().unwrap().iter().map(|class| &class["class"]).collect();
    assert_eq!(classes, ["sms", "call", "unknown"]);

    let pins: Vec<String> = (0..300).map(|n| format!("sim-500ms-{n}")).collect();
    daemon.client().submit_all(&pins);
    until_true("it is in force", || schedule(&daemon)["state"] == "in_force");
    let after = schedule(&daemon);
    let sms = &after["classes"][0];
    assert!(sms["inForce"] == true && sms["endings"].as_u64() >= Some(200), "{after}");
    for course in [&sms["backoff"], &sms["learned"]] {
        let number = |name: &str| course[name].as_f64().unwrap();
        assert!(number("polls") >= 1.0 && number("delay") > 0.0 && number("untilDeadline") > 3.0, "{course}");
        let ages: Vec<_> =
            course["ages"].as_array().unwrap().iter().map(|age| age.as_f64().unwrap()).collect();
        assert!(ages.is_sorted() && ages.len() > 3, "{ages:?}");
    }
    let finals = sms["finals"].as_array().unwrap();
    assert_eq!(finals.last().unwrap()["age"], sms["knownUntil"], "{after}");
    let calls = &after["classes"][1];
    assert!(calls["inForce"] == false && calls["backoff"]["polls"].is_null(), "{after}");
}

#[test]
fn without_learning_stats_and_schedule_show_none() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    daemon.client().submit("sim-delivered-1");
    until_true("it has ended", || daemon.client().stats()["pollsPerPin"].is_number());
    assert!(daemon.client().stats()["learned"].is_null());
    let schedule = schedule(&daemon);
    assert_eq!((&schedule["adapt"], &schedule["state"]), (&json!("off"), &json!("off")));
    for class in schedule["classes"].as_array().unwrap() {
        assert!(class["backoff"]["ages"].is_array() && class["learned"].is_null(), "{class}");
    }
}
