//! Slots: the 256 parts into which PINs are divided, so that several nodes can share them.
//!
//! Promises that a PIN ID has the same slot on every machine, in every version, for ever: the database stores it in a
//! column. Pure; knows nothing of nodes. With SQLite one node holds all slots.

use std::fmt;

use crate::pin::PinId;

/// The number of slots: each value of a `u8` is one.
pub const SLOTS: usize = 256;

/// The slot of a PIN: 32-bit FNV-1a over the bytes of its ID, folded to 8 bits as the authors of FNV advise for a small
/// range. (The low byte alone would depend only on the low bits of the characters.)
pub fn slot_of(pin: &PinId) -> u8 {
    slot_of_text(pin.as_str())
}

/// As [`slot_of`], for a PIN ID read from a store.
pub fn slot_of_text(pin: &str) -> u8 {
    const OFFSET_BASIS: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    let hash = pin.bytes().fold(OFFSET_BASIS, |hash, byte| {
        // FNV-1a multiplies modulo 2^32.
        (hash ^ u32::from(byte)).wrapping_mul(PRIME)
    });
    hash.to_le_bytes().into_iter().fold(0, |folded, byte| folded ^ byte)
}

/// A set of slots.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Slots([u64; SLOTS / 64]);

impl Slots {
    /// All of them.
    pub const ALL: Self = Self([u64::MAX; SLOTS / 64]);

    /// None of them.
    pub const NONE: Self = Self([0; SLOTS / 64]);

    /// The number of slots in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether the set has no slot.
    pub fn is_empty(&self) -> bool {
        *self == Self::NONE
    }

    /// Whether the set has this slot.
    pub fn contains(&self, slot: u8) -> bool {
        self.0[usize::from(slot / 64)] & bit(slot) != 0
    }

    /// Whether the set has the slot of this PIN.
    pub fn holds(&self, pin: &PinId) -> bool {
        // Skips the hash if the set has every slot, as with SQLite.
        *self == Self::ALL || self.contains(slot_of(pin))
    }

    /// Adds a slot.
    pub fn insert(&mut self, slot: u8) {
        self.0[usize::from(slot / 64)] |= bit(slot);
    }

    /// The slots that are in either set.
    pub fn union(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    /// The slots that are in this set and not in the other.
    pub fn without(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & !other.0[word]))
    }

    /// The slots of the set, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(|slot| self.contains(*slot))
    }
}

fn bit(slot: u8) -> u64 {
    1 << (slot % 64)
}

impl FromIterator<u8> for Slots {
    fn from_iter<I: IntoIterator<Item = u8>>(slots: I) -> Self {
        let mut all = Self::NONE;
        slots.into_iter().for_each(|slot| all.insert(slot));
        all
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(id: &str) -> u8 {
        slot_of(&id.parse().unwrap())
    }

    /// A node of another version must find a PIN in the same slot: these values must never change.
    #[test]
    fn the_slot_of_a_pin_is_the_same_for_ever() {
        // FNV-1a of "a" is 0xe40c292c, of "foobar" 0xbf9cf968: test vectors of the FNV authors.
        assert_eq!(slot("a"), 0xe4 ^ 0x0c ^ 0x29 ^ 0x2c);
        assert_eq!(slot("foobar"), 0xbf ^ 0x9c ^ 0xf9 ^ 0x68);
    }

    #[test]
    fn ids_that_differ_little_are_spread_evenly() {
        let mut counts = [0; SLOTS];
        let ids = (0..256_000u32).map(|n| match n % 3 {
            0 => format!("P{n}"),
            1 => format!("{n:032X}"),
            _ => format!("2024-11-{n:09}.x"),
        });
        ids.for_each(|id| counts[usize::from(slot(&id))] += 1);
        assert!(counts.iter().all(|count| (700..1300).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_set_contains_exactly_the_slots_that_were_inserted() {
        let few: Slots = [0, 63, 64, 255].into_iter().collect();
        assert_eq!(few.iter().collect::<Vec<_>>(), [0, 63, 64, 255]);
        assert_eq!((few.len(), Slots::ALL.len(), Slots::NONE.len()), (4, 256, 0));
        assert!(few.contains(64) && !few.contains(65));
        let others = Slots::ALL.without(&few);
        assert_eq!((others.len(), others.contains(64), others.union(&few)), (252, false, Slots::ALL));
        assert!(Slots::NONE.is_empty() && !few.is_empty());
    }
}
