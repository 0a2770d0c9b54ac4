//! What a simulation did, in numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use pinwatch::outcome::Ending;

#[derive(Debug, Default, Clone, PartialEq)]
pub struct Totals {
    pub seeds: u64,
    pub pins: u64,
    pub polls: u64,
    pub outcomes: [u64; Ending::ALL.len()],
    pub simulated: Duration,
    pub faults: BTreeMap<&'static str, u64>,
    /// PINs that became final while everything worked, and so had to be noticed in time.
    pub found_in_time: u64,
    /// PINs that an outage kept from their last poll for too long.
    pub expired: u64,
    /// Everything that happened, in order, as one number: the same seed gives the same number.
    pub digest: u64,
}

impl Totals {
    pub fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// One more thing happened.
    pub fn tell(&mut self, what: u64, when: Duration) {
        let when = when.as_micros() as u64;
        self.digest =
            (self.digest ^ what ^ when.rotate_left(20)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    }

    pub fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.pins += other.pins;
        self.polls += other.polls;
        self.simulated += other.simulated;
        self.found_in_time += other.found_in_time;
        self.expired += other.expired;
        self.digest ^= other.digest;
        self.outcomes.iter_mut().zip(other.outcomes).for_each(|(sum, more)| *sum += more);
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.simulated.as_secs_f64() / 86_400.0;
        writeln!(
            f,
            "{} seeds, {days:.0} simulated days, {} PINs, {} polls",
            self.seeds, self.pins, self.polls
        )?;
        let outcomes = Ending::ALL.iter().zip(self.outcomes);
        let outcomes: Vec<_> = outcomes.map(|(ending, count)| format!("{ending} {count}")).collect();
        writeln!(
            f,
            "outcomes: {}; {} had to be found in time, an outage ended {}",
            outcomes.join(", "),
            self.found_in_time,
            self.expired
        )?;
        let faults: Vec<_> = self.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        write!(f, "faults: {}", faults.join(", "))
    }
}
