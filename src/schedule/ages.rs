//! Counts the PINs in flight by their age.
//!
//! PINs are counted by the moment of their submission, in a ring with one number for each [`STEP`] of the last day; older ones
//! share one number. Adding and removing a PIN takes constant time, and an ageing PIN costs nothing. A query reads the whole ring
//! (69 kB), however many PINs there are. Must not know what a PIN is.

use std::time::Duration;

use crate::clock::Moment;

/// Ranges of a PIN's age, each with the age at which it ends: polls and PINs in flight are counted by them. The names are labels
/// of a metric, so they stay as they are.
pub const AGE_BANDS: [(&str, Duration); 6] = [
    ("0-1m", Duration::from_mins(1)),
    ("1m-15m", Duration::from_mins(15)),
    ("15m-1h", Duration::from_hours(1)),
    ("1h-6h", Duration::from_hours(6)),
    ("6h-24h", Duration::from_hours(24)),
    ("24h+", Duration::MAX),
];

/// The resolution of an age.
const STEP: Duration = Duration::from_secs(5);

/// The number of steps in a day, at which the last band but one ends.
const STEPS: usize = 24 * 60 * 60 / STEP.as_secs() as usize;

/// The PINs in flight by age.
#[derive(Debug)]
pub struct Ages {
    /// The PINs that were submitted in each of the last steps; step n is at n modulo [`STEPS`].
    ring: Box<[u32]>,
    /// The step of now.
    newest: u64,
    /// The PINs that were submitted before those steps.
    older: u64,
}

impl Default for Ages {
    fn default() -> Self {
        Self { ring: vec![0; STEPS].into(), newest: STEPS as u64, older: 0 }
    }
}

impl Ages {
    /// Counts a PIN that was submitted at this moment.
    pub fn add(&mut self, submitted: Moment, now: Moment) {
        // Nothing is submitted in the future; if it were, it would have to be counted out of the same step.
        self.advance(now.max(submitted));
        match self.place(submitted) {
            Some(place) => self.ring[place] += 1,
            None => self.older += 1,
        }
    }

    /// Stops counting a PIN that was added.
    pub fn remove(&mut self, submitted: Moment, now: Moment) {
        self.advance(now);
        match self.place(submitted) {
            Some(place) => self.ring[place] -= 1,
            None => self.older -= 1,
        }
    }

    /// Returns the PINs in flight in the order of [`AGE_BANDS`]; the ends of the bands are exact to [`STEP`].
    pub fn by_band(&mut self, now: Moment) -> [u64; AGE_BANDS.len()] {
        self.advance(now);
        let newest = (self.newest % STEPS as u64) as usize;
        // The youngest first.
        let mut counts = self.ring[..=newest].iter().rev().chain(self.ring[newest + 1..].iter().rev());
        let mut from = 0;
        let mut bands = AGE_BANDS.map(|(_, end)| {
            let end = (end.as_secs() / STEP.as_secs()).min(STEPS as u64);
            let steps = (end - from) as usize;
            from = end;
            counts.by_ref().take(steps).map(|count| u64::from(*count)).sum()
        });
        bands[AGE_BANDS.len() - 1] += self.older;
        bands
    }

    /// Moves the ring on to this moment.
    fn advance(&mut self, now: Moment) {
        let newest = step(now);
        for step in (self.newest + 1..=newest).take(STEPS) {
            let place = &mut self.ring[(step % STEPS as u64) as usize];
            self.older += u64::from(std::mem::take(place));
        }
        self.newest = self.newest.max(newest);
    }

    /// Returns where in the ring a PIN is counted; `None` if it is older.
    fn place(&self, submitted: Moment) -> Option<usize> {
        let step = step(submitted);
        (step + STEPS as u64 > self.newest).then_some((step % STEPS as u64) as usize)
    }
}

/// Numbers the steps. A moment more than a day before the daemon's start has the number 0, which the ring never has.
fn step(moment: Moment) -> u64 {
    let first = Moment::START.before(STEP * STEPS as u32);
    moment.since(first).as_secs() / STEP.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_pin_passes_through_all_bands_as_it_grows_older() {
        let mut ages = Ages::default();
        ages.add(Moment::START, Moment::START);
        for (age, band) in [
            (0, 0),
            (54, 0),
            (60, 1),
            (894, 1),
            (900, 2),
            (3_594, 2),
            (3_600, 3),
            (21_594, 3),
            (21_600, 4),
            (86_394, 4),
            (86_400, 5),
            (900_000_000, 5),
        ] {
            let mut expected = [0; 6];
            expected[band] = 1;
            assert_eq!(ages.by_band(Moment::START.after(seconds(age))), expected, "{age} s");
        }
        ages.remove(Moment::START, Moment::START.after(seconds(900_000_001)));
        assert_eq!(ages.by_band(Moment::START.after(seconds(900_000_001))), [0; 6]);
    }

    #[test]
    fn whatever_comes_and_goes_each_pin_is_counted_once_in_the_band_of_its_age() {
        let mut ages = Ages::default();
        let mut random = fastrand::Rng::with_seed(5);
        let (mut now, mut inside) = (Moment::START, Vec::new());
        for _ in 0..3_000 {
            match random.u8(..10) {
                0..6 => {
                    // Some are older than the daemon.
                    let longest = [50, 800, 3_000, 80_000, 300_000][random.usize(..5)];
                    let submitted = now.before(seconds(random.u64(..longest)));
                    ages.add(submitted, now);
                    inside.push(submitted);
                }
                6..8 if !inside.is_empty() => {
                    ages.remove(inside.swap_remove(random.usize(..inside.len())), now);
                }
                8 => now = now.after(Duration::from_millis(random.u64(..60_000))),
                _ => now = now.after(seconds(random.u64(..4_000))),
            }
            let counted = ages.by_band(now);
            assert_eq!(counted.iter().sum::<u64>(), inside.len() as u64);
            // A PIN is at most a step away from its band.
            let mut most = 0;
            for (band, (_, end)) in AGE_BANDS.iter().enumerate().take(5) {
                most += counted[band];
                let younger =
                    |than: Duration| inside.iter().filter(|pin| now.since(**pin) < than).count() as u64;
                assert!((younger(*end - STEP)..=younger(*end + STEP)).contains(&most), "{band}");
            }
        }
    }
}
