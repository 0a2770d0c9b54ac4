//! SQLite finds a whole reference by its indexes.

use super::super::by_hash::Entry;
use super::super::index::{DROP_PINS, DROP_REFERENCES};
use super::super::open::open;
use super::*;
use crate::clock::Clock;

#[tokio::test]
async fn a_whole_reference_is_found_by_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let file = open(&folder.path().join("pinwatch.db"), &Clock::system()).await.unwrap();
    let (reader, _writer) = file.load_both(|_| {}).await.unwrap();
    let by_reference = "SEARCH outcome_by_reference USING PRIMARY KEY (reference_hash=?";
    for (sql, expected) in [
        (PAGE_REFERRING, vec!["SEARCH pin USING INTEGER PRIMARY KEY (rowid=?)"]),
        (PINS_REFERRING, vec!["SEARCH pin USING INTEGER PRIMARY KEY (rowid=?)"]),
        (NEWEST_REFERRING, vec!["SEARCH outcome USING INTEGER PRIMARY KEY (rowid=?)", by_reference]),
        (OUTCOMES_REFERRING, vec!["SEARCH outcome USING INTEGER PRIMARY KEY (rowid=?)", by_reference]),
        (DROP_PINS, vec!["SEARCH outcome_by_pin USING PRIMARY KEY (pin_hash=? AND seq=?)"]),
        (DROP_REFERENCES, vec!["SEARCH outcome_by_reference USING PRIMARY KEY (reference_hash=? AND seq=?)"]),
    ] {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(explain).fetch_all(&reader.readers).await.unwrap();
        let steps: Vec<&str> = plan.iter().map(|(.., step)| step.as_str()).collect();
        for expected in expected {
            assert!(steps.iter().any(|step| step.starts_with(expected)), "{sql}: {steps:?}");
        }
        let scans = |step: &&&str| step.starts_with("SCAN pin") || step.starts_with("SCAN outcome");
        assert_eq!(steps.iter().find(scans), None, "{sql}: {steps:?}");
    }
}

#[tokio::test]
async fn outcomes_behind_those_that_were_just_pruned_are_found_by_their_reference() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pinwatch.db");
    let file = open(&path, &Clock::system()).await.unwrap();
    let (reader, _writer) = file.load_both(|_| {}).await.unwrap();
    let writes = sqlx::SqlitePool::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    let insert = "INSERT INTO outcome (seq, pin_id, record, finished_at) VALUES (?1, 'PIN-' || ?1, '{\"reference\":\"R\"}', 0)";
    for seq in 41..=45 {
        sqlx::query(insert).bind(seq).execute(&writes).await.unwrap();
    }
    // Of all that wait for the index, the first 40 are gone from the file already.
    reader.waiting.references.lock().extend((1..=45).map(|seq| Entry::new(hash("R"), seq)));
    let mut seqs = Vec::new();
    loop {
        let stretch = reader.outcomes_referring("R", seqs.last().copied().unwrap_or(0), 4).await.unwrap();
        seqs.extend(stretch.outcomes.iter().map(|(_, outcome)| outcome.seq));
        if !stretch.more {
            break;
        }
    }
    assert_eq!(seqs, [41, 42, 43, 44, 45]);
}
