//! An index in memory from the hash of a text, a PIN ID or a reference, to the rows that have this text.
//!
//! Promises 12 bytes of data per entry: one for each PIN in flight, and one more for each that has a reference. Texts can
//! share a hash; the caller compares the texts in the rows. Knows nothing of tables.

use std::collections::BTreeSet;
use std::ops::{Bound, RangeInclusive};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::digest;

/// The hash of a text and the number of a row that has it, ordered by hash first. It has 12 bytes instead of 16 for two
/// 64-bit numbers, because there is one for each PIN in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry([u32; 3]);

/// The bits of each number. At a million rows a second, 48 bits last for nine years.
const BITS: u32 = 48;
const MAX: i64 = (1 << BITS) - 1;

impl Entry {
    /// As [`Entry::new`], for a row number read from a file; `None` if pinwatch can't have written that number.
    pub fn of_file(hash: i64, row: i64) -> Option<Self> {
        (1..MAX).contains(&row).then(|| Self::new(hash, row))
    }

    /// Both numbers must be from 0 to 2^48 - 1.
    pub fn new(hash: i64, row: i64) -> Self {
        let both = (hash as u128) << BITS | row as u128;
        Self([(both >> 64) as u32, (both >> 32) as u32, both as u32])
    }

    fn both(self) -> u128 {
        self.0.iter().fold(0, |both, part| both << 32 | u128::from(*part))
    }

    pub fn hash(self) -> i64 {
        (self.both() >> BITS) as i64
    }

    pub fn row(self) -> i64 {
        self.both() as i64 & MAX
    }

    /// The range of all entries with this hash.
    fn all(hash: i64) -> RangeInclusive<Self> {
        Self::new(hash, 0)..=Self::new(hash, MAX)
    }
}

/// The hash of a PIN ID or a reference: the first 48 bits of its SHA-256. Nobody can construct many texts with one hash;
/// finding a single pair takes only trial and error.
pub fn hash(text: &str) -> i64 {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(6).fold(0, |hash, byte| hash << 8 | i64::from(*byte))
}

/// A set of entries. Clones share it. It is a tree and not a hash table, so that it never has to move all entries when
/// it grows or shrinks.
#[derive(Clone, Default)]
pub struct Entries(Arc<Mutex<BTreeSet<Entry>>>);

impl Entries {
    /// The rows with this hash, newest first.
    pub fn rows(&self, hash: i64) -> Vec<i64> {
        self.lock().range(Entry::all(hash)).rev().map(|entry| entry.row()).collect()
    }

    /// At most `limit` rows with this hash after a row, oldest first.
    pub fn rows_after(&self, hash: i64, row: i64, limit: u32) -> Vec<i64> {
        if row >= MAX {
            return Vec::new();
        }
        let after = Bound::Excluded(Entry::new(hash, row.max(0)));
        let rows = (after, Bound::Included(Entry::new(hash, MAX)));
        self.lock().range(rows).take(limit as usize).map(|entry| entry.row()).collect()
    }

    /// At most `limit` rows with this hash, newest first.
    pub fn newest_rows(&self, hash: i64, limit: u32) -> Vec<i64> {
        self.lock().range(Entry::all(hash)).rev().take(limit as usize).map(|entry| entry.row()).collect()
    }

    pub fn len(&self) -> usize {
        self.lock().len()
    }

    pub fn remove(&self, removed: &[Entry]) {
        let mut entries = self.lock();
        for entry in removed {
            entries.remove(entry);
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, BTreeSet<Entry>> {
        // Only an allocation can panic while the lock is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FromIterator<Entry> for Entries {
    fn from_iter<T: IntoIterator<Item = Entry>>(entries: T) -> Self {
        Self(Arc::new(Mutex::new(entries.into_iter().collect())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_keeps_its_hash_and_row_and_is_ordered_by_hash() {
        assert_eq!(size_of::<Entry>(), 12);
        let numbers = [0, 1, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, MAX - 1, MAX];
        let mut before = None;
        for hash in numbers {
            for row in numbers {
                let entry = Entry::new(hash, row);
                assert_eq!((entry.hash(), entry.row()), (hash, row));
                assert!(before < Some(entry), "{before:?} {entry:?}");
                before = Some(entry);
            }
        }
        assert_eq!(hash("A"), 0x559a_ead0_8264);
    }

    #[test]
    fn all_rows_of_a_hash_are_found_and_no_other() {
        let all = [(0, 9), (3, 1), (5, 2), (5, MAX), (5, 0), (6, 0), (MAX, MAX)];
        let entries: Entries = all.iter().map(|(hash, row)| Entry::new(*hash, *row)).collect();
        assert_eq!(entries.len(), all.len());
        assert_eq!(entries.rows(5), [MAX, 2, 0]);
        assert_eq!(entries.rows(MAX), [MAX]);
        assert!(entries.rows(4).is_empty());
        assert_eq!(entries.newest_rows(5, 2), [MAX, 2]);
        assert_eq!(entries.rows_after(5, 0, 9), [2, MAX]);
        assert_eq!(entries.rows_after(5, 1, 1), [2]);
        for beyond in [MAX, i64::MAX] {
            assert!(entries.rows_after(5, beyond, 9).is_empty());
        }
        assert_eq!(entries.rows_after(3, i64::MIN, 9), [1]);
    }
}
