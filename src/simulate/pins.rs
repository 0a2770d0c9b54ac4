//! When each PIN was first seen: all that the simulator remembers.
//!
//! Bounded: 20 to 40 bytes a PIN, and past the bound nothing more is remembered. Knows no clock: times are
//! handed in, as ages of the simulator.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub struct Pins {
    /// By the PIN ID's stable hash: milliseconds since the simulator's start. Of a million PINs two share a
    /// hash once in thirty million runs, and then one of them is a little older than it should be.
    first: Mutex<HashMap<u64, u32>>,
    bound: usize,
}

impl Pins {
    /// Remembers `bound` PINs at most.
    pub fn new(bound: usize) -> Self {
        Self { first: Mutex::default(), bound }
    }

    /// The PIN's age `now`, and whether it is remembered from now on.
    ///
    /// A PIN past the bound is as old as the simulator: its age doesn't go backwards either.
    pub fn age(&self, pin: u64, now: Duration) -> (Duration, bool) {
        let millis = u32::try_from(now.as_millis()).unwrap_or(u32::MAX);
        // A number is never half written, so what a panic left behind is good.
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = first.get(&pin) {
            return (Duration::from_millis(u64::from(millis.saturating_sub(*first))), false);
        }
        if first.len() >= self.bound {
            return (now, false);
        }
        first.insert(pin, millis);
        (Duration::ZERO, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pins_age_counts_from_when_it_was_first_seen() {
        let pins = Pins::new(1000);
        let second = Duration::from_secs(1);
        assert_eq!(pins.age(7, second), (Duration::ZERO, true));
        assert_eq!(pins.age(7, 5 * second), (4 * second, false));
        assert_eq!(pins.age(8, 5 * second), (Duration::ZERO, true));
    }

    #[test]
    fn past_the_bound_a_pin_is_as_old_as_the_simulator_and_not_remembered() {
        let pins = Pins::new(1);
        let second = Duration::from_secs(1);
        assert!(pins.age(0, second).1);
        assert_eq!(pins.age(1, 2 * second), (2 * second, false));
        assert_eq!(pins.age(1, 3 * second), (3 * second, false));
        assert_eq!(pins.age(0, 3 * second), (2 * second, false));
    }
}
