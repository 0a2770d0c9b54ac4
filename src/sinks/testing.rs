//! A real store for tests of sinks.

use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::outcome::{Ending, Verdict};
use crate::store::{self, Committed, NewPin, Store, Writer};

/// A store and the name of a sink that has received no outcome yet.
pub struct TestStore {
    _folder: TempDir,
    pub store: Store,
    pub writer: Writer,
}

impl TestStore {
    pub async fn with_sink(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (store, mut connection) = store::open_sqlite(&folder.path().join("db"), &Clock::system())
            .await
            .unwrap()
            .load(|_| {})
            .await
            .unwrap();
        connection.register_sink(name, true).await.unwrap();
        // No one listens for commits.
        let (committed, _) = mpsc::channel::<Committed>(1);
        let (writer, task) = Writer::new(connection, committed, usize::MAX);
        tokio::spawn(task.run());
        Self { _folder: folder, store, writer }
    }

    /// Submits this many PINs and ends them.
    pub async fn finish(&self, name: &str, count: usize) {
        let now = Clock::system().wall();
        let pins = (0..count).map(|n| format!("{name}-{n}").parse().unwrap());
        let new = pins.map(|pin| NewPin {
            pin,
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
