//! A cache of the newest outcomes, so that sinks and tails that keep up need not read them from the file.
//!
//! Promises only durable outcomes, without a gap up to the newest. Knows nothing of SQL.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::{Outcome, PAGE_BYTES};

/// The most bytes of records that are kept: thousands of outcomes, more than a sink that keeps up lags behind.
const MAX_BYTES: usize = 2 * 1024 * 1024;

/// Durable outcomes without a gap up to the newest. Clones share them.
#[derive(Clone)]
pub struct Recent(Arc<Mutex<Kept>>);

struct Kept {
    outcomes: VecDeque<Outcome>,
    bytes: usize,
    /// Every outcome after this `seq` is in `outcomes`.
    after: i64,
}

impl Recent {
    /// An empty cache; `newest` is the `seq` of the newest outcome.
    pub fn new(newest: i64) -> Self {
        Self(Arc::new(Mutex::new(Kept { outcomes: VecDeque::new(), bytes: 0, after: newest })))
    }

    /// Adds outcomes that have just become durable.
    pub fn add(&self, finished: &[Outcome]) {
        let mut kept = self.lock();
        for outcome in finished {
            kept.bytes += outcome.record.len();
            kept.outcomes.push_back(outcome.clone());
        }
        while kept.bytes > MAX_BYTES {
            let Some(oldest) = kept.outcomes.pop_front() else { return };
            kept.bytes -= oldest.record.len();
            kept.after = oldest.seq;
        }
    }

    /// Drops everything, because the store removed some outcomes.
    pub fn forget(&self) {
        let mut kept = self.lock();
        let newest = kept.outcomes.back().map_or(kept.after, |outcome| outcome.seq);
        *kept = Kept { outcomes: VecDeque::new(), bytes: 0, after: newest };
    }

    /// The highest `seq` that was ever durable.
    pub fn newest(&self) -> i64 {
        let kept = self.lock();
        kept.outcomes.back().map_or(kept.after, |outcome| outcome.seq)
    }

    /// At most `limit` outcomes after `seq`, oldest first, of about [`PAGE_BYTES`] at most; `None` if they must be read
    /// from the file.
    pub fn outcomes_after(&self, seq: i64, limit: u32) -> Option<Vec<Outcome>> {
        let kept = self.lock();
        if seq < kept.after {
            return None;
        }
        let first = kept.outcomes.partition_point(|outcome| outcome.seq <= seq);
        let mut bytes = 0;
        let fits = |outcome: &&Outcome| {
            let fits = bytes < PAGE_BYTES;
            bytes += outcome.record.len();
            fits
        };
        Some(kept.outcomes.range(first..).take(limit as usize).take_while(fits).cloned().collect())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Only an allocation can panic while the lock is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(seqs: std::ops::RangeInclusive<i64>, bytes: usize) -> Vec<Outcome> {
        seqs.map(|seq| Outcome { seq, pin: "A".parse().unwrap(), record: "x".repeat(bytes).into() }).collect()
    }

    fn seqs(recent: &Recent, after: i64, limit: u32) -> Option<Vec<i64>> {
        Some(recent.outcomes_after(after, limit)?.iter().map(|outcome| outcome.seq).collect())
    }

    #[test]
    fn outcomes_missing_in_memory_are_read_from_the_file() {
        let recent = Recent::new(7);
        assert_eq!((seqs(&recent, 6, 10), seqs(&recent, 7, 10)), (None, Some(vec![])));
        recent.add(&outcomes(8..=10, 1));
        assert_eq!(seqs(&recent, 6, 10), None);
        assert_eq!(seqs(&recent, 7, 2), Some(vec![8, 9]));
        assert_eq!(seqs(&recent, 9, 10), Some(vec![10]));
        recent.forget();
        assert_eq!((seqs(&recent, 9, 10), seqs(&recent, 10, 10)), (None, Some(vec![])));
    }

    #[test]
    fn the_oldest_outcomes_are_dropped_from_memory_if_there_are_too_many() {
        let recent = Recent::new(0);
        recent.add(&outcomes(1..=5, MAX_BYTES / 4));
        assert_eq!(seqs(&recent, 0, 10), None);
        assert_eq!(seqs(&recent, 1, 10), Some(vec![2]), "one of this size is a page");
        assert_eq!(seqs(&recent, 4, 10), Some(vec![5]));
        recent.add(&outcomes(6..=6, 2 * MAX_BYTES));
        assert_eq!((seqs(&recent, 5, 10), seqs(&recent, 6, 10)), (None, Some(vec![])));
    }
}
