//! Tracks what the store must record: the cursor, and the outcomes before it that the receiver does not have.
//!
//! Promises that the cursor never passes an outcome that is neither delivered nor recorded as failed, and that a failure is
//! handed over in the same step in which the cursor passes it. Pure: the caller writes the steps to the store.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::{Failed, Outcome, Progress};

#[derive(Debug)]
pub struct Ledger {
    sink: String,
    /// The cursor of the last step.
    cursor: i64,
    /// The last `seq` that was read.
    read_to: i64,
    /// Read, and neither delivered nor recorded as failed.
    unsettled: BTreeSet<i64>,
    /// Failures to hand over once the cursor passes them.
    failed: BTreeMap<i64, Failed>,
    /// Recorded as failed before, and delivered now.
    delivered: Vec<i64>,
}

impl Ledger {
    pub fn new(sink: String, cursor: i64) -> Self {
        let (unsettled, failed) = (BTreeSet::new(), BTreeMap::new());
        Self { sink, cursor, read_to: cursor, unsettled, failed, delivered: Vec::new() }
    }

    pub fn cursor(&self) -> i64 {
        self.cursor
    }

    pub fn read_to(&self) -> i64 {
        self.read_to
    }

    /// The number of outcomes that are read and not settled.
    pub fn unsettled(&self) -> usize {
        self.unsettled.len()
    }

    /// These outcomes were read; there are no others up to `all_to`.
    pub fn read(&mut self, outcomes: &[Outcome], all_to: i64) {
        self.unsettled.extend(outcomes.iter().map(|outcome| outcome.seq));
        let last = outcomes.last().map_or(all_to, |last| last.seq.max(all_to));
        self.read_to = self.read_to.max(last);
    }

    /// The receiver has the outcome.
    pub fn delivered(&mut self, seq: i64) {
        let first_try = self.unsettled.remove(&seq);
        self.failed.remove(&seq);
        if !first_try && seq <= self.cursor {
            self.delivered.push(seq);
        }
    }

    /// The receiver does not have the outcome, for now or for good.
    pub fn failed(&mut self, failed: Failed) {
        self.unsettled.remove(&failed.seq);
        self.failed.insert(failed.seq, failed);
    }

    /// Returns what the store must record, if anything.
    pub fn step(&mut self) -> Option<Progress> {
        let cursor = self.unsettled.first().map_or(self.read_to, |first| first - 1).max(self.cursor);
        let later = self.failed.split_off(&cursor.saturating_add(1));
        let failed: Vec<Failed> = std::mem::replace(&mut self.failed, later).into_values().collect();
        let delivered = std::mem::take(&mut self.delivered);
        let moved = cursor > self.cursor;
        self.cursor = cursor;
        (moved || !failed.is_empty() || !delivered.is_empty()).then(|| Progress {
            sink: self.sink.clone(),
            cursor: moved.then_some(cursor),
            failed,
            delivered,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(read: &[i64]) -> Ledger {
        let mut ledger = Ledger::new("hook".into(), 0);
        let outcome = |seq: &i64| Outcome { seq: *seq, pin: "P".parse().unwrap(), record: "{}".into() };
        ledger.read(&read.iter().map(outcome).collect::<Vec<_>>(), 0);
        ledger
    }

    fn failed(seq: i64) -> Failed {
        Failed { seq, dead: false, tries: 1, first_try_at: None, last_try_at: None, error: None }
    }

    #[test]
    fn the_cursor_waits_for_the_oldest_outcome_that_is_not_settled() {
        let mut ledger = ledger(&[1, 2, 5]);
        assert_eq!(ledger.step().map(|step| step.cursor), None);
        ledger.delivered(2);
        ledger.delivered(5);
        assert!(ledger.step().is_none());
        ledger.delivered(1);
        let step = ledger.step().unwrap();
        assert_eq!((step.cursor, step.delivered.len(), step.failed.len()), (Some(5), 0, 0));
        assert!(ledger.step().is_none());
    }

    #[test]
    fn a_failure_is_reported_in_the_step_that_moves_the_cursor_past_it_and_not_before() {
        let mut ledger = ledger(&[1, 2, 3]);
        ledger.failed(failed(2));
        assert!(ledger.step().is_none(), "1 is still under way");
        ledger.delivered(1);
        let step = ledger.step().unwrap();
        assert_eq!((step.cursor, step.failed), (Some(2), vec![failed(2)]));
        ledger.delivered(2);
        let step = ledger.step().unwrap();
        assert_eq!((step.cursor, step.delivered), (None, vec![2]));
    }

    #[test]
    fn an_outcome_delivered_before_the_cursor_passes_it_is_never_reported_as_failed() {
        let mut ledger = ledger(&[1, 2]);
        ledger.failed(failed(2));
        ledger.delivered(2);
        ledger.delivered(1);
        let step = ledger.step().unwrap();
        assert_eq!((step.cursor, step.delivered.len(), step.failed.len()), (Some(2), 0, 0));
    }
}
