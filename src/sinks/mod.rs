//! Delivery of outcomes: one dispatcher a sink, each with a durable cursor of its own.
//!
//! Promises that every sink gets every outcome, in order for stdout and files, whatever was killed, full or
//! down; and that no sink waits for another. The cursor moves only on an explicit "delivered". Knows the
//! store's outbox; knows nothing of polls.

mod dispatch;
mod file;
mod leave;
mod passed;
mod stdout;
#[cfg(test)]
mod testing;
mod webhook;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

pub use dispatch::{Dispatcher, Rotate};
pub use file::{FileSink, Unsafe};
pub use leave::Leave;
use passed::Passed;
pub use stdout::StdoutSink;
pub use webhook::{Endpoint, SetupError, WebhookSink};

use crate::store::{Outcome, Store, Unavailable};

/// A sink that takes outcomes one after the other.
pub trait Ordered: Send + Sync + 'static {
    /// Makes ready to deliver what comes after `cursor`. Gives the `seq` up to which it has all outcomes, where it can
    /// tell by what the store knows: after a crash that may be further than the cursor.
    fn open(
        &mut self,
        store: &Store,
        cursor: i64,
    ) -> impl Future<Output = Result<Option<i64>, Trouble>> + Send;

    /// Delivers outcomes in their order. Gives how many it has for good, and what stopped it, if it did not
    /// take all.
    fn deliver(
        &mut self,
        outcomes: Vec<Outcome>,
    ) -> impl Future<Output = (usize, Result<(), Trouble>)> + Send;

    /// Looks whether it could still deliver; asked every few seconds while there is nothing to deliver.
    fn check(&mut self) -> impl Future<Output = Result<(), Trouble>> + Send {
        async { Ok(()) }
    }

    /// Whatever it delivers to now is meant, even if it is not what it opened: somebody has asked for a reload. Holds for
    /// the next `open`.
    fn adopt(&mut self) {}
}

/// Why a sink takes no outcomes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It may do so later.
    #[error("{0}")]
    Later(String),
    /// Its file is another one now: it is to be opened again, once the cursor is durable.
    #[error("the file was rotated")]
    Rotated,
    /// It never will, in this process.
    #[error("{0}")]
    Closed(String),
}

impl From<Unavailable> for Trouble {
    fn from(unavailable: Unavailable) -> Self {
        Self::Later(unavailable.to_string())
    }
}

/// How the sinks are, for `stats`, health and metrics. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, SinkHealth>>>);

/// How one sink is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SinkHealth {
    /// Every outcome up to here is delivered, or known to have failed.
    pub cursor: i64,
    /// What stops it, and since when.
    pub trouble: Option<(Timestamp, String)>,
    /// It takes nothing more in this process.
    pub closed: bool,
    passed: Passed,
}

impl SinkHealth {
    /// One of which nothing but the cursor is known.
    pub fn at(cursor: i64) -> Self {
        Self { cursor, ..Self::default() }
    }

    /// The cursor is at `seq` now.
    pub fn advance(&mut self, seq: i64, at: Timestamp) {
        if seq > self.cursor {
            self.passed.step(self.cursor, seq, at);
        }
        self.cursor = seq;
    }

    /// Outcomes that the cursor had passed before are delivered now.
    pub fn delivered(&mut self, seqs: &[i64], at: Timestamp) {
        seqs.iter().for_each(|seq| self.passed.step(seq - 1, *seq, at));
    }

    /// Since when it has an outcome, if that is remembered.
    pub fn has_since(&self, seq: i64) -> Option<Timestamp> {
        self.passed.since(seq)
    }
}

impl Health {
    /// How each sink is, by name.
    pub fn all(&self) -> BTreeMap<String, SinkHealth> {
        self.lock().clone()
    }

    /// Changes what is known of one sink.
    pub fn update(&self, sink: &str, change: impl FnOnce(&mut SinkHealth)) {
        change(self.lock().entry(sink.to_owned()).or_default());
    }

    /// Forgets a sink that is not configured any more.
    pub fn forget(&self, sink: &str) {
        self.lock().remove(sink);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, SinkHealth>> {
        // Each update is whole in itself, so a panic elsewhere leaves nothing half-done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
