//! The PINs in flight, in memory: by key for the schedule, by ID for questions.
//!
//! Takes about 150 bytes per PIN, including the queue entry; the store's own index adds some 25 bytes. Data that only
//! the store needs (reference, metadata) is not here. Guarantees that no operation moves a million entries at once,
//! because memory is allocated and freed in small pieces. Must not know when a PIN is polled.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashTable;
use slab::Slab;

use super::core::evidence::{Evidence, Refusals};
use super::queue::{Class, Key};
use crate::clock::Moment;
use crate::outcome::Deliveries;
use crate::pin::{CompactPinId, PinId};

/// What the schedule knows of one PIN.
#[derive(Debug)]
pub struct Entry {
    pub pin: CompactPinId,
    pub submitted: Moment,
    pub deadline: Moment,
    pub stage: Stage,
    /// Polls by this process.
    pub polls: u32,
    /// Distinguishes this PIN from an earlier one with the same key.
    pub generation: u32,
    /// The deliveries in the last readable answer that had any; empty if none had. `None` before the first readable one.
    pub seen: Option<Deliveries>,
    pub last_answer: Option<LastAnswer>,
    /// Whether the PIN was in flight before this process took it in.
    pub is_resumed: bool,
    /// Whether its last poll got no answer.
    pub is_failing: bool,
    /// The evidence against the PIN; few PINs have any.
    pub evidence: Option<Box<Evidence>>,
}

impl Entry {
    /// Returns whether its next poll is likely to fail, whatever the state of the API.
    pub fn is_doubtful(&self) -> bool {
        let is_throttled = |evidence: &Evidence| evidence.throttled.is_some_and(|last| last.is_last);
        self.is_failing || self.refusals().is_some() || self.evidence.as_deref().is_some_and(is_throttled)
    }

    /// Returns whether its last answer was readable.
    pub fn was_readable(&self) -> bool {
        self.last_answer.as_ref().is_some_and(|last| last.trouble.is_none())
    }

    /// Returns the refusals in a row up to its last answer.
    pub fn refusals(&self) -> Option<&Refusals> {
        self.evidence.as_ref()?.refusals.as_ref()
    }

    /// Returns whether its last answer was a 401 or 403.
    pub fn is_forbidden(&self) -> bool {
        self.refusals().is_some_and(Refusals::is_forbidden)
    }

    /// Returns the PIN's age when it was last known not to be final, if its last answer shows that.
    pub fn open_since(&self) -> Option<Duration> {
        match &self.last_answer {
            Some(last) => last.trouble.is_none().then(|| last.at.since(self.submitted)),
            None => (!self.is_resumed).then_some(Duration::ZERO),
        }
    }

    /// Returns how late its next poll is; zero if it is not late, or does not wait for a poll.
    pub fn late(&self, now: Moment) -> Duration {
        match self.stage {
            Stage::Waiting { due, .. } => now.since(due),
            Stage::Polling | Stage::Finishing => Duration::ZERO,
        }
    }
}

/// The state of a PIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The PIN is in the queue.
    Waiting { due: Moment, class: Class },
    /// A poll of it is running.
    Polling,
    /// The PIN has a verdict that the store does not have yet.
    Finishing,
}

/// The last answer, for people.
#[derive(Debug, Clone)]
pub struct LastAnswer {
    pub at: Moment,
    /// What the answer was, if it held no deliveries.
    pub trouble: Option<Arc<str>>,
}

/// The number of PINs in one piece of memory, which is freed when the last of them leaves.
const CHUNK: usize = 1024;

/// The parts of the index. Each grows by itself, so that growth does not delay polls: with a million PINs, one growth
/// moves some 4,000 of them.
const SHARDS: usize = 256;

/// All PINs in flight.
#[derive(Debug)]
pub struct Table {
    len: usize,
    /// Chunk `n / CHUNK` holds key `n`.
    chunks: Vec<Slab<Entry>>,
    /// The chunks with free entries. The lowest is used first, so that those at the end become empty.
    with_space: BTreeSet<u32>,
    /// The chunk that became empty last. It alone may be empty and keep its memory, so that a PIN that comes and goes
    /// repeatedly does not allocate each time.
    spare: Option<usize>,
    by_id: Box<[HashTable<Key>]>,
    /// Seeded at random, so that nobody can choose IDs that collide.
    hasher: RandomState,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            len: 0,
            chunks: Vec::new(),
            with_space: BTreeSet::new(),
            spare: None,
            by_id: (0..SHARDS).map(|_| HashTable::new()).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Table {
    /// Returns the number of PINs.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Reserves memory in the index for this many more PINs.
    pub fn reserve(&mut self, more: usize) {
        let Self { chunks, by_id, hasher, .. } = self;
        for keys in by_id.iter_mut() {
            keys.reserve(more / SHARDS, |&key| hash_of(hasher, chunks, key));
        }
    }

    /// Inserts a PIN; `None` if it is already there or all 2^32 keys are taken.
    pub fn insert(&mut self, entry: Entry) -> Option<Key> {
        let hash = self.hasher.hash_one(&entry.pin);
        if self.find_hashed(hash, &entry.pin).is_some() {
            return None;
        }
        let chunk = match self.with_space.first() {
            Some(&chunk) => chunk,
            None => {
                let chunk = u32::try_from(self.chunks.len())
                    .ok()
                    .filter(|chunk| *chunk <= u32::MAX / CHUNK as u32)?;
                self.chunks.push(Slab::new());
                self.with_space.insert(chunk);
                chunk
            }
        };
        let entries = self.chunks.get_mut(chunk as usize)?;
        if entries.capacity() < CHUNK {
            entries.reserve_exact(CHUNK);
        }
        let key = chunk * CHUNK as u32 + entries.insert(entry) as u32;
        if entries.len() == CHUNK {
            self.with_space.remove(&chunk);
        }
        self.len += 1;
        let Self { chunks, by_id, hasher, .. } = self;
        by_id[shard(hash)].insert_unique(hash, key, |&key| hash_of(hasher, chunks, key));
        Some(key)
    }

    /// Returns the key of a PIN.
    pub fn find(&self, pin: &PinId) -> Option<Key> {
        let pin = CompactPinId::from(pin);
        self.find_hashed(self.hasher.hash_one(&pin), &pin)
    }

    fn find_hashed(&self, hash: u64, pin: &CompactPinId) -> Option<Key> {
        self.by_id[shard(hash)].find(hash, |&key| self.get(key).is_some_and(|e| e.pin == *pin)).copied()
    }

    pub fn get(&self, key: Key) -> Option<&Entry> {
        at(&self.chunks, key)
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut Entry> {
        let (chunk, index) = place(key);
        self.chunks.get_mut(chunk)?.get_mut(index)
    }

    /// Returns all PINs, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.chunks.iter().flatten().map(|(_, entry)| entry)
    }

    /// Returns all PINs for changes, in no particular order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.chunks.iter_mut().flatten().map(|(_, entry)| entry)
    }

    /// Removes a PIN.
    pub fn remove(&mut self, pin: &PinId) -> Option<(Key, Entry)> {
        let pin = CompactPinId::from(pin);
        let hash = self.hasher.hash_one(&pin);
        let Self { chunks, by_id, hasher, .. } = self;
        let keys = &mut by_id[shard(hash)];
        let same = |&key: &Key| at(chunks, key).is_some_and(|entry| entry.pin == pin);
        let (key, _) = keys.find_entry(hash, same).ok()?.remove();
        // Keeps some room, so that a PIN that comes and goes does not move the others each time.
        if keys.len() < keys.capacity() / 8 {
            keys.shrink_to(keys.capacity() / 4, |&key| hash_of(hasher, chunks, key));
        }
        let (chunk, index) = place(key);
        let entries = chunks.get_mut(chunk)?;
        let entry = entries.try_remove(index)?;
        let emptied = entries.is_empty();
        self.with_space.insert(chunk as u32);
        if emptied
            && let Some(other) = self.spare.replace(chunk).filter(|other| *other != chunk)
            && let Some(other) = chunks.get_mut(other).filter(|other| other.is_empty())
        {
            *other = Slab::new();
        }
        self.len -= 1;
        Some((key, entry))
    }
}

/// Returns the chunk of a key, and the index in the chunk.
fn place(key: Key) -> (usize, usize) {
    (key as usize / CHUNK, key as usize % CHUNK)
}

fn at(chunks: &[Slab<Entry>], key: Key) -> Option<&Entry> {
    let (chunk, index) = place(key);
    chunks.get(chunk)?.get(index)
}

/// Returns the hash of a key's PIN. Every key in the index has an entry, so the default is never used.
fn hash_of(hasher: &RandomState, chunks: &[Slab<Entry>], key: Key) -> u64 {
    at(chunks, key).map_or(0, |entry| hasher.hash_one(&entry.pin))
}

/// Returns the part of the index for a hash, by bits that the part's own table does not use.
fn shard(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, generation: u32) -> Entry {
        Entry {
            pin: CompactPinId::from(&id.parse().unwrap()),
            submitted: Moment::START,
            deadline: Moment::START,
            stage: Stage::Polling,
            polls: 0,
            generation,
            seen: None,
            is_resumed: false,
            is_failing: false,
            evidence: None,
            last_answer: None,
        }
    }

    fn pin(n: u32) -> PinId {
        format!("{n:032X}").parse().unwrap()
    }

    /// Returns the number of chunks that hold memory.
    fn held(table: &Table) -> usize {
        table.chunks.iter().filter(|chunk| chunk.capacity() > 0).count()
    }

    #[test]
    fn every_pin_is_found_once_after_any_inserts_and_removals() {
        let mut table = Table::default();
        let mut random = fastrand::Rng::with_seed(3);
        let mut inside = std::collections::HashMap::new();
        table.reserve(100);
        for step in 0..60_000 {
            let n = random.u32(..6_000);
            // Grows at first, and shrinks to almost nothing at the end.
            if random.u32(..60_000) > step {
                let key = table.insert(entry(pin(n).as_str(), n));
                assert_eq!(key.is_some(), !inside.contains_key(&n));
                inside.extend(key.map(|key| (n, key)));
            } else {
                let removed = table.remove(&pin(n)).map(|(key, entry)| (key, entry.generation));
                assert_eq!(removed, inside.remove(&n).map(|key| (key, n)));
            }
            let n = random.u32(..6_000);
            assert_eq!(table.find(&pin(n)), inside.get(&n).copied());
            assert_eq!(table.len(), inside.len());
        }
        assert_eq!(table.iter().count(), inside.len());
        for (n, key) in inside {
            assert_eq!(table.get(key).map(|entry| entry.generation), Some(n));
        }
    }

    #[test]
    fn memory_is_released_in_any_order_of_removals() {
        let orders: [fn(u32) -> u32; 3] = [|n| n, |n| 9_999 - n, |n| (n * 7_919) % 10_000];
        for order in orders {
            let mut table = Table::default();
            for n in 0..10_000 {
                table.insert(entry(pin(n).as_str(), n)).unwrap();
            }
            assert_eq!(held(&table), 10_000_usize.div_ceil(CHUNK));
            for n in 0..10_000 {
                table.remove(&pin(order(n))).unwrap();
            }
            assert!(held(&table) <= 1 && table.by_id.iter().all(|keys| keys.capacity() < 16));
            assert!(table.insert(entry("again", 0)).is_some() && held(&table) <= 2);
        }
    }

    #[test]
    fn ids_that_differ_only_in_case_are_two_pins() {
        let mut table = Table::default();
        let (upper, lower) = ("A".repeat(32), "a".repeat(32));
        let first = table.insert(entry(&upper, 1)).unwrap();
        let second = table.insert(entry(&lower, 2)).unwrap();
        assert_eq!(table.find(&upper.parse().unwrap()), Some(first));
        assert_eq!(table.remove(&lower.parse().unwrap()).map(|(key, _)| key), Some(second));
        assert_eq!(table.find(&lower.parse().unwrap()), None);
    }
}
