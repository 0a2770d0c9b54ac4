//! The record: one line for every reader, in its exact form, with the data of the submitter.

use std::fs;

use serde_json::Value;

use crate::support::{Client, Place, Simulated, change, until};

/// Checks the values that differ from run to run, and replaces them by names.
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
fn each_ending_has_exactly_its_documented_record() {
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
fn reference_and_metadata_are_unchanged_except_for_white_space_between_tokens() {
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
        r#"{"no spaces":[1,2,[]]}"#,
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
    let lines = crate::support::until("all lines", || {
        // The last character may be written by half.
        let file = String::from_utf8_lossy(&fs::read(daemon.place.results()).unwrap()).into_owned();
        (file.lines().count() == count && file.ends_with('\n'))
            .then(|| file.lines().map(str::to_owned).collect::<Vec<_>>())
    });
    for (n, metadata) in metadatas.iter().enumerate() {
        let line =
            lines.iter().find(|line| line.contains(&format!(r#""pinId":"sim-delivered-metadata-{n}""#)));
        assert!(line.unwrap().contains(&format!(r#","metadata":{metadata},"submittedAt":"#)), "{line:?}");
    }
    let spaced =
        client.ask(r#"{"op":"submit","pinId":"sim-delivered-spaced","metadata":{ "a" : [ 1.50 , " " ] }}"#);
    assert_eq!(spaced["state"], "accepted");
    let record = client.ask_line(r#"{"op":"wait","pinId":"sim-delivered-spaced"}"#);
    assert!(record.contains(r#""metadata":{"a":[1.50," "]},"#), "{record}");
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

/// Where a line ends for some reader: for those with universal newlines (Python, Node, Java), and for those that go by
/// Unicode's (JavaScript before ES2019, Python's `splitlines`).
const LINE_ENDS: [char; 8] = ['\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];

/// Control characters of terminals that JSON allows unescaped in strings.
const TERMINAL: [char; 4] = ['\u{7f}', '\u{9b}', '\u{202e}', '\u{feff}'];

#[track_caller]
fn assert_is_one_line(line: &str) {
    let found = line.find(|c| c == '\n' || LINE_ENDS.contains(&c) || TERMINAL.contains(&c));
    assert_eq!(found, None, "{line:?}");
}

/// JSON with all those characters where they are legal, which has a forged record in it.
fn hostile_metadata() -> String {
    let forged = r#"{"seq":99,"pinId":"forged","outcome":"final","delivered":true}"#;
    let characters: String = LINE_ENDS.iter().chain(&TERMINAL).filter(|c| **c > ' ').collect();
    format!("{{\r\t\"k{characters}\" :\r{forged}\r,\"b\":1.0,\"b\":1e2,\"v\":\"{characters}\"}}")
}

#[test]
fn records_and_answers_are_one_line_in_every_definition_of_a_line() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    let mut client = daemon.client();
    let (metadata, reference) = (hostile_metadata(), "r\u{85}\u{2028}\u{2029}\u{202e}");
    for pin in ["sim-delivered-1", "sim-none-1"] {
        let fields = format!(r#""reference":"{reference}","metadata":{metadata}"#);
        let answer = client.ask(format!(r#"{{"op":"submit","pinId":"{pin}",{fields}}}"#));
        assert_eq!(answer["state"], "accepted", "{answer}");
    }
    let record = client.outcome("sim-delivered-1");
    let given: Value = serde_json::from_str(&metadata).unwrap();
    assert_eq!((&record["metadata"], record["reference"].as_str()), (&given, Some(reference)));

    daemon.all_records(1);
    let file = fs::read_to_string(daemon.place.results()).unwrap();
    let line = file.strip_suffix('\n').unwrap();
    assert_is_one_line(line);
    assert!(line.contains(r#""b":1.0,"b":1e2,"#), "numbers and duplicate keys stay: {line}");
    for request in [
        r#"{"op":"wait","pinId":"sim-delivered-1"}"#,
        r#"{"op":"show","pinId":"sim-delivered-1"}"#,
        r#"{"op":"show","pinId":"sim-none-1"}"#,
        r#"{"op":"submit","pinId":"sim-delivered-1"}"#,
        r#"{"op":"tail","last":1}"#,
        "{\"op\":\"ping\",\"field\u{2028}\":1}",
        "{\"op\":\"\u{2028}\u{85}\"}",
        "{\"op\":\"replay\",\"sink\":\"\u{2028}\u{85}\",\"pinId\":\"A\"}",
        r#"{"op":"cancel","pinId":"sim-none-1"}"#,
    ] {
        let mut client = daemon.client();
        assert_is_one_line(&client.ask_line(request));
    }
}

/// Puts this before the outcomes' last field: legal JSON, as older versions wrote it.
fn as_an_older_version_wrote_it() -> String {
    let old = format!("\"metadata\":{},\"polls\"", hostile_metadata()).replace('\'', "''");
    format!("UPDATE outcome SET record = replace(record, '\"polls\"', '{old}');")
}

#[test]
fn outcomes_of_an_older_version_are_delivered_once_and_cleaned() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    let mut client = daemon.client();
    client.submit("sim-none-1");
    client.submit("sim-delivered-1");
    daemon.all_records(1);
    let place = daemon.terminate();

    // The old version was killed after it wrote the line and before the sink's cursor moved.
    let metadata = hostile_metadata();
    change(&place.store(), &as_an_older_version_wrote_it());
    change(&place.store(), &format!("UPDATE pin SET metadata = '{metadata}'; UPDATE sink SET cursor = 0;"));
    let line = crate::support::column(&place.store(), "SELECT record FROM outcome").remove(0);
    assert!(line.contains('\r'));
    fs::write(place.results(), line + "\n").unwrap();

    let sinks = format!(
        r#"[{{type="file",path={:?},from="oldest"}},{{type="file",name="new",path={:?},from="oldest"}}]"#,
        place.results(),
        place.path("new.jsonl"),
    );
    let daemon = place.set("sink", &sinks).start();
    let mut client: Client = daemon.client();
    client.ask(r#"{"op":"cancel","pinId":"sim-none-1"}"#);
    let path = daemon.place.path("new.jsonl");
    let new = until("both records", || {
        fs::read_to_string(&path).ok().filter(|text| text.matches('\n').count() == 2)
    });
    let given: Value = serde_json::from_str(&metadata).unwrap();
    for line in new.lines() {
        assert_is_one_line(line);
        assert_eq!(serde_json::from_str::<Value>(line).unwrap()["metadata"], given);
    }
    assert_is_one_line(&client.ask_line(r#"{"op":"show","pinId":"sim-delivered-1"}"#));
    let place = daemon.terminate();
    let old = fs::read_to_string(place.results()).unwrap();
    assert_eq!(old.matches('\n').count(), 2, "a line came twice: {old:?}");
}
