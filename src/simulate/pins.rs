//! When each PIN was first seen; the simulator remembers nothing else.
//!
//! Bounded: 20 to 40 bytes per PIN, and no PIN is remembered beyond the bound. Must not know clocks: the caller
//! passes times as ages of the simulator.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub struct Pins {
    /// Milliseconds from the simulator's start to the first request, by the PIN ID's stable hash. Among a million
    /// PINs, two share a hash once in thirty million runs; one of them is then slightly older than it should be.
    first: Mutex<HashMap<u64, u32>>,
    bound: usize,
}

impl Pins {
    /// Remembers at most `bound` PINs.
    pub fn new(bound: usize) -> Self {
        Self { first: Mutex::default(), bound }
    }

    /// Returns the PIN's age at `now`, and whether this call began to remember it.
    ///
    /// A PIN beyond the bound is as old as the simulator, so its age never decreases either.
    pub fn age(&self, pin: u64, now: Duration) -> (Duration, bool) {
        let millis = u32::try_from(now.as_millis()).unwrap_or(u32::MAX);
        // A panic never leaves a number half written, so a poisoned lock is still usable.
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
    fn a_pin_beyond_the_limit_is_as_old_as_the_simulator_and_is_not_remembered() {
        let pins = Pins::new(1);
        let second = Duration::from_secs(1);
        assert!(pins.age(0, second).1);
        assert_eq!(pins.age(1, 2 * second), (2 * second, false));
        assert_eq!(pins.age(1, 3 * second), (3 * second, false));
        assert_eq!(pins.age(0, 3 * second), (2 * second, false));
    }
}
