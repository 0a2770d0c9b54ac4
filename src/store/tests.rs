//! The store through its public interface, on a file.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use super::*;
use crate::clock::Clock;
use crate::outcome::{Ending, Verdict};

/// The number of transactions, from the lock file.
fn commits(database: &Path) -> u64 {
    let note = fs::read_to_string(database.with_extension("db.lock")).unwrap();
    note.trim().parse().unwrap()
}

fn new(pin: PinId, now: Timestamp) -> NewPin {
    NewPin {
        pin,
        reference: None,
        metadata: None,
        submitted_at: now.into(),
        deadline_at: now,
        submitter: None,
        again: false,
    }
}

#[tokio::test]
async fn a_search_for_expired_outcomes_that_finds_none_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pinwatch.db");
    let (store, connection) =
        super::open_sqlite(&path, &Clock::system()).await.unwrap().load(|_| {}).await.unwrap();
    let (sender, mut committed) = tokio::sync::mpsc::channel::<Committed>(16);
    let (writer, task) = Writer::new(connection, sender, 10);
    let task = tokio::spawn(task.run());
    let now = Timestamp::now();
    assert_eq!(writer.prune(Dated::from(now).steady).await.unwrap(), 0);
    assert_eq!(commits(&path), 0);

    let pin: PinId = "A".parse().unwrap();
    writer.submit(vec![new(pin.clone(), now)]).await.unwrap();
    let verdict = Verdict {
        pin,
        ending: Ending::Cancelled,
        deliveries: None,
        error: None,
        polls: 0,
        finished_at: now.into(),
    };
    writer.try_finish(verdict).unwrap();
    writer.flush().await.unwrap();
    let before = commits(&path);
    assert!(before > 0);
    // First the outcome is too young, then old enough, then already removed.
    for (than, removed) in
        [(Dated::from(now).steady, 0), (Steady::from_millis(i64::MAX), 1), (Steady::from_millis(i64::MAX), 0)]
    {
        assert_eq!(writer.prune(than).await.unwrap(), removed);
    }
    assert_eq!(commits(&path), before + 1);
    drop(writer);
    while committed.recv().await.is_some() {}
    store.close().await;
    assert_eq!(task.await.unwrap(), 0);
}

/// A database whose file is moved away once, right after a commit.
struct Moving {
    inner: Box<dyn Writes>,
    leaves: bool,
    is_away: Arc<AtomicBool>,
}

#[async_trait]
impl Writes for Moving {
    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn last_seq(&self) -> i64 {
        self.inner.last_seq()
    }

    async fn apply(&mut self, work: &Transaction, max_in_flight: usize) -> Result<Applied, Unavailable> {
        let applied = self.inner.apply(work, max_in_flight).await;
        self.is_away.store(std::mem::take(&mut self.leaves), Ordering::Relaxed);
        applied
    }

    async fn register_sink(&mut self, name: &str, from_oldest: bool) -> Result<i64, Unavailable> {
        self.inner.register_sink(name, from_oldest).await
    }

    async fn in_place(&mut self) -> Result<(), Unavailable> {
        if self.is_away.load(Ordering::Relaxed) { Err(Unavailable("moved".into())) } else { Ok(()) }
    }

    async fn close(self: Box<Self>) -> Result<(), Unavailable> {
        self.inner.close().await
    }
}

#[tokio::test]
async fn pins_committed_while_the_file_was_moved_away_are_polled_and_not_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pinwatch.db");
    let (_store, inner) =
        super::open_sqlite(&path, &Clock::system()).await.unwrap().load(|_| {}).await.unwrap();
    let is_away = Arc::new(AtomicBool::new(false));
    let (sender, mut committed) = tokio::sync::mpsc::channel::<Committed>(16);
    let moving = Moving { inner, leaves: true, is_away: is_away.clone() };
    let (writer, task) = Writer::new(Box::new(moving), sender, 10);
    let task = tokio::spawn(task.run());
    let pin: PinId = "A".parse().unwrap();
    let submit = || writer.submit(vec![new(pin.clone(), Timestamp::now())]);
    let refused = submit().await.unwrap_err();
    assert_eq!(&*refused.0, "moved");
    assert!(writer.trouble().is_some());
    assert!(matches!(&committed.recv().await, Some(Committed::Accepted(pins)) if pins[0].pin == pin));
    // Nothing is written while the file is away.
    assert!(writer.flush().await.is_err() && submit().await.is_err());
    assert_eq!(commits(&path), 1);
    is_away.store(false, Ordering::Relaxed);
    // The file, back in its place, has the PIN.
    assert_eq!(submit().await.unwrap(), [Submitted::Duplicate]);
    assert!(writer.trouble().is_none());
    drop(writer);
    assert_eq!(task.await.unwrap(), 0);
}
