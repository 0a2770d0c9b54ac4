//! Finds a PIN's outcome wherever its entry is: in memory, in the file, or in both after a crash.

use std::path::Path;

use jiff::Timestamp;

use super::super::Reader;
use super::super::open::open as open_file;
use super::super::write::WriteConnection;
use crate::clock::Clock;
use crate::outcome::{Ending, Verdict};
use crate::pin::PinId;
use crate::store::{NewPin, Reads, Submitted, Transaction, Writes};

const ROOM: usize = 1000;

/// With few waiting entries, most are soon in the file.
async fn open(path: &Path) -> (Reader, WriteConnection) {
    let (reader, mut writer) =
        open_file(path, &Clock::system()).await.unwrap().load_both(|_| {}).await.unwrap();
    writer.index.target = 5;
    (reader, writer)
}

fn pin(n: usize) -> PinId {
    format!("pin-{n}").parse().unwrap()
}

fn new(pin: PinId, again: bool) -> NewPin {
    let submitted_at = Timestamp::UNIX_EPOCH;
    NewPin {
        pin,
        reference: None,
        metadata: None,
        submitted_at: submitted_at.into(),
        deadline_at: submitted_at,
        submitter: None,
        again,
    }
}

fn verdict(pin: PinId) -> Verdict {
    let finished_at = Timestamp::UNIX_EPOCH.into();
    Verdict { pin, ending: Ending::Cancelled, deliveries: None, error: None, polls: 0, finished_at }
}

/// Submits and finishes a PIN; returns the `seq` of its outcome.
async fn submit_and_finish(writer: &mut WriteConnection, pin: &PinId, again: bool) -> i64 {
    let submits = Transaction { submits: vec![new(pin.clone(), again)], ..Transaction::default() };
    assert_eq!(writer.apply(&submits, ROOM).await.unwrap().submitted, [Submitted::Accepted], "{pin}");
    let ends = Transaction { verdicts: vec![verdict(pin.clone())], ..Transaction::default() };
    writer.apply(&ends, ROOM).await.unwrap().finished[0].seq
}

async fn all_are_known(reader: &Reader, writer: &mut WriteConnection, seqs: &[i64]) {
    for (n, seq) in seqs.iter().enumerate() {
        let outcome = reader.outcome_of(&pin(n)).await.unwrap();
        assert_eq!(outcome.map(|outcome| outcome.seq), Some(*seq), "pin-{n}");
    }
    let submits = (0..seqs.len()).map(|n| new(pin(n), false)).collect();
    let applied = writer.apply(&Transaction { submits, ..Transaction::default() }, ROOM).await.unwrap();
    for (n, (submitted, seq)) in applied.submitted.iter().zip(seqs).enumerate() {
        let Submitted::Finished(Some(record)) = submitted else { panic!("pin-{n}: {submitted:?}") };
        assert!(record.starts_with(&format!("{{\"seq\":{seq},")), "pin-{n}: {record}");
    }
}

async fn count(writer: &mut WriteConnection, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&mut writer.connection).await.unwrap()
}

#[tokio::test]
async fn the_newest_outcome_of_a_pin_is_found_in_memory_in_the_file_and_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pinwatch.db");
    let (mut reader, mut writer) = open(&path).await;
    let mut seqs = Vec::new();
    for n in 0..60 {
        seqs.push(submit_and_finish(&mut writer, &pin(n), false).await);
        // Some are polled twice: the newest outcome counts.
        if n % 7 == 3 {
            seqs[n / 2] = submit_and_finish(&mut writer, &pin(n / 2), true).await;
        }
        if n % 13 == 12 {
            all_are_known(&reader, &mut writer, &seqs).await;
            // A crash closes nothing.
            drop((reader, writer));
            (reader, writer) = open(&path).await;
            all_are_known(&reader, &mut writer, &seqs).await;
        }
    }
    all_are_known(&reader, &mut writer, &seqs).await;
    let in_file = count(&mut writer, "SELECT count(*) FROM outcome_by_pin").await;
    assert!(in_file >= 50, "{in_file}");
    // Otherwise every start would read them all.
    assert!(count(&mut writer, "SELECT indexed FROM history").await >= 40);
}

#[tokio::test]
async fn an_outcome_that_is_removed_leaves_nothing_in_the_index() {
    let folder = tempfile::tempdir().unwrap();
    let (reader, mut writer) = open(&folder.path().join("pinwatch.db")).await;
    for n in 0..20 {
        submit_and_finish(&mut writer, &pin(n), false).await;
    }
    let prune = Transaction { prune: Some(Clock::system().steady()), ..Transaction::default() };
    assert_eq!(writer.apply(&prune, ROOM).await.unwrap().pruned, 20);
    assert_eq!(count(&mut writer, "SELECT count(*) FROM outcome_by_pin").await, 0);
    assert!(writer.index.waiting.lock().is_empty());
    assert_eq!(reader.outcome_of(&pin(3)).await.unwrap(), None);
    assert!(reader.outcomes_after(0, 100).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_pin_that_ends_and_is_submitted_again_in_one_transaction_has_its_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let (_reader, mut writer) = open(&folder.path().join("pinwatch.db")).await;
    let submits = vec![new(pin(1), false), new(pin(1), false), new(pin(2), false)];
    let applied = writer.apply(&Transaction { submits, ..Transaction::default() }, 1).await.unwrap();
    assert_eq!(applied.submitted, [Submitted::Accepted, Submitted::Duplicate, Submitted::AtCapacity]);
    let submits = vec![new(pin(1), false), new(pin(1), true), new(pin(1), true)];
    let work = Transaction { verdicts: vec![verdict(pin(1))], submits, ..Transaction::default() };
    let applied = writer.apply(&work, 1).await.unwrap();
    let record = applied.finished[0].record.clone();
    assert_eq!(
        applied.submitted,
        [Submitted::Finished(Some(record)), Submitted::Accepted, Submitted::Duplicate]
    );
}
