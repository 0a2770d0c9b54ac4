//! The common steps of the durability tests: submit, wait until everything is delivered, compare.

use std::collections::HashSet;

use serde_json::Value;

use super::{Client, json, until};

/// PIN IDs with lives as `sim-WHAT-` has them.
pub fn sim_pins(what: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("sim-{what}-{number}")).collect()
}

/// Submits PINs in a pipeline; returns the answers.
#[track_caller]
pub fn submit(client: &mut Client, pins: &[String]) -> Vec<Value> {
    let answers = try_submit(client, pins);
    assert_eq!(answers.len(), pins.len(), "the daemon ended before it answered");
    answers
}

/// Submits PINs; returns the answers up to the daemon's end.
pub fn try_submit(client: &mut Client, pins: &[String]) -> Vec<Value> {
    let lines: String = pins.iter().map(|pin| format!("{pin}\n")).collect();
    // If it does not take them, it does not answer them either.
    let _ = client.try_write(&lines);
    pins.iter().map_while(|_| Some(json(&client.whole_line()?))).collect()
}

/// Waits until every outcome that is known is in the result file.
pub fn all_delivered(client: &mut Client) {
    until("every outcome is delivered", || {
        let stats = client.stats();
        let behind = stats["sinks"]["file"]["behind"] == 0;
        (stats["finishing"] == 0 && behind && stats["sinks"]["file"]["trouble"].is_null()).then_some(())
    });
}

/// Checks that the files have what the outbox has, in its order, which is one outcome for each of these PINs.
#[track_caller]
pub fn assert_each_once(outbox: &[String], files: &[String], pins: &[&[String]]) {
    for file in files {
        assert!(file.is_empty() || file.ends_with('\n'), "torn: {:?}", file.lines().last());
    }
    let lines: Vec<&str> = files.iter().flat_map(|file| file.lines()).collect();
    assert!(lines == outbox, "{} lines, {} outcomes:\n{}", lines.len(), outbox.len(), lines.join("\n"));
    let finished: Vec<String> = outbox
        .iter()
        .map(|line| json(line)["pinId"].as_str().expect("a record names its PIN").to_owned())
        .collect();
    let expected: HashSet<&String> = pins.iter().copied().flatten().collect();
    assert_eq!(finished.len(), expected.len());
    assert_eq!(finished.iter().collect::<HashSet<_>>(), expected);
}
