//! Rows by a hash of the PIN ID that they are about, in memory. What has the same hash is told apart by the rows.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::digest;

/// A PIN's hash and the number of a row that is about the PIN, in this order. There is one for each PIN in flight: 12
/// bytes, where two numbers of 64 bits would be 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry([u32; 3]);

/// The bits of either number; so many rows, a million a second, are nine years of them.
const BITS: u32 = 48;
const MAX: i64 = (1 << BITS) - 1;

impl Entry {
    /// As [`Entry::new`] of a number that comes from a file; `None` if no row of ours can have it.
    pub fn of_file(hash: i64, row: i64) -> Option<Self> {
        (1..MAX).contains(&row).then(|| Self::new(hash, row))
    }

    /// Both are from 0 to 2^48 - 1.
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

    /// Whatever has this hash.
    fn all(hash: i64) -> RangeInclusive<Self> {
        Self::new(hash, 0)..=Self::new(hash, MAX)
    }
}

/// The hash of a PIN ID: 48 bits, so that an entry is short. Of SHA-256, so that nobody can choose many IDs of one hash;
/// a pair takes no more than trying.
pub fn hash(pin: &str) -> i64 {
    let digest = digest::digest(&digest::SHA256, pin.as_bytes());
    digest.as_ref().iter().take(6).fold(0, |hash, byte| hash << 8 | i64::from(*byte))
}

/// A set of entries. Clones share it. A tree and not a table: it grows and shrinks without ever moving all of it.
#[derive(Clone, Default)]
pub struct Entries(Arc<Mutex<BTreeSet<Entry>>>);

impl Entries {
    /// The rows about PINs with this hash, the newest first.
    pub fn rows(&self, hash: i64) -> Vec<i64> {
        self.lock().range(Entry::all(hash)).rev().map(|entry| entry.row()).collect()
    }

    pub fn len(&self) -> usize {
        self.lock().len()
    }

    pub fn lock(&self) -> MutexGuard<'_, BTreeSet<Entry>> {
        // Nothing within a lock can panic but an allocation.
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
    fn an_entry_is_both_numbers_in_the_order_of_the_hash() {
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
    }
}
