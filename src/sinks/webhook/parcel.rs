//! What one request carries: one outcome, or a batch that stays together while it is tried again.
//!
//! Pure data. Outcomes that failed together stay together, so that what is sent again has the same ID; they
//! are parted only to find out which of them the receiver can't take.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Moment;
use crate::store::{Failed, Outcome};

/// A moment on both clocks: the one that is waited by, the other to be written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    pub moment: Moment,
    pub wall: Timestamp,
}

/// Outcomes that are sent together. Never empty.
#[derive(Debug, Clone)]
pub struct Parcel {
    pub outcomes: Arc<[Outcome]>,
    pub tries: u32,
    pub first_try: Option<Now>,
    pub last_try: Option<Now>,
    pub error: Option<String>,
    /// Its outcomes are settled as failed, in the store or soon: the cursor may be past them.
    pub noted: bool,
}

impl Parcel {
    /// Outcomes that were never tried.
    pub fn untried(outcomes: Vec<Outcome>) -> Self {
        let outcomes = outcomes.into();
        Self { outcomes, tries: 0, first_try: None, last_try: None, error: None, noted: false }
    }

    /// Outcomes that failed before, as the store has it, all with the same fate.
    pub fn stored(outcomes: Vec<Outcome>, fate: &Failed, past: impl Fn(Timestamp) -> Moment) -> Self {
        let both = |wall| Now { moment: past(wall), wall };
        Self {
            outcomes: outcomes.into(),
            tries: fate.tries,
            first_try: fate.first_try_at.map(both),
            last_try: fate.last_try_at.map(both),
            error: fate.error.clone(),
            noted: true,
        }
    }

    /// What it is known by: the `seq` of its first outcome.
    pub fn key(&self) -> i64 {
        self.outcomes.first().map_or(0, |outcome| outcome.seq)
    }

    pub fn seqs(&self) -> impl Iterator<Item = i64> + '_ {
        self.outcomes.iter().map(|outcome| outcome.seq)
    }

    /// Counts a try that did not deliver it.
    pub fn count(&mut self, at: Now, error: String) {
        self.tries = self.tries.saturating_add(1);
        self.first_try.get_or_insert(at);
        self.last_try = Some(at);
        self.error = Some(error);
    }

    /// When its time is up: counted from its first try, so that none is given up unseen.
    pub fn expiry(&self, max_age: Duration) -> Option<Moment> {
        self.first_try.map(|first| first.moment.after(max_age))
    }

    /// The same outcomes in parcels of at most `size`.
    pub fn parts(&self, size: usize) -> Vec<Self> {
        let part = |outcomes: &[Outcome]| Self { outcomes: outcomes.into(), ..self.clone() };
        self.outcomes.chunks(size.max(1)).map(part).collect()
    }

    /// What the store is to know of its outcomes.
    pub fn fates(&self, dead: bool) -> impl Iterator<Item = Failed> + '_ {
        self.seqs().map(move |seq| Failed {
            seq,
            dead,
            tries: self.tries,
            first_try_at: self.first_try.map(|at| at.wall),
            last_try_at: self.last_try.map(|at| at.wall),
            error: self.error.clone(),
        })
    }
}

/// Puts together again what was tried together: neighbours of one fate, at most `size`. What was never tried
/// since somebody asked for it makes batches as well.
pub fn regroup(rows: Vec<(Failed, Outcome)>, size: usize, past: impl Fn(Timestamp) -> Moment) -> Vec<Parcel> {
    let same = |a: &Failed, b: &Failed| {
        (a.tries, a.first_try_at, a.last_try_at) == (b.tries, b.first_try_at, b.last_try_at)
    };
    let mut parcels = Vec::new();
    let mut group: Vec<Outcome> = Vec::new();
    let mut fate: Option<Failed> = None;
    for (row, outcome) in rows {
        if let Some(fate) = &fate
            && (group.len() >= size || !same(fate, &row))
        {
            parcels.push(Parcel::stored(std::mem::take(&mut group), fate, &past));
        }
        group.push(outcome);
        fate = Some(row);
    }
    parcels.extend(fate.map(|fate| Parcel::stored(group, &fate, &past)));
    parcels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_tried_together_is_together_again_after_a_restart() {
        let row = |seq: i64, tries, first: Option<i64>| {
            let at = first.map(|second| Timestamp::from_second(second).unwrap());
            let fate = Failed { seq, dead: false, tries, first_try_at: at, last_try_at: at, error: None };
            (fate, Outcome { seq, pin: "P".parse().unwrap(), record: "{}".into() })
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
        let parcels = regroup(rows, 3, |_| Moment::START);
        let seqs: Vec<Vec<i64>> = parcels.iter().map(|parcel| parcel.seqs().collect()).collect();
        assert_eq!(seqs, [vec![1, 2], vec![4], vec![5, 6, 7], vec![8]]);
        assert_eq!(parcels.iter().map(|parcel| parcel.tries).collect::<Vec<_>>(), [1, 1, 0, 0]);
        assert!(regroup(Vec::new(), 3, |_| Moment::START).is_empty());
    }
}
