//! The store as its users see it, on a file.

use std::fs;
use std::path::Path;

use super::*;
use crate::outcome::{Ending, Verdict};

/// How many transactions there were, as the lock file notes it.
fn commits(database: &Path) -> u64 {
    let note = fs::read_to_string(database.with_extension("db.lock")).unwrap();
    note.trim().parse().unwrap()
}

#[tokio::test]
async fn a_search_for_old_outcomes_that_finds_none_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pinwatch.db");
    let (store, connection) = super::open_sqlite(&path).await.unwrap().load(|_| {}).await.unwrap();
    let (committed, mut told) = tokio::sync::mpsc::channel::<Committed>(16);
    let (writer, task) = Writer::new(connection, committed, 10);
    let task = tokio::spawn(task.run());
    let now = Timestamp::now();
    assert_eq!(writer.prune(now).await.unwrap(), 0);
    assert_eq!(commits(&path), 0);

    let pin: PinId = "A".parse().unwrap();
    let new = NewPin {
        pin: pin.clone(),
        reference: None,
        metadata: None,
        submitted_at: now,
        deadline_at: now,
        again: false,
    };
    writer.submit(vec![new]).await.unwrap();
    let verdict =
        Verdict { pin, ending: Ending::Cancelled, deliveries: None, error: None, polls: 0, finished_at: now };
    writer.try_finish(verdict).unwrap();
    writer.flush().await.unwrap();
    let before = commits(&path);
    assert!(before > 0);
    // It is not that old; then it is; then it is gone.
    for (than, removed) in [(now, 0), (Timestamp::MAX, 1), (Timestamp::MAX, 0)] {
        assert_eq!(writer.prune(than).await.unwrap(), removed);
    }
    assert_eq!(commits(&path), before + 1);
    drop(writer);
    while told.recv().await.is_some() {}
    store.close().await;
    assert_eq!(task.await.unwrap(), 0);
}
