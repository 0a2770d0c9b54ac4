//! `tail`: outcome records of the past and as they arrive.

use serde_json::{Value, json};

use super::{idle, polling};
use crate::support::{Client, Daemon};

/// Ends this many PINs one after the other; returns their records.
fn finish(daemon: &Daemon, client: &mut Client, count: usize) -> Vec<Value> {
    let before = daemon.records().len();
    for n in before..before + count {
        client.submit(&format!("sim-delivered-{n}"));
        client.outcome(&format!("sim-delivered-{n}"));
    }
    daemon.all_records(before + count)[before..].to_vec()
}

/// The records up to the end, and the next seq.
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
fn tail_returns_the_last_outcomes_or_those_from_a_seq_and_the_next_seq() {
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
fn the_lines_of_a_tail_equal_those_of_the_file() {
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
fn a_follower_that_does_not_read_delays_nobody() {
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
    // It can still read all of them.
    for record in records {
        assert_eq!(lazy.answer()["seq"], record["seq"]);
    }
}

/// All lines of a tail that does not follow.
fn lines(client: &mut Client, request: &Value) -> Vec<Value> {
    client.write(format!("{request}\n"));
    let mut lines = Vec::new();
    loop {
        lines.push(client.answer());
        if lines.last().is_some_and(|line| line["end"] == true) {
            return lines;
        }
    }
}

#[test]
fn a_tail_from_a_position_continues_without_gap_or_duplicate() {
    let (_api, daemon) = polling();
    let mut client = daemon.client();
    let records = finish(&daemon, &mut client, 4);
    let all = lines(&mut client, &json!({"op": "tail", "from": 0, "positions": true}));
    let (start, behind) = (&all[0]["position"], &all[5]["position"]);
    assert!(start.is_string() && behind.is_string() && start != behind, "{all:?}");
    assert_eq!(all[1..5], records);
    let end =
        json!({"ok": true, "end": true, "next": records[3]["seq"].as_i64().unwrap() + 1, "position": behind});
    assert_eq!(all[6], end, "who asks for no position is told it at the end too");
    assert_eq!(lines(&mut client, &json!({"op": "tail", "last": 1})), [records[3].clone(), end]);

    // A request from a position gets positions.
    let again = lines(&mut client, &json!({"op": "tail", "from": start}));
    assert_eq!(again, all);
    let more = finish(&daemon, &mut client, 2);
    let rest = lines(&mut client, &json!({"op": "tail", "from": behind}));
    assert_eq!((&rest[0]["position"], &rest[1..3]), (behind, &more[..]));

    let mut follower = daemon.client();
    follower.write(format!("{}\n", json!({"op": "tail", "from": behind, "follow": true})));
    assert_eq!(
        (&follower.answer()["position"], [follower.answer(), follower.answer()].as_slice()),
        (behind, &more[..])
    );
    assert_eq!(follower.answer(), rest[3]);
    let last = finish(&daemon, &mut client, 1);
    assert_eq!(follower.answer(), last[0]);
    let position = &follower.answer()["position"];
    assert_eq!(lines(&mut client, &json!({"op": "tail", "from": position})).len(), 2, "nothing is behind it");
}

/// Ends PINs whose records are so large that the daemon soon has only the newest in memory; gives their seqs.
fn finish_large(daemon: &Daemon, client: &mut Client, count: usize) -> Vec<i64> {
    let metadata = "x".repeat(60_000);
    for n in 0..count {
        let pin = format!("sim-delivered-large-{n}");
        client.ask(json!({"op": "submit", "pinId": pin, "metadata": metadata}).to_string());
    }
    daemon.all_records(count).iter().map(|record| record["seq"].as_i64().unwrap()).collect()
}

/// What retention does, which looks once a minute.
fn remove_up_to(daemon: &Daemon, seq: i64) {
    let sql = format!(
        "BEGIN; DELETE FROM outcome WHERE seq <= {seq}; UPDATE history SET pruned_to = {seq}; COMMIT"
    );
    crate::support::change(&daemon.place.store(), &sql);
}

#[test]
fn a_tail_slower_than_retention_is_told_what_it_missed() {
    let (_api, daemon) = polling();
    let mut client = daemon.client();
    let seqs = finish_large(&daemon, &mut client, 120);
    let [mut told, mut old] = [daemon.client(), daemon.client()];
    told.write("{\"op\":\"tail\",\"from\":1,\"follow\":true,\"positions\":true}\n");
    old.write("{\"op\":\"tail\",\"from\":1,\"follow\":true}\n");
    // Each has read its first part, and stops reading.
    assert!(told.answer()["position"].is_string());
    assert_eq!((told.answer()["seq"].clone(), old.answer()["seq"].clone()), (json!(seqs[0]), json!(seqs[0])));
    let removed_to = seqs[59];
    remove_up_to(&daemon, removed_to);

    let mut last = seqs[0];
    let gap = loop {
        let line = told.answer();
        match line["seq"].as_i64() {
            Some(seq) => last = seq,
            None if line["removed"].is_object() => break line,
            None => assert!(line["position"].is_string(), "{line}"),
        }
    };
    assert!(last < removed_to);
    assert_eq!(gap, json!({"ok": true, "removed": {"from": last + 1, "to": removed_to}}));
    for seq in &seqs[60..] {
        let line = told.answer();
        let line = if line["position"].is_string() { told.answer() } else { line };
        assert_eq!(line["seq"], *seq, "told once, and on it goes");
    }

    // A client without positions gets an error, which every client knows.
    let end = loop {
        let line = old.answer();
        match line["seq"].as_i64() {
            Some(seq) => assert!(seq < removed_to),
            None => break line,
        }
    };
    assert_eq!(crate::support::code(&end), "removed", "{end}");
    let message = end["error"]["message"].as_str().unwrap();
    assert!(message.contains(&format!("\"from\":{}", removed_to + 1)), "{message}");
    let (rest, _) = tail(&mut old, &json!({"op": "tail", "from": removed_to + 1}));
    assert_eq!(rest.len(), 60, "the connection goes on");
}

#[test]
fn only_a_tail_that_had_not_read_removed_outcomes_is_told_about_them() {
    let (_api, daemon) = polling();
    let mut client = daemon.client();
    let seqs = finish_large(&daemon, &mut client, 50);
    let at = |client: &mut Client, from: Value| {
        let lines = lines(client, &json!({"op": "tail", "from": from, "positions": true}));
        lines[0]["position"].clone()
    };
    let [start, third, fourth] = [0, 3, 4].map(|after| at(&mut client, json!(seqs[0] + after)));
    remove_up_to(&daemon, seqs[3]);
    let gaps = |client: &mut Client, request: Value| -> Vec<Value> {
        lines(client, &request)
            .iter()
            .filter(|line| line["ok"] == true)
            .map(|line| line["removed"].clone())
            .filter(|removed| !removed.is_null())
            .collect()
    };
    let gap = |from: i64| vec![json!({"from": from, "to": seqs[3]})];
    for (request, expected) in [
        (json!({"op": "tail", "from": start}), gap(seqs[0])),
        (json!({"op": "tail", "from": third}), gap(seqs[3])),
        (json!({"op": "tail", "from": fourth}), vec![]),
        (json!({"op": "tail", "from": 0, "positions": true}), gap(1)),
        // The newest are those that there are.
        (json!({"op": "tail", "last": 99, "positions": true}), vec![]),
        // As before there were positions.
        (json!({"op": "tail", "from": 0}), vec![]),
        (json!({"op": "tail", "last": 99}), vec![]),
    ] {
        assert_eq!(gaps(&mut client, request.clone()), expected, "{request}");
    }
}

#[test]
fn an_invalid_tail_request_is_refused() {
    let daemon = idle();
    let mut client = daemon.client();
    for request in [
        json!({"op": "tail", "from": 1, "last": 1}),
        json!({"op": "tail", "last": -1}),
        json!({"op": "tail", "from": "1"}),
        json!({"op": "tail", "from": "p1,x"}),
        json!({"op": "tail", "from": "p1", "last": 1}),
        json!({"op": "tail", "from": true}),
        json!({"op": "replay", "sink": "file", "from": "p1", "to": 2}),
        json!({"op": "tail", "pinId": "A"}),
    ] {
        assert_eq!(crate::support::code(&client.op(&request)), "invalid_request", "{request}");
    }
}
