//! How much memory a client can make the daemon use, whatever it requests and whether it reads or not.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use wiremock::ResponseTemplate;

use super::idle;
use crate::support::{Client, Daemon, Mock, Place, pins, until};

/// The longest answer.
const MAX_ANSWER: usize = 512 * 1024;

const MB: usize = 1 << 20;

/// As many deliveries as an answer of the API can have, as long as they can be together.
fn hostile() -> Value {
    (0..256).map(|n| json!({"status": format!("S{n:0109}"), "description": format!("D{n:079}"), "finalStatus": false})).collect()
}

/// A daemon whose PINs have all had that answer.
fn flooded(pins: &[String]) -> (Mock, Daemon) {
    let api = Mock::start();
    api.answers_all(ResponseTemplate::new(200).set_body_json(hostile()));
    let place = Place::new(&api.base_url()).set("schedule.initial_interval", "500ms");
    let daemon = place.set("schedule.multiplier", "10").set("schedule.max_interval", "1day").start();
    let mut client = daemon.client();
    client.submit_all(pins);
    until("each is polled", || {
        (client.stats()["polls"]["understood"].as_u64() >= Some(pins.len() as u64)).then_some(())
    });
    (api, daemon)
}

/// The items of a list, over all its pages.
fn all_pages(client: &mut Client, mut request: Value, name: &str) -> Vec<Value> {
    let mut all = Vec::new();
    loop {
        client.write(format!("{request}\n"));
        let line = client.line().unwrap();
        assert!(line.len() < MAX_ANSWER, "a line has {} bytes", line.len());
        let mut page: Value = serde_json::from_str(&line).unwrap();
        all.append(page[name].as_array_mut().unwrap());
        let Some(next) = page.get("next") else { return all };
        request["after"] = next.clone();
    }
}

/// Ends PINs with metadata of this many bytes.
fn finish(daemon: &Daemon, pins: &[String], metadata: usize) {
    let mut client = daemon.client();
    let metadata = "x".repeat(metadata);
    for pin in pins {
        let answer = client.op(&json!({"op": "submit", "pinId": pin, "metadata": metadata}));
        assert_eq!(answer["state"], "accepted");
    }
    for pin in pins {
        assert_eq!(client.op(&json!({"op": "cancel", "pinId": pin}))["state"], "cancelled");
    }
}

#[test]
fn pages_of_a_list_are_limited_in_bytes_and_have_every_pin_once() {
    let pins = pins(600);
    let (_api, daemon) = flooded(&pins);
    let mut client = daemon.client();
    let shown = all_pages(&mut client, json!({"op": "list", "limit": 1000}), "pins");
    assert_eq!(shown.len(), 600);
    let ids: BTreeSet<_> = shown.iter().map(|pin| pin["pinId"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, pins.iter().cloned().collect());
    // The answer to a cancel of such a PIN is short, too.
    let record = client.op(&json!({"op": "cancel", "pinId": pins[0]}))["outcome"].take();
    assert_eq!(record["deliveries"].as_array().unwrap().len(), 16);
    assert_eq!(record["deliveries"][15], hostile()[255]);
}

#[test]
fn a_client_that_requests_many_lists_and_reads_none_costs_the_memory_of_one_answer() {
    let (_api, daemon) = flooded(&pins(300));
    let before = daemon.peak_memory();
    let mut hog = daemon.client();
    hog.write("{\"op\":\"list\",\"limit\":1000}\n".repeat(100));
    daemon.wait_until_idle();
    let taken = daemon.peak_memory().saturating_sub(before);
    assert!(taken < 24 * MB, "{} MB", taken / MB);
    assert_eq!(daemon.client().op(&json!({"op": "ping"}))["ok"], true);
}

#[test]
fn clients_that_request_large_outcomes_and_read_none_cost_one_answer_each() {
    let daemon = idle();
    let pins = pins(200);
    finish(&daemon, &pins, 60_000);
    let before = daemon.peak_memory();
    let many =
        |request: &dyn Fn(&String) -> String| pins.iter().map(|pin| request(pin) + "\n").collect::<String>();
    let requests = [
        "{\"op\":\"tail\",\"from\":0}\n".to_owned(),
        // Each is answered with its outcome.
        many(&|pin| pin.clone()),
        many(&|pin| format!(r#"{{"op":"cancel","pinId":"{pin}"}}"#)),
        many(&|pin| format!(r#"{{"op":"show","pinId":"{pin}"}}"#)),
        many(&|pin| format!(r#"{{"op":"wait","pinId":"{pin}"}}"#)),
    ];
    let mut hogs: Vec<Client> = requests
        .iter()
        .cycle()
        .take(40)
        .map(|request| {
            let mut hog = daemon.client();
            hog.write(request);
            hog
        })
        .collect();
    daemon.wait_until_idle();
    let taken = daemon.peak_memory().saturating_sub(before);
    assert!(
        taken < 120 * MB,
        "40 clients that could have {} MB cost {} MB",
        40 * 200 * 60_000 / MB,
        taken / MB
    );
    // Nothing was lost by it.
    for hog in &mut hogs[1..5] {
        for pin in &pins {
            let answer = hog.answer();
            let outcome = answer.pointer("/pin/outcome").unwrap_or(&answer["outcome"]);
            assert_eq!((&answer["ok"], &outcome["pinId"]), (&json!(true), &json!(pin)));
        }
    }
    let seqs: Vec<_> = pins.iter().map(|_| hogs[0].answer()["seq"].as_i64().unwrap()).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b));
    assert_eq!(hogs[0].answer()["end"], true);
}
