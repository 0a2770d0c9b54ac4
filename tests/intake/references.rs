//! PINs that are asked for by their reference, by the socket and by the command.

use serde_json::{Value, json};

use super::{idle, polling};
use crate::support::{Daemon, code};

/// Submits PINs with one reference.
fn submit(daemon: &Daemon, pins: &[&str], reference: &str) {
    let mut client = daemon.client();
    for pin in pins {
        let answer = client.op(&json!({"op": "submit", "pinId": pin, "reference": reference}));
        assert_eq!(answer["ok"], true, "{answer}");
    }
}

fn show(daemon: &Daemon, reference: &str) -> Value {
    daemon.client().op(&json!({"op": "show", "reference": reference}))
}

#[test]
fn show_by_reference_tells_of_the_newest_pin_and_names_the_others() {
    let (_api, daemon) = polling();
    submit(&daemon, &["sim-delivered-1", "sim-delivered-2"], "order-42");
    for pin in ["sim-delivered-1", "sim-delivered-2"] {
        daemon.client().outcome(pin);
    }
    submit(&daemon, &["sim-waiting-1"], "order-42");
    let answer = show(&daemon, "order-42");
    assert_eq!(
        (&answer["pin"]["pinId"], &answer["pin"]["state"]),
        (&json!("sim-waiting-1"), &json!("in_flight"))
    );
    let mut others: Vec<&str> =
        answer["others"].as_array().unwrap().iter().map(|pin| pin.as_str().unwrap()).collect();
    others.sort_unstable();
    assert_eq!(others, ["sim-delivered-1", "sim-delivered-2"]);

    submit(&daemon, &["sim-delivered-3"], "alone");
    daemon.client().outcome("sim-delivered-3");
    let alone = show(&daemon, "alone");
    assert_eq!((&alone["pin"]["outcome"]["reference"], alone.get("others")), (&json!("alone"), None));
    let list = daemon.client().op(&json!({"op": "list", "filter": {"state": "final", "reference": "alone"}}));
    assert_eq!((list["pins"].as_array().unwrap().len(), list.get("next")), (1, None), "{list}");
    assert_eq!(code(&show(&daemon, "order-4")), "not_found");
}

#[test]
fn at_most_100_others_are_named_the_newest_first() {
    let daemon = idle();
    let pins: Vec<String> = (0..150).map(|n| format!("P{n}")).collect();
    submit(&daemon, &pins.iter().map(String::as_str).collect::<Vec<_>>(), "campaign");
    let answer = show(&daemon, "campaign");
    assert_eq!(answer["pin"]["pinId"], "P149");
    let others = answer["others"].as_array().unwrap();
    assert_eq!((others.len(), &others[0], &others[99]), (100, &json!("P148"), &json!("P49")));
}

#[test]
fn show_wants_either_a_pin_or_a_reference() {
    let daemon = idle();
    submit(&daemon, &["A"], "r");
    let mut client = daemon.client();
    for wrong in [
        json!({"op": "show"}),
        json!({"op": "show", "pinId": "A", "reference": "r"}),
        json!({"op": "show", "reference": "r\u{0}"}),
        json!({"op": "show", "reference": 7}),
    ] {
        assert_eq!(code(&client.op(&wrong)), "invalid_request", "{wrong}");
    }
    assert_eq!(code(&client.op(&json!({"op": "show", "pinId": "a b"}))), "invalid_pin_id");
    assert_eq!(client.op(&json!({"op": "show", "pinId": "A"}))["pin"]["reference"], "r");
}

#[test]
fn the_command_takes_a_pin_id_first_and_a_reference_second() {
    let daemon = idle();
    submit(&daemon, &["A"], "order 42");
    submit(&daemon, &["B"], "A");
    let place = &daemon.place;
    let shown = |args: &[&str]| place.ask(args)[0]["pinId"].as_str().unwrap().to_owned();
    assert_eq!(shown(&["show", "order 42"]), "A");
    assert_eq!(shown(&["show", "A"]), "A");
    assert_eq!(shown(&["show", "--reference", "A"]), "B");
    submit(&daemon, &["C"], "A");
    let lines = place.ask(&["show", "--reference", "A"]);
    assert_eq!((&lines[0]["pinId"], &lines[1]), (&json!("C"), &json!({"others": ["B"]})));
    place
        .pinwatch(&["show", "B C"])
        .assert()
        .code(1)
        .stderr(predicates::str::contains("does not know the reference B C"));
}

#[test]
fn after_a_kill_pins_are_found_by_their_references() {
    let (_api, daemon) = polling();
    let ended: Vec<String> = (0..50).map(|n| format!("sim-delivered-{n}")).collect();
    submit(&daemon, &ended.iter().map(String::as_str).collect::<Vec<_>>(), "done");
    submit(&daemon, &["sim-waiting-1", "sim-waiting-2"], "open");
    for pin in &ended {
        daemon.client().outcome(pin);
    }
    let daemon = daemon.kill9().start();
    let named = |reference: &str| 1 + show(&daemon, reference)["others"].as_array().map_or(0, Vec::len);
    assert_eq!((named("done"), named("open")), (50, 2));
    let mut client = daemon.client();
    let filter = json!({"reference": "open"});
    assert_eq!(client.op(&json!({"op": "cancel_matching", "filter": filter}))["count"], 2);
    assert_eq!(show(&daemon, "open")["pin"]["outcome"]["outcome"], "cancelled");
    assert_eq!(client.op(&json!({"op": "count", "filter": filter}))["count"], 0);
}
