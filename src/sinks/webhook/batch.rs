//! The batch that one request carries: one outcome, or several that stay together while they are retried.
//!
//! Pure data. Promises that outcomes that failed together stay together, so that a retry has the same ID; a batch is split only
//! to find out which outcome the receiver can't take. Must not know requests or the store.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Dated, Moment, Steady};
use crate::store::{Failed, Outcome};

/// A batch of this size, in bytes, takes no further outcome: receivers commonly refuse much larger bodies.
const MAX_BYTES: usize = 512 * 1024;

/// A moment: one reading to wait by, and its date to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    pub moment: Moment,
    pub date: Dated,
}

/// Outcomes that are sent together. Never empty.
#[derive(Debug, Clone)]
pub struct Batch {
    pub outcomes: Arc<[Outcome]>,
    pub tries: u32,
    pub first_try: Option<Now>,
    pub last_try: Option<Now>,
    pub error: Option<String>,
    /// The outcomes are recorded as failed in the store, or soon will be: the cursor may have passed them.
    pub noted: bool,
    /// This is one outcome, and the receiver may have seen it alone while it was not known to be down. Not stored: after a
    /// restart the outcome is tried again.
    pub tried_alone: bool,
    /// This is one outcome, and it was refused in this row of misses.
    pub refused_in: Option<u64>,
}

impl Batch {
    /// Creates a batch of outcomes that were never tried.
    pub fn untried(outcomes: Vec<Outcome>) -> Self {
        Self {
            outcomes: outcomes.into(),
            tries: 0,
            first_try: None,
            last_try: None,
            error: None,
            noted: false,
            tried_alone: false,
            refused_in: None,
        }
    }

    /// Creates a batch of outcomes that failed before, as the store has them, all in the same state.
    pub fn stored(outcomes: Vec<Outcome>, row: &Failed, past: impl Fn(Steady) -> Moment) -> Self {
        let at = |date: Dated| Now { moment: past(date.steady), date };
        Self {
            tries: row.tries,
            first_try: row.first_try_at.map(at),
            last_try: row.last_try_at.map(at),
            error: row.error.clone(),
            noted: true,
            ..Self::untried(outcomes)
        }
    }

    /// Identifies the batch: the `seq` of its first outcome.
    pub fn key(&self) -> i64 {
        self.outcomes.first().map_or(0, |outcome| outcome.seq)
    }

    pub fn seqs(&self) -> impl Iterator<Item = i64> + '_ {
        self.outcomes.iter().map(|outcome| outcome.seq)
    }

    /// Counts a try that did not deliver; `counts`: the outcomes may be the cause.
    pub fn count(&mut self, at: Now, error: String, counts: bool) {
        self.tried_alone |= counts && self.outcomes.len() == 1;
        self.tries = self.tries.saturating_add(1);
        self.first_try.get_or_insert(at);
        self.last_try = Some(at);
        self.error = Some(error);
    }

    /// When its time is up, counted from its first try. Then it is tried alone once more.
    pub fn expiry(&self, max_age: Duration) -> Option<Moment> {
        self.first_try.map(|first| first.moment.after(max_age))
    }

    /// From this moment on it may be dead-lettered without another try.
    pub fn ends_at(&self, max_age: Duration) -> Option<Moment> {
        self.expiry(max_age).filter(|_| self.tried_alone)
    }

    /// The same outcomes in batches of at most `size`.
    pub fn parts(&self, size: usize) -> Vec<Self> {
        self.outcomes.chunks(size.max(1)).map(|outcomes| self.part(outcomes)).collect()
    }

    /// Its first `size` outcomes, and the others.
    pub fn split(self, size: usize) -> (Self, Option<Self>) {
        if self.outcomes.len() <= size {
            return (self, None);
        }
        let (first, rest) = self.outcomes.split_at(size);
        (self.part(first), Some(self.part(rest)))
    }

    fn part(&self, outcomes: &[Outcome]) -> Self {
        Self { outcomes: outcomes.into(), ..self.clone() }
    }

    /// What the store must record of its outcomes.
    pub fn rows(&self, dead: bool) -> impl Iterator<Item = Failed> + '_ {
        self.seqs().map(move |seq| Failed {
            seq,
            dead,
            tries: self.tries,
            first_try_at: self.first_try.map(|at| at.date),
            last_try_at: self.last_try.map(|at| at.date),
            error: self.error.clone(),
        })
    }
}

/// How many of these records, from the first on, fit into one batch: at most `limit` and [`MAX_BYTES`], but at least one.
pub fn fitting(sizes: impl Iterator<Item = usize>, limit: usize) -> usize {
    let mut bytes = 0usize;
    let fits = |size: &usize| {
        let fits = bytes == 0 || bytes.saturating_add(*size) <= MAX_BYTES;
        bytes = bytes.saturating_add(*size);
        fits
    };
    sizes.take(limit).take_while(fits).count()
}

/// Rebuilds the batches that were tried together: neighbours in the same state, at most `size`. Outcomes that were not tried
/// since a replay was requested form batches as well.
pub fn regroup(rows: Vec<(Failed, Outcome)>, size: usize, past: impl Fn(Steady) -> Moment) -> Vec<Batch> {
    let state = |(row, _): &(Failed, Outcome)| (row.tries, row.first_try_at, row.last_try_at);
    let mut batches = Vec::new();
    for mut rest in rows.chunk_by(|a, b| state(a) == state(b)) {
        while let Some((row, _)) = rest.first() {
            let count = fitting(rest.iter().map(|(_, outcome)| outcome.record.len()), size).max(1);
            let (together, others) = rest.split_at(count);
            let outcomes = together.iter().map(|(_, outcome)| outcome.clone()).collect();
            batches.push(Batch::stored(outcomes, row, &past));
            rest = others;
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn outcomes_that_were_tried_in_one_batch_are_in_one_batch_after_a_restart() {
        let row = |seq: i64, tries, first: Option<i64>| {
            let at = first.map(|second| Timestamp::from_second(second).unwrap().into());
            let row = Failed { seq, dead: false, tries, first_try_at: at, last_try_at: at, error: None };
            (row, Outcome { seq, pin: "P".parse().unwrap(), record: "{}".into() })
        };
        let rows = vec![
            row(1, 1, Some(5)),
            row(2, 1, Some(5)),
            row(4, 1, Some(6)),
            row(5, 0, None),
            row(6, 0, None),
            row(7, 0, None),
            row(8, 0, None),
        ];
        let batches = regroup(rows, 3, |_| Moment::START);
        let seqs: Vec<Vec<i64>> = batches.iter().map(|batch| batch.seqs().collect()).collect();
        assert_eq!(seqs, [vec![1, 2], vec![4], vec![5, 6, 7], vec![8]]);
        assert_eq!(batches.iter().map(|batch| batch.tries).collect::<Vec<_>>(), [1, 1, 0, 0]);
        assert!(regroup(Vec::new(), 3, |_| Moment::START).is_empty());
    }

    #[test]
    fn a_batch_is_bounded_in_number_and_in_bytes_and_is_never_empty() {
        let fitting = |sizes: &[usize], limit| super::fitting(sizes.iter().copied(), limit);
        assert_eq!(fitting(&[10; 5], 3), 3);
        assert_eq!(fitting(&[10; 2], 3), 2);
        assert_eq!(fitting(&[MAX_BYTES / 2; 5], 5), 2);
        assert_eq!(fitting(&[MAX_BYTES * 2, 10], 5), 1);
        assert_eq!(fitting(&[], 5), 0);
    }
}
