//! Every node answers requests for the whole cluster.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Value, json};

use crate::cluster::nodes::{Cluster, pins};
use crate::support::{Client, until_true};

/// All PINs that `list` returns, page by page.
fn listed(client: &mut Client, limit: usize) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    loop {
        let after = all.last().map(|pin| pin["pinId"].clone());
        let mut request = json!({"op": "list", "limit": limit});
        if let Some(after) = after {
            request["after"] = after;
        }
        let answer = client.op(&request);
        let page = answer["pins"].as_array().unwrap_or_else(|| panic!("{answer}"));
        if page.is_empty() {
            return all;
        }
        all.extend(page.iter().cloned());
    }
}

#[test]
fn a_pin_submitted_at_one_node_is_shown_and_listed_at_each() {
    let Some(cluster) = Cluster::new() else { return };
    let [a, b] = ["a", "b"].map(|name| cluster.place(name).never_due().start());
    cluster.wait_until_shared_by(&["a", "b"]);
    let pins = pins("waiting", "x", 60);
    a.client().submit_all(&pins);
    let holders = cluster.holder_of_pins();
    assert_eq!(holders.values().collect::<BTreeSet<_>>().len(), 2, "both hold some");
    for (node, name) in [(&a, "a"), (&b, "b")] {
        let mut client = node.client();
        for pin in &pins {
            let shown = client.op(&json!({"op": "show", "pinId": pin}));
            assert_eq!(shown["ok"], true, "{shown}");
            if holders[pin] != name {
                assert!(shown.to_string().contains(&format!(r#""node":"{}""#, holders[pin])), "{shown}");
            }
        }
        for limit in [7, 1000] {
            let told: Vec<Value> = listed(&mut client, limit);
            let told: Vec<&str> = told.iter().map(|pin| pin["pinId"].as_str().unwrap()).collect();
            assert_eq!(told.len(), pins.len(), "none twice");
            assert_eq!(told.into_iter().collect::<HashSet<_>>(), pins.iter().map(String::as_str).collect());
        }
        // Each node reports about itself with its renewals.
        until_true("the nodes' numbers are told", || {
            let stats = client.stats();
            let nodes = stats["cluster"]["nodes"].as_array().unwrap();
            let in_flight = |name| {
                let node = nodes.iter().find(|node| node["name"] == name)?;
                node["inFlight"].as_u64()
            };
            let held = |name| holders.values().filter(|holder| *holder == name).count() as u64;
            nodes.len() == 2 && ["a", "b"].iter().all(|name| in_flight(*name) == Some(held(*name)))
        });
    }
}

#[test]
fn a_pin_is_a_duplicate_at_every_node_and_finished_at_every_node() {
    let Some(cluster) = Cluster::new() else { return };
    let [a, b] = cluster.nodes(["a", "b"]);
    let (waiting, ended) = (pins("waiting", "x", 30), pins("delivered", "x", 30));
    let (mut one, mut other) = (a.client(), b.client());
    one.submit_all(&waiting);
    one.submit_all(&ended);
    assert!(waiting.iter().all(|pin| other.submit(pin) == "duplicate" && one.submit(pin) == "duplicate"));
    ended.iter().for_each(|pin| assert_eq!(one.outcome(pin), other.outcome(pin)));
    assert!(ended.iter().all(|pin| other.submit(pin) == "finished" && one.submit(pin) == "finished"));
}

#[test]
fn a_wait_at_any_node_is_answered_with_the_outcome() {
    let Some(cluster) = Cluster::new() else { return };
    let [a, b] = cluster.nodes(["a", "b"]);
    let pins = pins("1s", "x", 40);
    a.client().submit_all(&pins);
    let mut waiting: Vec<Client> = pins
        .iter()
        .map(|pin| {
            let mut client = b.client();
            client.write(format!("{}\n", json!({"op": "wait", "pinId": pin, "timeout": "50s"})));
            client
        })
        .collect();
    for (client, pin) in waiting.iter_mut().zip(&pins) {
        let answer = client.answer();
        assert_eq!(answer["ok"], true, "{answer}");
        assert_eq!(answer["outcome"]["pinId"], **pin);
    }
    // Long over, and told by each alike.
    for pin in &pins {
        assert_eq!(a.client().outcome(pin), b.client().outcome(pin));
    }
}

#[test]
fn a_cancel_at_any_node_withdraws_the_pin_once() {
    let Some(cluster) = Cluster::new() else { return };
    let [a, b] = cluster.nodes(["a", "b"]);
    let pins = pins("waiting", "x", 40);
    a.client().submit_all(&pins);
    let mut other = b.client();
    for pin in &pins {
        let answer = other.op(&json!({"op": "cancel", "pinId": pin}));
        assert_eq!(answer["ok"], true, "{answer}");
        let outcome = a.client().outcome(pin);
        assert_eq!(outcome["outcome"], "cancelled", "{outcome}");
    }
    cluster.wait_for_one_outcome_each(&pins);
    cluster.wait_until_webhook_has_all();
}

#[test]
fn a_tail_at_any_node_has_every_outcome_of_all_nodes_once() {
    let Some(cluster) = Cluster::new() else { return };
    let [a, b, c] = cluster.nodes(["a", "b", "c"]);
    let mut follower = c.client();
    follower.write("{\"op\":\"tail\",\"from\":1,\"follow\":true}\n");
    let all = [pins("delivered", "a", 100), pins("300ms", "b", 100)];
    a.client().submit_all(&all[0]);
    b.client().submit_all(&all[1]);
    let all = all.concat();
    let followed: Vec<Value> = all.iter().map(|_| follower.answer()).collect();
    let told: HashSet<&str> = followed.iter().map(|record| record["pinId"].as_str().unwrap()).collect();
    assert_eq!(told, all.iter().map(String::as_str).collect());
    cluster.wait_for_one_outcome_each(&all);
    for node in [&a, &b, &c] {
        let mut client = node.client();
        client.write("{\"op\":\"tail\",\"from\":1}\n");
        let mut seqs = Vec::new();
        let next = loop {
            let line = client.answer();
            if line["end"] == true {
                break line["next"].as_i64().unwrap();
            }
            seqs.push(line["seq"].as_i64().unwrap());
        };
        assert_eq!(seqs.len(), all.len());
        assert!(seqs.is_sorted_by(|one, other| one < other) && seqs.last().unwrap() < &next);
    }
}
