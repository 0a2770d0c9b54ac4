//! Which outcomes a PIN has: an index by a hash of its ID, whose newest entries are in memory.
//!
//! IDs are random, so an entry put in at once would be a page written for each outcome. Entries wait here until
//! there are many, and are put in in the order of their hashes, a stretch at each commit: a page takes several,
//! and no commit is long. `history.indexed` says from where on outcomes are to be looked at after a start.

use std::ops::Bound;

use sqlx::sqlite::SqliteConnection;

use super::by_hash::{Entries, Entry, hash};
use super::many::Many;

/// Entries that wait, about: half a megabyte or so, and a tenth of a second at the next start.
const WAITING: usize = 32_768;

/// Outcomes that are read at once at the start.
const PAGE: i64 = 4096;

/// The writer's side.
pub struct Index {
    /// The entries that the file may not have yet.
    pub waiting: Entries,
    /// How many wait, about.
    pub target: usize,
    /// The last entry that was put in, on the way through all that wait.
    at: Option<Entry>,
    /// The newest outcome when that way began: at its end, all up to it are in the file.
    began: i64,
}

/// What one transaction does to the index.
#[derive(Default)]
pub struct Step {
    put: Vec<Entry>,
    /// Where the way began anew.
    began: Option<i64>,
}

static PUT: Many = Many::new(
    "INSERT OR IGNORE INTO outcome_by_pin (pin_hash, seq) SELECT * FROM (VALUES ",
    "(?, ?)",
    ") WHERE column1 IS NOT NULL",
);
// Not by (pin_hash, seq) IN (VALUES …), for which SQLite reads the whole table.
static DROP: Many = Many::new(
    "DELETE FROM outcome_by_pin WHERE pin_hash IN (",
    "?",
    ") AND NOT EXISTS (SELECT 1 FROM outcome WHERE outcome.seq = outcome_by_pin.seq)",
);

impl Index {
    /// The index of a file whose newest outcome has this `seq`.
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

    /// Puts as many entries into the file as keep their number, where so many more are added.
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
            // More than came in, so that it gets down after a burst; not all at once, so that nobody waits for it.
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

    /// A step is durable.
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

    /// These outcomes are durable.
    pub fn add(&self, entries: impl Iterator<Item = Entry>) {
        self.waiting.lock().extend(entries);
    }

    /// Takes the entries of outcomes out of the file that were removed before in this transaction.
    pub async fn drop(connection: &mut SqliteConnection, entries: &[Entry]) -> Result<(), sqlx::Error> {
        DROP.execute(connection, entries, |query, entry| query.bind(entry.hash())).await
    }

    /// They are removed, durably.
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
