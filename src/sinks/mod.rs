//! Delivers outcomes: one dispatcher per sink, each with its own durable cursor.
//!
//! Promises that every sink receives every outcome, in order for stdout and files, or has it as a dead letter, even after
//! crashes, full disks and outages, and that no sink waits for another. The cursor passes an outcome only once it is delivered,
//! or recorded as failed for this sink. Knows the store's outbox; must not know polls.

mod delivery_history;
mod dispatch;
mod file;
mod handover;
mod stdout;
#[cfg(test)]
pub mod testing;
mod webhook;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use delivery_history::DeliveryHistory;
pub use dispatch::Dispatcher;
pub use file::{FileSink, Unsafe};
pub use handover::Handover;
pub use stdout::StdoutSink;
pub use webhook::{Endpoint, SetupError, run_webhook};

use crate::clock::Clock;
use crate::store::{Outcome, Store, Unavailable, Writer};

/// Where a sink gets its outcomes from and reports to.
#[derive(Clone)]
pub struct Outbox {
    /// The sink's name, which is its cursor's.
    pub name: String,
    /// The durable cursor at the start.
    pub cursor: i64,
    pub store: Store,
    pub writer: Writer,
    pub clock: Clock,
    pub health: Health,
    /// Each change asks the sink to reopen its file (SIGHUP).
    pub rotate: watch::Receiver<u64>,
    /// Cancelled at a stop: the sink ends after what it can still deliver.
    pub finish: CancellationToken,
    /// Requested by a reload: the sink ends after its present batch.
    pub handover: Handover,
}

/// A sink that accepts outcomes one after the other, in order.
pub trait Ordered: Send + Sync + 'static {
    /// Prepares to deliver the outcomes after `cursor`. Returns the `seq` up to which the sink already has all outcomes, if
    /// it can tell: after a crash that may be beyond the cursor.
    fn open(
        &mut self,
        store: &Store,
        cursor: i64,
    ) -> impl Future<Output = Result<Option<i64>, Trouble>> + Send;

    /// Delivers outcomes in their order. Returns how many are durably delivered, and the trouble if some are not.
    fn deliver(
        &mut self,
        outcomes: Vec<Outcome>,
    ) -> impl Future<Output = (usize, Result<(), Trouble>)> + Send;

    /// Checks whether the sink could still deliver. Called every few seconds while there is nothing to deliver.
    fn check(&mut self) -> impl Future<Output = Result<(), Trouble>> + Send {
        async { Ok(()) }
    }

    /// Accepts the file at its path at the next `open`, even if it is another one than before: an administrator asked for a
    /// reload.
    fn adopt(&mut self) {}
}

/// Why a sink accepts no outcomes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It may accept them later.
    #[error("{0}")]
    Later(String),
    /// Another file is at its path: the sink must open that one, once the cursor is durable.
    #[error("the file was rotated")]
    Rotated,
    /// It accepts none until the process restarts.
    #[error("{0}")]
    Closed(String),
}

impl From<Unavailable> for Trouble {
    fn from(unavailable: Unavailable) -> Self {
        Self::Later(unavailable.to_string())
    }
}

/// The state of all sinks, for `stats`, health and metrics. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, SinkHealth>>>);

/// The state of one sink.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SinkHealth {
    /// Every outcome up to this `seq` is delivered, or recorded as failed.
    pub cursor: i64,
    /// Outcomes delivered to it since the start of this process, including repeated ones.
    pub delivered: u64,
    /// When it stopped, and why.
    pub trouble: Option<(Timestamp, String)>,
    /// Whether it is closed until the next start.
    pub closed: bool,
    /// When it is tried again; `None` if no attempt is scheduled.
    pub next_attempt: Option<Timestamp>,
    /// Since when its circuit breaker is open: it is only probed. A webhook alone has one.
    pub open_since: Option<Timestamp>,
    history: DeliveryHistory,
}

impl SinkHealth {
    /// Makes the health of a sink from its cursor, if nothing else is known.
    pub fn at(cursor: i64) -> Self {
        Self { cursor, ..Self::default() }
    }

    /// Moves the cursor to `seq`.
    pub fn advance(&mut self, seq: i64, at: Timestamp) {
        if seq > self.cursor {
            self.history.record(self.cursor, seq, at);
        }
        self.cursor = seq;
    }

    /// Records the delivery of outcomes that the cursor had already passed.
    pub fn delivered(&mut self, seqs: &[i64], at: Timestamp) {
        seqs.iter().for_each(|seq| self.history.record(seq - 1, *seq, at));
    }

    /// When the sink received an outcome, if that is remembered.
    pub fn has_since(&self, seq: i64) -> Option<Timestamp> {
        self.history.since(seq)
    }
}

impl Health {
    /// The state of each sink, by name.
    pub fn all(&self) -> BTreeMap<String, SinkHealth> {
        self.lock().clone()
    }

    /// Changes the state of one sink.
    pub fn update(&self, sink: &str, change: impl FnOnce(&mut SinkHealth)) {
        change(self.lock().entry(sink.to_owned()).or_default());
    }

    /// Records why a sink accepts no outcomes, and logs when that begins.
    pub fn trouble(&self, sink: &str, why: &str, now: Timestamp) {
        self.update(sink, |health| {
            if health.trouble.is_none() {
                warn!(
                    sink,
                    trouble = why,
                    "the sink takes no outcomes; they are kept, and it is tried again"
                );
            }
            health.trouble.get_or_insert((now, String::new())).1 = why.to_owned();
        });
    }

    /// Records that a sink accepts outcomes, and logs it if the sink had trouble.
    pub fn recovered(&self, sink: &str) {
        self.update(sink, |health| {
            health.next_attempt = None;
            if health.trouble.take().is_some() {
                info!(sink, "the sink takes outcomes again");
            }
        });
    }

    /// Forgets a sink that is no longer configured.
    pub fn forget(&self, sink: &str) {
        self.lock().remove(sink);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, SinkHealth>> {
        // Each update is complete in itself, so a panic elsewhere leaves no partial state.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
