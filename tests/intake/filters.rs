//! Requests about all PINs that match a filter.

use serde_json::{Value, json};

use super::{idle, polling};
use crate::support::code;

fn ids(page: &Value) -> Vec<&str> {
    page["pins"].as_array().unwrap().iter().map(|pin| pin["pinId"].as_str().unwrap()).collect()
}

#[test]
fn cancel_matching_withdraws_exactly_the_pins_that_match() {
    let daemon = idle();
    let mut client = daemon.client();
    for n in 0..1200 {
        let reference = if n % 2 == 0 { format!("order-{n}") } else { format!("Order-{n}") };
        client.op(&json!({"op": "submit", "pinId": format!("P{n}"), "reference": reference}));
    }
    client.submit("bare");
    let filter = json!({"referencePrefix": "order-"});
    assert_eq!(client.op(&json!({"op": "count", "filter": filter})), json!({"ok": true, "count": 600}));
    let exact = client.op(&json!({"op": "list", "filter": {"reference": "order-42"}}));
    assert_eq!(ids(&exact), ["P42"]);
    for special in ["order_", "order%", "*", "_"] {
        let none = client.op(&json!({"op": "count", "filter": {"referencePrefix": special}}));
        assert_eq!(none["count"], 0, "{special}");
    }
    assert_eq!(client.op(&json!({"op": "count", "filter": {"olderThan": "1h"}}))["count"], 0);
    assert_eq!(client.op(&json!({"op": "count", "filter": {"newerThan": "1h"}}))["count"], 1201);

    let first = client.op(&json!({"op": "cancel_matching", "filter": filter}));
    assert_eq!(first["count"], 500, "{first}");
    let rest = client.op(&json!({"op": "cancel_matching", "filter": filter, "after": first["next"]}));
    assert_eq!((&rest["count"], &rest["next"]), (&json!(100), &Value::Null));
    assert_eq!(client.op(&json!({"op": "cancel_matching", "filter": filter}))["count"], 0);
    assert_eq!(client.op(&json!({"op": "count"}))["count"], 601);
    let all = client.op(&json!({"op": "cancel_matching", "all": true}));
    assert_eq!((&all["count"], all["next"].is_string()), (&json!(500), true));
}

#[test]
fn cancel_matching_withdraws_no_more_pins_than_its_limit_and_leaves_out_none_of_the_rest() {
    let daemon = idle();
    let mut client = daemon.client();
    for n in 0..5 {
        client.submit(&format!("P{n}"));
    }
    let part = client.op(&json!({"op": "cancel_matching", "all": true, "limit": 2}));
    assert_eq!((&part["count"], part["next"].is_string()), (&json!(2), true));
    assert_eq!(client.op(&json!({"op": "count"}))["count"], 3);
    let rest = client.op(&json!({"op": "cancel_matching", "all": true, "limit": 9, "after": part["next"]}));
    assert_eq!((&rest["count"], &rest["next"]), (&json!(3), &Value::Null));
    let none = client.op(&json!({"op": "cancel_matching", "all": true, "limit": 0}));
    assert_eq!(code(&none), "invalid_request");
}

#[test]
fn an_action_on_all_pins_must_say_all_instead_of_an_empty_filter() {
    let daemon = idle();
    let mut client = daemon.client();
    client.submit("A");
    for wrong in [
        json!({"op": "cancel_matching"}),
        json!({"op": "cancel_matching", "filter": {}}),
        json!({"op": "cancel_matching", "filter": {"state": "final"}}),
        json!({"op": "cancel_matching", "filter": {"refrence": "a"}}),
        json!({"op": "tail", "filter": {"state": "in_flight"}}),
        json!({"op": "list", "filter": {"reference": "a\u{0}"}}),
    ] {
        assert_eq!(code(&client.op(&wrong)), "invalid_request", "{wrong}");
    }
    assert_eq!(client.op(&json!({"op": "count"}))["count"], 1);
}

#[test]
fn finished_pins_are_listed_and_tailed_by_how_they_ended() {
    let (_api, daemon) = polling();
    let mut client = daemon.client();
    for (pin, reference) in [("sim-delivered-1", "a-1"), ("sim-delivered-2", "b-2")] {
        client.op(&json!({"op": "submit", "pinId": pin, "reference": reference}));
        client.outcome(pin);
    }
    let page = client.op(&json!({"op": "list", "filter": {"state": "final", "referencePrefix": "b"}}));
    assert_eq!(ids(&page), ["sim-delivered-2"]);
    assert_eq!(page["pins"][0]["outcome"]["reference"], "b-2");
    let page = client.op(&json!({"op": "list", "limit": 1, "filter": {"state": "finished"}}));
    assert_eq!(ids(&page), ["sim-delivered-1"]);
    let next = client.op(&json!({"op": "list", "filter": {"state": "finished"}, "after": page["next"]}));
    assert_eq!(ids(&next), ["sim-delivered-2"]);
    let none = client.op(&json!({"op": "list", "filter": {"state": "rejected"}}));
    assert_eq!(none["pins"], json!([]));

    let only = client.op(&json!({"op": "tail", "from": 0, "filter": {"reference": "b-2"}}));
    assert_eq!(only["pinId"], "sim-delivered-2", "the first record that is sent");
}
