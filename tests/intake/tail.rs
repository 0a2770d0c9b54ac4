//! `tail`: outcome records as they come, and as they came.

use serde_json::{Value, json};

use super::common::{Client, Daemon};
use super::{idle, polling};

/// Ends so many PINs, one after the other; gives their records.
fn finish(daemon: &Daemon, client: &mut Client, count: usize) -> Vec<Value> {
    let before = daemon.records().len();
    for n in before..before + count {
        client.submit(&format!("sim-delivered-{n}"));
        client.outcome(&format!("sim-delivered-{n}"));
    }
    daemon.all_records(before + count)[before..].to_vec()
}

/// The records up to the end, and where to go on from.
fn tail(client: &mut Client, request: &Value) -> (Vec<Value>, i64) {
    client.write(format!("{request}\n"));
    let mut records = Vec::new();
    loop {
        let line = client.answer();
        if line["end"] == true {
            assert_eq!(line["ok"], true);
            return (records, line["next"].as_i64().unwrap());
        }
        records.push(line);
    }
}

#[test]
fn tail_gives_the_last_ones_or_those_from_a_seq_on_and_says_where_to_go_on() {
    let (_api, daemon) = polling();
    let mut client = daemon.client();
    assert_eq!(tail(&mut client, &json!({"op": "tail", "last": 5})), (vec![], 1));
    let records = finish(&daemon, &mut client, 4);
    let next = records[3]["seq"].as_i64().unwrap() + 1;
    for (request, expected) in [
        (json!({"op": "tail"}), &records[4..]),
        (json!({"op": "tail", "last": 0}), &records[4..]),
        (json!({"op": "tail", "last": 2}), &records[2..]),
        (json!({"op": "tail", "last": 99}), &records[..]),
        (json!({"op": "tail", "from": 0}), &records[..]),
        (json!({"op": "tail", "from": -7}), &records[..]),
        (json!({"op": "tail", "from": records[1]["seq"]}), &records[1..]),
        (json!({"op": "tail", "from": next}), &records[4..]),
    ] {
        assert_eq!(tail(&mut client, &request), (expected.to_vec(), next), "{request}");
    }
    // Where it ended, the next one begins.
    let more = finish(&daemon, &mut client, 1);
    assert_eq!(tail(&mut client, &json!({"op": "tail", "from": next})), (more, next + 1));
}

#[test]
fn the_lines_of_a_tail_are_those_of_the_file_to_the_letter() {
    let (_api, daemon) = polling();
    let mut client = daemon.client();
    client.ask(r#"{"op":"submit","pinId":"sim-delivered-1","metadata":{ "n" : 1.50, "a":[1,2] },"reference":"é\u0007"}"#);
    daemon.all_records(1);
    client.write("{\"op\":\"tail\",\"last\":1}\n");
    let line = client.line().unwrap();
    assert_eq!(std::fs::read_to_string(daemon.place.results()).unwrap(), format!("{line}\n"));
}

#[test]
fn several_followers_get_every_outcome_in_order() {
    let (_api, daemon) = polling();
    let mut client = daemon.client();
    let old = finish(&daemon, &mut client, 3);
    let mut all = daemon.client();
    all.write("{\"op\":\"tail\",\"from\":1,\"follow\":true}\n");
    let mut some = daemon.client();
    some.write("{\"op\":\"tail\",\"last\":1,\"follow\":true}\n");
    // They follow: each has read what was there.
    assert_eq!([all.answer(), all.answer(), all.answer()].as_slice(), old);
    assert_eq!(some.answer(), old[2]);

    // More than a page, so that followers lag behind.
    let pins: Vec<String> = (0..700).map(|n| format!("sim-delivered-many-{n}")).collect();
    client.submit_all(&pins);
    let new = daemon.all_records(703)[3..].to_vec();
    for follower in [&mut all, &mut some] {
        for record in &new {
            assert_eq!(follower.answer(), *record);
        }
    }
    let seqs: Vec<_> = new.iter().map(|record| record["seq"].as_i64().unwrap()).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
}

#[test]
fn a_follower_that_does_not_read_holds_back_nobody() {
    let (_api, daemon) = polling();
    let mut client = daemon.client();
    let mut lazy = daemon.client();
    lazy.write("{\"op\":\"tail\",\"from\":1,\"follow\":true}\n");
    // Some 30 MB for each follower: more than any buffer of ours takes.
    let metadata = "x".repeat(60_000);
    for n in 0..500 {
        let pin = format!("sim-delivered-{n}");
        let answer = client.op(&json!({"op": "submit", "pinId": pin, "metadata": metadata}));
        assert_eq!(answer["state"], "accepted");
    }
    let records = daemon.all_records(500);
    // And then it has missed nothing.
    for record in records {
        assert_eq!(lazy.answer()["seq"], record["seq"]);
    }
}

#[test]
fn what_a_tail_can_not_be_asked_is_refused() {
    let daemon = idle();
    let mut client = daemon.client();
    for request in [
        json!({"op": "tail", "from": 1, "last": 1}),
        json!({"op": "tail", "last": -1}),
        json!({"op": "tail", "from": "1"}),
        json!({"op": "tail", "pinId": "A"}),
    ] {
        assert_eq!(super::common::code(&client.op(&request)), "invalid_request", "{request}");
    }
}
