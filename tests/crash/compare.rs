//! Checks that each PIN is exactly once in the store, in the files, at the follower and at the webhook.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::load::{Known, Pin};
use super::receiver::Delivery;
use super::round::Counts;
use crate::support::json;

/// So many bytes of a line prove whose it is.
const PROVABLE: usize = 80;

/// Compares the answers that the clients got with the results, and counts them.
pub fn compare(
    known: &Known,
    outbox: &[String],
    files: &[String],
    webhooks: Option<Vec<Delivery>>,
    counts: &mut Counts,
) {
    counts.refused_by_a_stopping_daemon = known.refused;
    let records: Vec<Value> = outbox.iter().map(|line| json(line)).collect();
    every_pin_has_one_outcome(known, &records, counts);
    what_acks_told_still_holds(known, &records, counts);
    seqs_ascend(&records);

    // The last outcomes may be newer than the follower's end.
    let followed = known.followed.len();
    assert!(known.followed[..] == outbox[..followed], "a follower was told something else than what is so");
    counts.outcomes_followed += followed as u64;

    files_have_each_line_once(outbox, files, counts);
    if let Some(webhooks) = webhooks {
        the_webhook_has_each_at_least_once(outbox, &webhooks, counts);
    }
}

fn every_pin_has_one_outcome(known: &Known, records: &[Value], counts: &mut Counts) {
    let mut outcomes: HashMap<&str, u32> = HashMap::new();
    for record in records {
        let id = record["pinId"].as_str().expect("a record names its PIN");
        *outcomes.entry(id).or_default() += 1;
        let (Pin { outcome, delivered, reference, .. }, _) =
            known.acked.get(id).unwrap_or_else(|| panic!("nobody submitted {id}"));
        assert_eq!(record["outcome"], *outcome, "{record}");
        assert_eq!(record["delivered"].as_bool(), *delivered, "{record}");
        assert_eq!(record["reference"].as_str(), reference.as_deref(), "{record}");
    }
    let lost: Vec<_> = known.acked.keys().filter(|id| !outcomes.contains_key(id.as_str())).collect();
    assert!(lost.is_empty(), "acked PINs without an outcome: {lost:?}");
    let doubled: Vec<_> = outcomes.iter().filter(|(_, count)| **count > 1).collect();
    assert!(doubled.is_empty(), "PINs with several outcomes: {doubled:?}");
    counts.pins += known.acked.len() as u64;
    counts.outcomes_in_the_store += records.len() as u64;
}

fn what_acks_told_still_holds(known: &Known, records: &[Value], counts: &mut Counts) {
    let by_pin: HashMap<&str, &Value> =
        records.iter().filter_map(|record| Some((record["pinId"].as_str()?, record))).collect();
    for (id, (pin, answer)) in &known.acked {
        match answer["state"].as_str() {
            Some("accepted") => counts.acked_accepted += 1,
            Some("duplicate") => counts.acked_duplicate += 1,
            Some("finished") => {
                counts.acked_finished += 1;
                assert_eq!(&answer["outcome"], by_pin[id.as_str()], "an outcome changed after it was told");
            }
            _ => panic!("an answer of no known state: {answer}"),
        }
        counts.submitted_again_for_want_of_an_answer += u64::from(pin.unanswered > 0);
        let known_before = answer["state"] != "accepted";
        assert!(
            !known_before || pin.unanswered > 0,
            "{id} was submitted once, and told to be known: {answer}"
        );
    }
}

fn seqs_ascend(records: &[Value]) {
    let seqs: Vec<i64> = records.iter().map(|record| record["seq"].as_i64().expect("a seq")).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "seqs do not ascend");
    let ids: HashSet<&str> = records.iter().filter_map(|record| record["id"].as_str()).collect();
    assert_eq!(ids.len(), records.len(), "every outcome has an id of its own");
}

fn files_have_each_line_once(outbox: &[String], files: &[String], counts: &mut Counts) {
    // The few bytes that a torn write left alone in a file, which was then renamed, could be another program's. The sink leaves them.
    let (alone, files): (Vec<&String>, Vec<&String>) =
        files.iter().partition(|file| (1..PROVABLE).contains(&file.len()) && !file.contains('\n'));
    counts.half_lines_left_alone += alone.len() as u64;
    for file in &files {
        assert!(file.is_empty() || file.ends_with('\n'), "a file ends with a torn line: {:?}", last(file));
    }
    let lines: Vec<&str> = files.iter().flat_map(|file| file.lines()).collect();
    for (at, (line, record)) in lines.iter().zip(outbox).enumerate() {
        assert_eq!(
            line,
            record,
            "line {at} of the files, of {} lines and {} outcomes",
            lines.len(),
            outbox.len()
        );
    }
    assert_eq!(lines.len(), outbox.len(), "lines in the files, and outcomes in the store");
    counts.lines_in_files += lines.len() as u64;
}

fn the_webhook_has_each_at_least_once(outbox: &[String], webhooks: &[Delivery], counts: &mut Counts) {
    let mut times: HashMap<&str, u64> = HashMap::new();
    for Delivery { id, body } in webhooks {
        *times.entry(body).or_default() += 1;
        assert_eq!(json(body)["id"], **id, "webhook-id is the outcome's id");
    }
    for record in outbox {
        assert!(times.contains_key(record.as_str()), "the webhook lacks {record}");
    }
    assert_eq!(times.len(), outbox.len(), "the webhook has outcomes that the store has not");
    counts.webhooks += webhooks.len() as u64;
    counts.webhooks_doubled += times.values().map(|times| times - 1).sum::<u64>();
}

fn last(file: &str) -> Option<&str> {
    file.lines().last()
}
