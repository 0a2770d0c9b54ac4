//! A transaction, its result, and the connection that carries it out, the same for every store.
//!
//! Promises that a transaction is carried out as a whole or not. Knows nothing of SQL, nor of who waits for the result.

use async_trait::async_trait;

use super::cluster_work::{ClusterApplied, ClusterWork};
use super::{DeliveryCommand, InFlight, NewPin, Outcome, Progress, SavedSchedule, Submitted, Unavailable};
use crate::clock::Steady;
use crate::outcome::Verdict;

/// The changes of one transaction. SQLite makes them in the order of the fields, PostgreSQL in an order that avoids
/// deadlocks.
#[derive(Default)]
pub struct Transaction {
    pub verdicts: Vec<Verdict>,
    pub submits: Vec<NewPin>,
    pub progress: Vec<Progress>,
    pub commands: Vec<DeliveryCommand>,
    pub schedule: Option<SavedSchedule>,
    /// Remove some of the outcomes that ended before this time and that every sink has.
    pub prune: Option<Steady>,
    /// A store of one machine ignores it.
    pub cluster: ClusterWork,
}

impl Transaction {
    /// The number of changes.
    pub fn changes(&self) -> usize {
        let Self { verdicts, submits, progress, commands, schedule, prune, cluster } = self;
        let moves = progress.iter().map(|one| 1 + one.failed.len() + one.delivered.len()).sum::<usize>();
        let others = usize::from(schedule.is_some()) + usize::from(prune.is_some());
        verdicts.len() + submits.len() + moves + commands.len() + others + cluster.changes()
    }
}

/// The result of a committed transaction.
#[derive(Default)]
pub struct Applied {
    /// One result for each submit, in the order of the submits.
    pub submitted: Vec<Submitted>,
    pub accepted: Vec<InFlight>,
    pub finished: Vec<Outcome>,
    /// How many outcomes each delivery command affected, in the order of the commands.
    pub affected: Vec<u64>,
    pub pruned: u64,
    pub cluster: ClusterApplied,
}

/// The only connection of this process that writes.
#[async_trait]
pub trait Writes: Send {
    /// The number of PINs in flight as of the last commit.
    fn in_flight(&self) -> usize;

    /// The highest `seq` that was ever assigned in this process' partition of the outbox.
    fn last_seq(&self) -> i64;

    /// Makes all changes durable, or none. Afterwards at most `max_in_flight` PINs are in flight, unless there were
    /// more before.
    ///
    /// # Errors
    /// Nothing was done, or nobody can know whether it was. In both cases it is safe to repeat.
    async fn apply(&mut self, work: &Transaction, max_in_flight: usize) -> Result<Applied, Unavailable>;

    /// Creates a cursor for a sink that has none; returns the sink's cursor.
    async fn register_sink(&mut self, name: &str, from_oldest: bool) -> Result<i64, Unavailable>;

    /// Adds some of the outcomes that an older version wrote to an index that it did not have; returns whether there
    /// are more. A store that builds its indexes at once has none.
    async fn index_older(&mut self) -> Result<bool, Unavailable> {
        Ok(false)
    }

    /// Checks that the next start will find the files that this process writes.
    ///
    /// # Errors
    /// They are not: write nothing and acknowledge nothing.
    async fn in_place(&mut self) -> Result<(), Unavailable> {
        Ok(())
    }

    /// Stores the current time if the stored one is old, so that PINs in flight age even if nothing else is written.
    async fn note_time(&mut self) -> Result<(), Unavailable> {
        Ok(())
    }

    /// Closes the connection cleanly.
    async fn close(self: Box<Self>) -> Result<(), Unavailable>;
}
