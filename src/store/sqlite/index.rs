//! The index of outcomes by PIN, and by reference where a PIN has one, keyed by the hash. Its newest entries are in memory.
//!
//! Promises that every durable outcome is in memory or in the file's index. Hashes are random, so writing each entry at once
//! would write a page per outcome. Entries wait in memory until there are many. Then each commit writes a few of them, in the
//! order of their hashes: a page takes several, and no commit is long. A pass goes through the entries by PIN and then through
//! those by reference. `history.indexed` is the `seq` after which a start has to read outcomes again, for both. References of
//! outcomes that an older version wrote are put in later, from the newest to the oldest: up to the `seq` in
//! `history.unreferenced_to` they may be missing. This does not happen at the start, which would have to read every kept outcome
//! first.

use std::ops::Bound;

use sqlx::sqlite::SqliteConnection;

use super::by_hash::{Entries, Entry, hash};
use super::many::{Many, json};

/// About how many entries wait in memory. They take half a megabyte, and a tenth of a second to read again at the next start.
const WAITING: usize = 32_768;

/// Outcomes that the start reads at once.
const PAGE: i64 = 4096;

/// Outcomes of an older version that one transaction indexes by reference. Few, because it reads their whole records.
const OLDER_AT_ONCE: u32 = 200;

/// The reference in a record, as SQL; NULL if there is none.
macro_rules! reference {
    () => {
        "CASE WHEN json_valid(record) THEN record ->> '$.reference' END"
    };
}
pub(super) use reference;

/// Entries that may not be in the file yet. Clones share them.
#[derive(Clone, Default)]
pub struct Waiting {
    pub pins: Entries,
    pub references: Entries,
}

/// The writer's half of the index.
pub struct Index {
    pub waiting: Waiting,
    /// About how many entries should wait.
    pub target: usize,
    /// Where the current pass over the waiting entries continues: by PIN, and by reference.
    at: [Bound<Entry>; 2],
    /// The newest outcome when the current pass began. When the pass ends, all outcomes up to it are in the file.
    began: i64,
}

/// The changes that one transaction makes to the index.
#[derive(Default)]
pub struct Step {
    pins: Vec<Entry>,
    references: Vec<Entry>,
    /// The newest outcome, if a new pass begins.
    began: Option<i64>,
}

/// The entries of some outcomes.
#[derive(Default)]
pub struct EntriesOf {
    pub pins: Vec<Entry>,
    pub references: Vec<Entry>,
}

static PUT_PINS: Many = Many::new(
    "INSERT OR IGNORE INTO outcome_by_pin (pin_hash, seq) SELECT * FROM (VALUES ",
    "(?, ?)",
    ") WHERE column1 IS NOT NULL",
);
static PUT_REFERENCES: Many = Many::new(
    "INSERT OR IGNORE INTO outcome_by_reference (reference_hash, seq) SELECT * FROM (VALUES ",
    "(?, ?)",
    ") WHERE column1 IS NOT NULL",
);

// By hash and `seq`, since many outcomes can have the same reference. With `IN (VALUES …)` SQLite would read the whole
// table.
pub(super) const DROP_PINS: &str = "DELETE FROM outcome_by_pin \
     WHERE (pin_hash, seq) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1))";
pub(super) const DROP_REFERENCES: &str = "DELETE FROM outcome_by_reference \
     WHERE (reference_hash, seq) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1))";

/// Writes entries into one of the tables.
async fn put(connection: &mut SqliteConnection, sql: &Many, entries: &[Entry]) -> Result<(), sqlx::Error> {
    sql.execute(connection, entries, |query, entry| query.bind(entry.hash()).bind(entry.row())).await
}

/// Outcomes with their PINs and references, read as one row.
async fn read(
    connection: &mut SqliteConnection,
    sql: &'static str,
    from: i64,
    limit: i64,
) -> Result<Vec<(i64, String, Option<String>)>, sqlx::Error> {
    let page: String = sqlx::query_scalar(sql).bind(from).bind(limit).fetch_one(connection).await?;
    serde_json::from_str(&page).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

impl Index {
    /// Loads the index of a file whose newest outcome has the seq `newest`.
    pub async fn load(connection: &mut SqliteConnection, newest: i64) -> Result<Self, sqlx::Error> {
        let mut from: i64 =
            sqlx::query_scalar("SELECT indexed FROM history").fetch_one(&mut *connection).await?;
        let waiting = Waiting::default();
        loop {
            let sql = concat!(
                "SELECT json_group_array(json_array(seq, pin_id, ",
                reference!(),
                ")) FROM \
                 (SELECT seq, pin_id, record FROM outcome WHERE seq > ?1 ORDER BY seq LIMIT ?2)"
            );
            let page = read(connection, sql, from, PAGE).await?;
            let Some((last, ..)) = page.last() else { break };
            from = *last;
            let (mut pins, mut references) = (waiting.pins.lock(), waiting.references.lock());
            for (seq, pin, reference) in &page {
                let damaged = || sqlx::Error::Decode(format!("an outcome has the seq {seq}").into());
                pins.insert(Entry::of_file(hash(pin), *seq).ok_or_else(damaged)?);
                references.extend(reference.as_ref().map(|reference| Entry::new(hash(reference), *seq)));
            }
        }
        let at = [Bound::Unbounded; 2];
        Ok(Self { waiting, target: WAITING, at, began: newest })
    }

    /// Writes entries to the file, so that the number of waiting ones, including `added` new ones, approaches the target.
    pub async fn step(
        &self,
        connection: &mut SqliteConnection,
        added: usize,
        newest: i64,
    ) -> Result<Step, sqlx::Error> {
        let mut step = Step::default();
        {
            let (pins, references) = (self.waiting.pins.lock(), self.waiting.references.lock());
            let excess = (pins.len() + references.len() + added).saturating_sub(self.target);
            // Writes more than are added, so that the number shrinks after a burst, but not all at once, so that nobody waits
            // long.
            let count = excess.min(2 * added);
            if count == 0 {
                return Ok(step);
            }
            let [by_pin, by_reference] = self.at.map(|at| (at, Bound::Unbounded));
            step.pins.extend(pins.range(by_pin).take(count));
            step.references.extend(references.range(by_reference).take(count - step.pins.len()));
            if step.pins.len() + step.references.len() < count {
                step.began = Some(newest);
            }
        }
        put(connection, &PUT_PINS, &step.pins).await?;
        put(connection, &PUT_REFERENCES, &step.references).await?;
        if step.began.is_some() {
            sqlx::query("UPDATE history SET indexed = ?1").bind(self.began).execute(connection).await?;
        }
        Ok(step)
    }

    /// Applies a step after its commit.
    pub fn stepped(&mut self, Step { pins, references, began }: Step) {
        let waiting = [&self.waiting.pins, &self.waiting.references];
        for ((put, waiting), at) in [pins, references].iter().zip(waiting).zip(&mut self.at) {
            waiting.remove(put);
            if let Some(last) = put.last() {
                *at = Bound::Excluded(*last);
            }
        }
        if let Some(began) = began {
            (self.at, self.began) = ([Bound::Unbounded; 2], began);
        }
    }

    /// Indexes by reference some of the outcomes that an older version wrote, in one transaction; returns whether there are more.
    pub async fn put_older(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
        let sql = "SELECT unreferenced_to FROM history";
        let to: i64 = sqlx::query_scalar(sql).fetch_one(&mut *connection).await?;
        if to == 0 {
            return Ok(false);
        }
        let sql = concat!(
            "SELECT json_group_array(json_array(seq, pin_id, ",
            reference!(),
            ")) FROM \
             (SELECT seq, pin_id, record FROM outcome WHERE seq <= ?1 ORDER BY seq DESC LIMIT ?2)"
        );
        let page = read(connection, sql, to, i64::from(OLDER_AT_ONCE)).await?;
        let entry = |(seq, _, reference): &(i64, String, Option<String>)| {
            Some(Entry::new(hash(reference.as_ref()?), *seq))
        };
        let mut entries: Vec<Entry> = page.iter().filter_map(entry).collect();
        entries.sort_unstable();
        let left = page.iter().map(|(seq, ..)| seq - 1).min().unwrap_or(0).max(0);
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
        let written = async {
            put(&mut *connection, &PUT_REFERENCES, &entries).await?;
            let sql = "UPDATE history SET unreferenced_to = ?1";
            sqlx::query(sql).bind(left).execute(&mut *connection).await?;
            sqlx::query("COMMIT").execute(&mut *connection).await
        };
        if let Err(error) = written.await {
            // SQLite may already have rolled back; sqlx's own transactions require a rollback that succeeds.
            let _ = sqlx::query("ROLLBACK").execute(&mut *connection).await;
            return Err(error);
        }
        Ok(left > 0)
    }

    /// Adds the entries of outcomes after their commit.
    pub fn add(&self, pins: impl Iterator<Item = Entry>, references: impl Iterator<Item = Entry>) {
        self.waiting.pins.lock().extend(pins);
        self.waiting.references.lock().extend(references);
    }

    /// Deletes from the file the entries of outcomes that this transaction has removed.
    pub async fn drop(connection: &mut SqliteConnection, removed: &EntriesOf) -> Result<(), sqlx::Error> {
        for (sql, entries) in [(DROP_PINS, &removed.pins), (DROP_REFERENCES, &removed.references)] {
            if !entries.is_empty() {
                let entries: Vec<_> = entries.iter().map(|entry| (entry.hash(), entry.row())).collect();
                sqlx::query(sql).bind(json(&entries)).execute(&mut *connection).await?;
            }
        }
        Ok(())
    }

    /// Forgets entries after the commit that deleted them.
    pub fn dropped(&self, removed: &EntriesOf) {
        self.waiting.pins.remove(&removed.pins);
        self.waiting.references.remove(&removed.references);
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
