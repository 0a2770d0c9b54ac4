//! The PINs in flight, in memory: by slot for the schedule, by ID for questions.
//!
//! About 200 bytes a PIN: what only the store needs (reference, metadata) is not here.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashTable;
use slab::Slab;

use super::queue::Class;
use crate::clock::Moment;
use crate::outcome::Deliveries;
use crate::pin::PinId;

/// What the schedule knows of one PIN.
#[derive(Debug)]
pub struct Entry {
    pub pin: PinId,
    pub submitted: Moment,
    pub deadline: Moment,
    pub stage: Stage,
    /// Polls by this process.
    pub polls: u32,
    /// Tells this PIN from an earlier one in the same slot.
    pub generation: u32,
    /// The deliveries that an answer last told, if one ever did.
    pub seen: Option<Deliveries>,
    pub last_answer: Option<LastAnswer>,
}

impl Entry {
    /// How long ago its next poll was due; zero if it was not, or does not wait for one.
    pub fn late(&self, now: Moment) -> Duration {
        match self.stage {
            Stage::Waiting { due, .. } => now.since(due),
            Stage::Polling | Stage::Finishing => Duration::ZERO,
        }
    }
}

/// Where a PIN stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It is in the queue.
    Waiting { due: Moment, class: Class },
    /// A poll of it is running.
    Polling,
    /// It has a verdict, which the store does not have yet.
    Finishing,
}

/// The last answer, for people.
#[derive(Debug, Clone)]
pub struct LastAnswer {
    pub at: Moment,
    /// What it was, if it told no deliveries.
    pub trouble: Option<Arc<str>>,
}

/// All PINs in flight.
#[derive(Debug, Default)]
pub struct Table {
    entries: Slab<Entry>,
    slots: HashTable<u32>,
    /// Keyed at random, so that nobody can choose IDs that collide.
    hasher: RandomState,
}

impl Table {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Makes room for so many more.
    pub fn reserve(&mut self, more: usize) {
        self.entries.reserve(more);
        self.slots.reserve(more, |&slot| self.hasher.hash_one(&self.entries[slot as usize].pin));
    }

    /// Puts a PIN in; `None` if it is in already, or if all 2^32 slots are taken.
    pub fn insert(&mut self, entry: Entry) -> Option<u32> {
        if self.find(&entry.pin).is_some() {
            return None;
        }
        let hash = self.hasher.hash_one(&entry.pin);
        let slot = u32::try_from(self.entries.vacant_key()).ok()?;
        self.entries.insert(entry);
        let Self { entries, slots, hasher } = self;
        slots.insert_unique(hash, slot, |&slot| hasher.hash_one(&entries[slot as usize].pin));
        Some(slot)
    }

    /// The slot of a PIN.
    pub fn find(&self, pin: &PinId) -> Option<u32> {
        let hash = self.hasher.hash_one(pin);
        self.slots.find(hash, |&slot| self.entries[slot as usize].pin == *pin).copied()
    }

    pub fn get(&self, slot: u32) -> Option<&Entry> {
        self.entries.get(slot as usize)
    }

    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Entry> {
        self.entries.get_mut(slot as usize)
    }

    /// All of them, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().map(|(_, entry)| entry)
    }

    /// Takes a PIN out.
    pub fn remove(&mut self, pin: &PinId) -> Option<(u32, Entry)> {
        let hash = self.hasher.hash_one(pin);
        let found = self.slots.find_entry(hash, |&slot| self.entries[slot as usize].pin == *pin).ok()?;
        let (slot, _) = found.remove();
        Some((slot, self.entries.try_remove(slot as usize)?))
    }
}
