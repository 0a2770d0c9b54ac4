//! Turns many rows into columns, each bound as one array, so that a statement is prepared once for any number of rows.
//!
//! Promises that all columns of the same rows have the same order. Knows nothing of tables.

use crate::pin::PinId;
use crate::slot::{Slots, slot_of};

/// One column of these rows.
pub fn column<'a, T, V>(rows: &'a [T], value: impl Fn(&'a T) -> V) -> Vec<V> {
    rows.iter().map(value).collect()
}

/// The columns `slot` and `pin_id`, which are the key of a PIN.
pub fn keys<'a>(pins: impl IntoIterator<Item = &'a PinId>) -> (Vec<i16>, Vec<&'a str>) {
    pins.into_iter().map(|pin| (i16::from(slot_of(pin)), pin.as_str())).unzip()
}

/// As [`keys`], in the order of the key. Every node locks rows in this order, so that no two wait for each other.
pub fn sorted_keys<'a>(pins: impl IntoIterator<Item = &'a PinId>) -> (Vec<i16>, Vec<&'a str>) {
    let mut pins: Vec<&PinId> = pins.into_iter().collect();
    pins.sort_unstable_by_key(|pin| (slot_of(pin), pin.as_str()));
    keys(pins)
}

/// The column `slot`.
pub fn numbers(slots: &Slots) -> Vec<i16> {
    slots.iter().map(i16::from).collect()
}

/// Text for a column: NUL, which PostgreSQL's text can't hold, is replaced.
pub fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
