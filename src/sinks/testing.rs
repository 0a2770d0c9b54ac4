//! A real store for tests of sinks.

use std::path::Path;

use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::outcome::{Ending, Verdict};
use crate::store::{self, Committed, NewPin, Store, Writer};

/// A store.
pub struct TestStore {
    pub store: Store,
    pub writer: Writer,
    _folder: Option<TempDir>,
}

impl TestStore {
    pub async fn with_sink(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Self::in_folder(folder.path()).await;
        store.writer.register(name.to_owned(), true).await.unwrap();
        Self { _folder: Some(folder), ..store }
    }

    /// A store without sinks, in a folder that the caller keeps.
    pub async fn in_folder(folder: &Path) -> Self {
        let opened = store::open_sqlite(&folder.join("db"), &Clock::system()).await.unwrap();
        let (store, connection) = opened.load(|_| {}).await.unwrap();
        // No one listens for commits.
        let (committed, _) = mpsc::channel::<Committed>(1);
        let (writer, task) = Writer::new(connection, committed, usize::MAX);
        tokio::spawn(task.run());
        Self { store, writer, _folder: None }
    }

    /// Submits this many PINs and ends them.
    pub async fn finish(&self, name: &str, count: usize) {
        self.end((0..count).map(|n| format!("{name}-{n}"))).await;
    }

    /// Submits these PINs and ends them.
    pub async fn end(&self, pins: impl IntoIterator<Item = String>) {
        let now = Clock::system().wall();
        let new = pins.into_iter().map(|pin| NewPin {
            pin: pin.parse().unwrap(),
            reference: None,
            metadata: None,
            submitted_at: now.into(),
            deadline_at: now,
            submitter: None,
            again: false,
        });
        let new: Vec<_> = new.collect();
        self.writer.submit(new.clone()).await.unwrap();
        for NewPin { pin, .. } in new {
            let verdict = Verdict {
                pin,
                ending: Ending::Final,
                deliveries: None,
                error: None,
                polls: 1,
                finished_at: now.into(),
            };
            while self.writer.try_finish(verdict.clone()).is_err() {
                self.writer.room().await;
            }
        }
        self.writer.flush().await.unwrap();
    }

    /// All records, oldest first.
    pub async fn records(&self) -> Vec<crate::store::Record> {
        let outcomes = self.store.outcomes_after(0, u32::MAX).await.unwrap();
        outcomes.into_iter().map(|outcome| outcome.record).collect()
    }
}
