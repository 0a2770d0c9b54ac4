//! The index of outcomes by PIN, keyed by the hash of the PIN ID. Its newest entries are in memory.
//!
//! Promises that every durable outcome is in memory or in the file's index. PIN IDs are random, so writing each entry
//! at once would write a page per outcome. Entries wait in memory until there are many. Then each commit writes a few
//! of them, in the order of their hashes: a page takes several, and no commit is long. `history.indexed` is the `seq`
//! after which a start has to read outcomes again. Knows nothing of records.

use std::ops::Bound;

use sqlx::sqlite::SqliteConnection;

use super::by_hash::{Entries, Entry, hash};
use super::many::Many;

/// About how many entries wait in memory: half a megabyte, and a tenth of a second at the next start.
const WAITING: usize = 32_768;

/// Outcomes that the start reads at once.
const PAGE: i64 = 4096;

/// The writer's half of the index.
pub struct Index {
    /// Entries that may not be in the file yet.
    pub waiting: Entries,
    /// About how many entries should wait.
    pub target: usize,
    /// The last entry written in the current pass over the waiting entries.
    at: Option<Entry>,
    /// The newest outcome when the current pass began. When the pass ends, all outcomes up to it are in the file.
    began: i64,
}

/// The changes that one transaction makes to the index.
#[derive(Default)]
pub struct Step {
    put: Vec<Entry>,
    /// The newest outcome, if a new pass begins.
    began: Option<i64>,
}

static PUT: Many = Many::new(
    "INSERT OR IGNORE INTO outcome_by_pin (pin_hash, seq) SELECT * FROM (VALUES ",
    "(?, ?)",
    ") WHERE column1 IS NOT NULL",
);
// `(pin_hash, seq) IN (VALUES …)` would make SQLite read the whole table.
static DROP: Many = Many::new(
    "DELETE FROM outcome_by_pin WHERE pin_hash IN (",
    "?",
    ") AND NOT EXISTS (SELECT 1 FROM outcome WHERE outcome.seq = outcome_by_pin.seq)",
);

impl Index {
    /// Loads the index of a file whose newest outcome has the seq `newest`.
    pub async fn load(connection: &mut SqliteConnection, newest: i64) -> Result<Self, sqlx::Error> {
        let mut from: i64 =
            sqlx::query_scalar("SELECT indexed FROM history").fetch_one(&mut *connection).await?;
        let waiting = Entries::default();
        loop {
            let page: String = sqlx::query_scalar(
                "SELECT json_group_array(json_array(seq, pin_id)) FROM \
                 (SELECT seq, pin_id FROM outcome WHERE seq > ?1 ORDER BY seq LIMIT ?2)",
            )
            .bind(from)
            .bind(PAGE)
            .fetch_one(&mut *connection)
            .await?;
            let page: Vec<(i64, &str)> =
                serde_json::from_str(&page).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
            let Some((last, _)) = page.last() else { break };
            from = *last;
            let entry = |(seq, pin): &(i64, &str)| {
                let damaged = || sqlx::Error::Decode(format!("an outcome has the seq {seq}").into());
                Entry::of_file(hash(pin), *seq).ok_or_else(damaged)
            };
            let entries: Vec<Entry> = page.iter().map(entry).collect::<Result<_, _>>()?;
            waiting.lock().extend(entries);
        }
        Ok(Self { waiting, target: WAITING, at: None, began: newest })
    }

    /// Writes so many entries to the file that, with `added` new ones, the number of waiting entries approaches the
    /// target.
    pub async fn step(
        &self,
        connection: &mut SqliteConnection,
        added: usize,
        newest: i64,
    ) -> Result<Step, sqlx::Error> {
        let mut step = Step::default();
        {
            let waiting = self.waiting.lock();
            let excess = (waiting.len() + added).saturating_sub(self.target);
            // More than are added, so that the number shrinks after a burst; but not all at once, so that nobody waits
            // long.
            let count = excess.min(2 * added);
            if count == 0 {
                return Ok(step);
            }
            let from = self.at.map_or(Bound::Unbounded, Bound::Excluded);
            step.put.extend(waiting.range((from, Bound::Unbounded)).take(count));
            if step.put.len() < count {
                step.began = Some(newest);
            }
        }
        PUT.execute(connection, &step.put, |query, entry| query.bind(entry.hash()).bind(entry.row())).await?;
        if step.began.is_some() {
            sqlx::query("UPDATE history SET indexed = ?1").bind(self.began).execute(connection).await?;
        }
        Ok(step)
    }

    /// Applies a step after its commit.
    pub fn stepped(&mut self, step: Step) {
        let mut waiting = self.waiting.lock();
        for entry in &step.put {
            waiting.remove(entry);
        }
        drop(waiting);
        self.at = step.put.last().copied().or(self.at);
        if let Some(began) = step.began {
            (self.at, self.began) = (None, began);
        }
    }

    /// Adds the entries of outcomes after their commit.
    pub fn add(&self, entries: impl Iterator<Item = Entry>) {
        self.waiting.lock().extend(entries);
    }

    /// Deletes from the file the entries of outcomes that this transaction has removed.
    pub async fn drop(connection: &mut SqliteConnection, entries: &[Entry]) -> Result<(), sqlx::Error> {
        DROP.execute(connection, entries, |query, entry| query.bind(entry.hash())).await
    }

    /// Forgets entries after the commit that deleted them.
    pub fn dropped(&self, entries: &[Entry]) {
        let mut waiting = self.waiting.lock();
        for entry in entries {
            waiting.remove(entry);
        }
    }
}

#[cfg(test)]
#[path = "by_pin_tests.rs"]
mod tests;
