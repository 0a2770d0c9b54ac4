//! The record: one line, exact in its shape, with what the submitter gave to the letter.

use std::fs;

use serde_json::Value;

use super::common::{Place, Simulated};

/// Checks what differs from run to run, and puts names in its place.
fn normalized(line: &str) -> String {
    let record: Value = serde_json::from_str(line).unwrap();
    let text = |member: &str| record[member].as_str().unwrap();
    let id: uuid::Uuid = text("id").parse().unwrap();
    assert_eq!(id.get_version_num(), 7);
    assert_eq!(id.to_string(), text("id"));
    for time in [text("submittedAt"), text("finishedAt")] {
        time.parse::<jiff::Timestamp>().unwrap();
        assert!(time.len() == "2026-01-02T03:04:05.678Z".len() && time.ends_with('Z'), "{time}");
    }
    assert!(text("submittedAt") <= text("finishedAt"));
    let polls = record["polls"].as_u64().unwrap();
    line.replacen(&format!(r#"{{"seq":{},"id":"{id}","#, record["seq"]), r#"{"seq":SEQ,"id":"ID","#, 1)
        .replace(&format!(r#""submittedAt":"{}""#, text("submittedAt")), r#""submittedAt":"TIME""#)
        .replace(&format!(r#""finishedAt":"{}""#, text("finishedAt")), r#""finishedAt":"TIME""#)
        .replace(&format!(r#""polls":{polls}}}"#), r#""polls":POLLS}"#)
}

#[test]
fn each_ending_has_its_record_in_the_exact_shape() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).set("schedule.not_found_grace", "100ms").start();
    let mut client = daemon.client();
    let end = |fields: &str, request: &str| {
        let mut client = daemon.client();
        client.ask(format!(r#"{{"op":"submit","pinId":"{request}"{fields}}}"#));
        client.outcome(request);
    };
    end(r#","reference":"order-42","metadata":{"b":1,"a":[1.50]}"#, "sim-delivered-1");
    end(r#","deadline":"300ms","reference":"r""#, "sim-waiting-1");
    end("", "sim-404-1");
    end(r#","metadata":[null]"#, "sim-400-1");
    client.submit("sim-none-1");
    client.ask(r#"{"op":"cancel","pinId":"sim-none-1"}"#);
    daemon.all_records(5);

    let file = fs::read_to_string(daemon.place.results()).unwrap();
    let lines: Vec<String> = file.lines().map(normalized).collect();
    assert_eq!(
        lines,
        [
            r#"{"seq":SEQ,"id":"ID","pinId":"sim-delivered-1","outcome":"final","status":"MESSAGE_DELIVERED","description":"Message sent and delivered","delivered":true,"deliveries":[{"status":"MESSAGE_DELIVERED","description":"Message sent and delivered","finalStatus":true}],"reference":"order-42","metadata":{"b":1,"a":[1.50]},"submittedAt":"TIME","finishedAt":"TIME","polls":POLLS}"#,
            r#"{"seq":SEQ,"id":"ID","pinId":"sim-waiting-1","outcome":"deadline","status":"MESSAGE_WAITING_DELIVERY","description":"Message sent, waiting for delivery","delivered":null,"deliveries":[{"status":"MESSAGE_WAITING_DELIVERY","description":"Message sent, waiting for delivery","finalStatus":false}],"reference":"r","submittedAt":"TIME","finishedAt":"TIME","polls":POLLS}"#,
            r#"{"seq":SEQ,"id":"ID","pinId":"sim-404-1","outcome":"not_found","status":null,"description":null,"delivered":null,"deliveries":[],"submittedAt":"TIME","finishedAt":"TIME","polls":POLLS}"#,
            r#"{"seq":SEQ,"id":"ID","pinId":"sim-400-1","outcome":"rejected","status":null,"description":null,"delivered":null,"deliveries":[],"error":"400 Bad Request: BAD_REQUEST: This error was asked for.","metadata":[null],"submittedAt":"TIME","finishedAt":"TIME","polls":POLLS}"#,
            r#"{"seq":SEQ,"id":"ID","pinId":"sim-none-1","outcome":"cancelled","status":null,"description":null,"delivered":null,"deliveries":[],"submittedAt":"TIME","finishedAt":"TIME","polls":POLLS}"#,
        ]
    );
    let seqs: Vec<i64> = daemon.records().iter().map(|record| record["seq"].as_i64().unwrap()).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b));
    // In the order of their times, too: what is sorted by it needs no seq.
    let ids: Vec<String> =
        daemon.records().iter().map(|record| record["id"].as_str().unwrap().to_owned()).collect();
    assert!(ids.is_sorted(), "{ids:?}");
}

#[test]
fn reference_and_metadata_come_out_as_they_went_in() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    let mut client = daemon.client();
    let references =
        ["", " ", "order-42", "é€😀", r"\u0000\u001b\n", r#"\"\\\/"#, "}],", "0", "null", "\u{2028}"];
    for (n, reference) in references.iter().enumerate() {
        let pin = format!("sim-delivered-reference-{n}");
        client.ask(format!(r#"{{"op":"submit","pinId":"{pin}","reference":"{reference}"}}"#));
        let expected: Value = serde_json::from_str(&format!("\"{reference}\"")).unwrap();
        assert_eq!(client.outcome(&pin)["reference"], expected);
    }
    let long = format!("\"{}\"", "é".repeat(30_000));
    let metadatas = [
        r#"{"b":1,"a":2}"#,
        r#"{ "spaces" : [ 1 , 2 ] }"#,
        r#"{"same":1,"same":2}"#,
        "1.50",
        "1e400",
        "-0",
        "123456789012345678901234567890.1",
        "false",
        r#""\u00e9\u0000\ud83d\/""#,
        "\"é😀\"",
        "[]",
        "{}",
        r#"{"seq":1,"pinId":"other"}"#,
        &long,
    ];
    for (n, metadata) in metadatas.iter().enumerate() {
        let pin = format!("sim-delivered-metadata-{n}");
        let answer = client.ask(format!(r#"{{"op":"submit","pinId":"{pin}","metadata":{metadata}}}"#));
        assert_eq!(answer["state"], "accepted", "{metadata}: {answer}");
    }
    client.ask(r#"{"op":"submit","pinId":"sim-delivered-none","metadata":null,"reference":null}"#);
    client.outcome("sim-delivered-none");
    let count = references.len() + metadatas.len() + 1;
    let lines = super::common::until("all lines", || {
        let file = fs::read_to_string(daemon.place.results()).unwrap();
        (file.lines().count() == count && file.ends_with('\n'))
            .then(|| file.lines().map(str::to_owned).collect::<Vec<_>>())
    });
    for (n, metadata) in metadatas.iter().enumerate() {
        let line =
            lines.iter().find(|line| line.contains(&format!(r#""pinId":"sim-delivered-metadata-{n}""#)));
        assert!(line.unwrap().contains(&format!(r#","metadata":{metadata},"submittedAt":"#)), "{line:?}");
    }
    let none = lines.iter().find(|line| line.contains("sim-delivered-none")).unwrap();
    assert!(!none.contains("metadata") && !none.contains("reference"), "{none}");
}

#[test]
fn every_sink_gets_the_same_lines() {
    let api = Simulated::start();
    let place = Place::new(&api.base_url());
    let sinks = format!(
        r#"[{{type="stdout",from="oldest"}},{{type="file",path={:?},from="oldest"}},{{type="file",name="second",path={:?},from="oldest"}}]"#,
        place.results(),
        place.path("second.jsonl"),
    );
    let daemon = place.set("sink", &sinks).start();
    let pins: Vec<String> = (0..100).map(|n| format!("sim-delivered-{n}")).collect();
    daemon.client().submit_all(&pins);
    daemon.all_records(100);
    let place = daemon.terminate();
    let file = fs::read_to_string(place.results()).unwrap();
    assert_eq!(file.lines().count(), 100);
    for other in ["stdout", "second.jsonl"] {
        assert_eq!(fs::read_to_string(place.path(other)).unwrap(), file, "{other}");
    }
}
