//! The PINs in flight: which ones a transaction adds and removes.
//!
//! Promises that a PIN is in flight at most once, that a PIN leaves only together with its outcome, and that what is in
//! memory changes only after the commit. Knows nothing of the schedule.

use std::collections::{HashMap, HashSet};

use sqlx::sqlite::SqliteConnection;
use tracing::error;
use uuid::Uuid;

use super::super::rows::{self, timestamp};
use super::super::{Applied, InFlight, NewPin, Outcome, Record, SMALL_RECORD, Submitted};
use super::by_hash::{Entries, Entry, hash};
use super::many::Many;
use crate::outcome::{self, Submission, Verdict};

/// The PINs in flight as of the last commit. Their rows can be found only through this; the file has no index of them.
pub struct Pins {
    pub entries: Entries,
    /// The rows of those that have a reference, by the hash of the reference.
    pub references: Entries,
    /// The number of the next row. It is higher than every existing one, so rows are only appended. Nobody else may
    /// insert rows.
    pub next: i64,
}

/// The PINs that a transaction added and removed.
#[derive(Default)]
pub struct Turnover {
    added: Vec<Entry>,
    /// In the order of their outcomes.
    pub removed: Vec<Entry>,
    /// Of the PINs that were added, by reference.
    added_references: Vec<Entry>,
    /// Of the PINs that were removed, by reference, each with the `seq` of its outcome.
    removed_references: Vec<(Entry, i64)>,
}

impl Turnover {
    /// The entries in the index of outcomes by reference.
    pub fn references(&self) -> impl ExactSizeIterator<Item = Entry> {
        self.removed_references.iter().map(|(entry, seq)| Entry::new(entry.hash(), *seq))
    }
}

/// The PINs of these rows, with what their submitters sent.
static LEAVING: Many = Many::new(
    "SELECT json_group_array(json_array(number, pin_id, submitted_at, reference, metadata, submitter)) FROM pin \
     WHERE number IN (",
    "?",
    ")",
);
static LEAVE: Many = Many::new("DELETE FROM pin WHERE number IN (", "?", ")");
static END: Many = Many::new(
    "INSERT INTO outcome (seq, pin_id, finished_at, record, submitter) SELECT * FROM (VALUES ",
    "(?, ?, ?, ?, ?)",
    ") WHERE column1 IS NOT NULL",
);
static IN_FLIGHT: Many = Many::new("SELECT json_group_array(pin_id) FROM pin WHERE number IN (", "?", ")");
/// Omits records larger than `SMALL_RECORD`; callers read those one by one if they need them.
static FINISHED: Many = Many::new(
    "SELECT json_group_array(json_array(seq, pin_id, CASE WHEN octet_length(record) <= 4096 THEN record END)) \
     FROM outcome WHERE seq IN ( \
         SELECT max(seq) FROM outcome_by_pin CROSS JOIN outcome USING (seq) WHERE pin_hash IN (",
    "?",
    ") GROUP BY pin_id)",
);
static FINISHED_AND_WAITING: Many = Many::new(
    "SELECT json_group_array(json_array(seq, pin_id, CASE WHEN octet_length(record) <= 4096 THEN record END)) \
     FROM outcome WHERE seq IN ( \
         SELECT max(seq) FROM outcome WHERE seq IN (",
    "?",
    ") GROUP BY pin_id)",
);
static ENTER: Many = Many::new(
    "INSERT INTO pin (number, pin_id, pin_hash, submitted_at, clock_ahead, deadline_at, reference, metadata, \
     submitter) SELECT * FROM (VALUES ",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?)",
    ") WHERE column1 IS NOT NULL",
);

/// The row of a PIN that leaves.
type Leaving = (i64, String, i64, Option<String>, Option<String>, Option<String>);

impl Pins {
    /// Removes PINs and inserts their outcomes. Drops a verdict whose PIN is not in flight: the PIN already has its
    /// outcome.
    pub async fn finish(
        &self,
        connection: &mut SqliteConnection,
        verdicts: &[Verdict],
        first_seq: i64,
        applied: &mut Applied,
        turnover: &mut Turnover,
    ) -> Result<(), sqlx::Error> {
        if verdicts.is_empty() {
            return Ok(());
        }
        let hashes: Vec<i64> = verdicts.iter().map(|verdict| hash(verdict.pin.as_str())).collect();
        let leaving: Vec<Leaving> = LEAVING.ask(connection, &self.rows(&hashes)).await?;
        let mut submissions = HashMap::with_capacity(leaving.len());
        for (number, pin, submitted_at, reference, metadata, submitter) in leaving {
            let submitted_at = timestamp(submitted_at);
            let submission =
                Submission { submitted_at, reference, metadata: rows::metadata(metadata), submitter };
            submissions.insert(pin, (number, submission));
        }

        let mut inserts: Vec<(i64, &Verdict, Record, Option<String>)> = Vec::with_capacity(submissions.len());
        let mut seq = first_seq;
        for (verdict, hash) in verdicts.iter().zip(hashes) {
            let Some((number, submission)) = submissions.remove(verdict.pin.as_str()) else {
                error!(pin_id = %verdict.pin, "a PIN that is not in flight got a verdict; it was dropped. This is a bug");
                continue;
            };
            turnover.removed.push(Entry::new(hash, number));
            let reference = submission.reference.as_deref().map(super::by_hash::hash);
            turnover.removed_references.extend(reference.map(|hash| (Entry::new(hash, number), seq)));
            let record: Record = outcome::record(seq, Uuid::now_v7(), verdict, &submission);
            inserts.push((seq, verdict, record.clone(), submission.submitter));
            applied.finished.push(Outcome { seq, pin: verdict.pin.clone(), record });
            seq += 1;
        }
        LEAVE.execute(connection, &turnover.removed, |query, entry| query.bind(entry.row())).await?;
        END.execute(connection, &inserts, |query, (seq, verdict, record, submitter)| {
            let finished_at = verdict.finished_at.steady.millis();
            query
                .bind(*seq)
                .bind(verdict.pin.as_str())
                .bind(finished_at)
                .bind(&**record)
                .bind(submitter.as_deref())
        })
        .await
    }

    /// Inserts PINs while there is room. If a PIN occurs twice, the submits are handled in their order. `waiting` has
    /// the outcomes that are not in the file's index.
    pub async fn submit(
        &self,
        connection: &mut SqliteConnection,
        waiting: &Entries,
        submits: &[NewPin],
        mut room: usize,
        applied: &mut Applied,
        turnover: &mut Turnover,
    ) -> Result<(), sqlx::Error> {
        if submits.is_empty() {
            return Ok(());
        }
        let hashes: Vec<i64> = submits.iter().map(|new| hash(new.pin.as_str())).collect();
        let in_flight: Vec<String> = IN_FLIGHT.ask(connection, &self.rows(&hashes)).await?;
        let in_flight: HashSet<String> = in_flight.into_iter().collect();
        let asked = hashes.iter().zip(submits).filter(|(_, new)| !new.again).map(|(hash, _)| *hash);
        let finished = finished_among(connection, waiting, asked.collect(), &applied.finished).await?;

        let mut taken = HashSet::with_capacity(submits.len());
        let mut rows = Vec::with_capacity(submits.len());
        for (new, hash) in submits.iter().zip(hashes) {
            let id = new.pin.as_str();
            applied.submitted.push(if in_flight.contains(id) || taken.contains(id) {
                Submitted::Duplicate
            } else if let Some((_, record)) = finished.get(id).filter(|_| !new.again) {
                Submitted::Finished(record.clone())
            } else if room == 0 {
                Submitted::AtCapacity
            } else {
                room -= 1;
                taken.insert(id);
                let entry = Entry::new(hash, self.next + turnover.added.len() as i64);
                turnover.added.push(entry);
                let reference = new.reference.as_deref().map(super::by_hash::hash);
                turnover.added_references.extend(reference.map(|hash| Entry::new(hash, entry.row())));
                rows.push((entry, new));
                let NewPin { pin, submitted_at, deadline_at, .. } = new;
                let (submitted_at, deadline_at) = (*submitted_at, *deadline_at);
                applied.accepted.push(InFlight { pin: pin.clone(), submitted_at, deadline_at });
                Submitted::Accepted
            });
        }
        ENTER
            .execute(connection, &rows, |query, (entry, new)| {
                let query = query
                    .bind(entry.row())
                    .bind(new.pin.as_str())
                    .bind(entry.hash())
                    .bind(new.submitted_at.wall.as_millisecond())
                    .bind(new.submitted_at.ahead())
                    .bind(new.deadline_at.as_millisecond());
                query
                    .bind(new.reference.as_deref())
                    .bind(new.metadata.as_ref().map(|metadata| metadata.get()))
                    .bind(new.submitter.as_deref())
            })
            .await
    }

    /// Applies a turnover after its commit.
    pub fn turned_over(&mut self, turnover: Turnover) {
        let Turnover { added, removed, added_references, removed_references } = turnover;
        self.next += added.len() as i64;
        self.entries.remove(&removed);
        self.entries.lock().extend(added);
        let mut references = self.references.lock();
        for (entry, _) in &removed_references {
            references.remove(entry);
        }
        references.extend(added_references);
    }

    /// The rows with any of these hashes.
    fn rows(&self, hashes: &[i64]) -> Vec<i64> {
        hashes.iter().flat_map(|hash| self.entries.rows(*hash)).collect()
    }
}

/// The newest outcome of each PIN with one of these hashes, by PIN ID, including the outcomes of this transaction.
async fn finished_among(
    connection: &mut SqliteConnection,
    waiting: &Entries,
    hashes: Vec<i64>,
    just_now: &[Outcome],
) -> Result<HashMap<String, (i64, Option<Record>)>, sqlx::Error> {
    let seqs: Vec<i64> = hashes.iter().flat_map(|hash| waiting.rows(*hash)).collect();
    let mut found: Vec<(i64, String, Option<Record>)> = FINISHED.ask(connection, &hashes).await?;
    found.extend(FINISHED_AND_WAITING.ask(connection, &seqs).await?);
    let mut finished: HashMap<String, (i64, Option<Record>)> =
        HashMap::with_capacity(found.len() + just_now.len());
    for (seq, pin, record) in found {
        let newest = finished.entry(pin).or_insert_with(|| (seq, record.clone()));
        if newest.0 < seq {
            *newest = (seq, record);
        }
    }
    for Outcome { seq, pin, record } in just_now {
        let small = Some(record).filter(|record| record.len() <= SMALL_RECORD);
        finished.insert(pin.as_str().to_owned(), (*seq, small.cloned()));
    }
    Ok(finished)
}

#[cfg(test)]
#[path = "pins_tests.rs"]
mod tests;
