//! Counts by age how long PINs were at risk of becoming final, and how many did.
//!
//! Ages fall into bins that grow with age, five per doubling, from a quarter second to twelve days. Each answer adds
//! the time since the previous answer to the *exposure* of a few bins. If an answer calls a PIN final, the PIN became
//! final at some moment since the previous answer: its lifetime is *interval-censored*. That event is distributed
//! over the interval in proportion to the present hazard, which is one step of the EM algorithm (B. W. Turnbull, "The
//! empirical distribution function with arbitrarily grouped, censored and truncated data", 1976). PINs in flight add
//! exposure too; otherwise only PINs that end soon would count.
//!
//! Guarantees that an ending counts once, however it is distributed. Pure. Must not know clocks or PINs: ages are
//! seconds since submission.

use std::sync::LazyLock;

/// The number of bins.
pub const BINS: usize = 112;

/// The age at which the first bin ends and the second begins, in seconds.
const FIRST_EDGE: f64 = 0.25;

const BINS_PER_DOUBLING: f64 = 5.0;

/// After this many endings, an older ending counts half.
const HALF_LIFE: f64 = 2_000.0;

/// The greatest count in a saved state: a century of exposure of a billion PINs.
const GREATEST: f64 = 1e19;

/// The ages at which the bins begin, and the age at which the last one ends, in seconds.
static EDGES: LazyLock<[f64; BINS + 1]> = LazyLock::new(|| {
    std::array::from_fn(|n| match n {
        0 => 0.0,
        n => FIRST_EDGE * ((n - 1) as f64 / BINS_PER_DOUBLING).exp2(),
    })
});

/// Returns the ages at which a bin begins and ends.
pub fn bounds(bin: usize) -> (f64, f64) {
    (EDGES[bin], EDGES[bin + 1])
}

/// Returns the bin of an age; ages beyond all bins belong to the last one.
pub fn bin_of(age: f64) -> usize {
    EDGES[1..BINS].partition_point(|&edge| edge <= age)
}

/// Splits the time between two ages by bins; yields bin, beginning and length of each piece. Yields nothing beyond
/// the last bin.
pub fn pieces(from: f64, to: f64) -> impl Iterator<Item = (usize, f64, f64)> + Clone {
    (bin_of(from)..=bin_of(to)).filter_map(move |bin| {
        let (begins, ends) = bounds(bin);
        let (begins, ends) = (begins.max(from), ends.min(to));
        (ends > begins).then_some((bin, begins, ends - begins))
    })
}

/// A hazard: of the PINs that are not final at an age, the share that becomes final per second. Constant within a
/// bin, and never zero.
#[derive(Debug, Clone, PartialEq)]
pub struct Hazard(pub [f64; BINS]);

impl Hazard {
    /// Returns the probability that a PIN that is not final at `from` is final at `to`.
    pub fn likelihood(&self, from: f64, to: f64) -> f64 {
        let risk: f64 = pieces(from, to).map(|(bin, _, length)| self.0[bin] * length).sum();
        -(-risk).exp_m1()
    }

    /// Splits an interval in which a PIN became final; yields bin, beginning, length and probability of each piece.
    /// The probabilities add up to one, unless the interval is empty.
    pub fn split(&self, from: f64, to: f64) -> impl Iterator<Item = (usize, f64, f64, f64)> {
        let ends_at_all = self.likelihood(from, to);
        pieces(from, to).scan(1.0, move |alive, (bin, begins, length)| {
            let ends = *alive * -(-self.0[bin] * length).exp_m1();
            *alive -= ends;
            Some((bin, begins, length, ends / ends_at_all))
        })
    }
}

/// Exposure and events by age.
#[derive(Debug, Clone, PartialEq)]
pub struct Counts {
    /// The PINs that became final in each bin.
    pub events: [f64; BINS],
    /// The seconds that PINs spent in each bin while not final.
    pub exposure: [f64; BINS],
    /// The number of all endings; old ones count in full.
    pub endings: u32,
}

impl Default for Counts {
    fn default() -> Self {
        Self { events: [0.0; BINS], exposure: [0.0; BINS], endings: 0 }
    }
}

impl Counts {
    /// Counts a PIN that was not final at `from` and is not final at `to`. Takes a few additions.
    pub fn add_exposure(&mut self, from: f64, to: f64) {
        pieces(from, to).for_each(|(bin, _, length)| self.exposure[bin] += length);
    }

    /// Counts a PIN that was not final at `from` and is final at `to`.
    pub fn add_ending(&mut self, from: f64, to: f64, hazard: &Hazard) {
        self.forget(2_f64.powf(-1.0 / HALF_LIFE));
        self.endings = self.endings.saturating_add(1);
        let mut not_yet = 1.0;
        for (bin, _, length, likelihood) in hazard.split(from, to) {
            not_yet -= likelihood;
            self.events[bin] += likelihood;
            self.exposure[bin] += (not_yet.max(0.0) + likelihood / 2.0) * length;
        }
    }

    /// Multiplies all counts by `keep`.
    pub fn forget(&mut self, keep: f64) {
        // Sets a tiny count to zero, so that it does not become a denormal number, which is slow.
        let less = |count: &mut f64| *count = if *count > 1e-9 { *count * keep } else { 0.0 };
        self.events.iter_mut().chain(&mut self.exposure).for_each(less);
    }

    /// Appends these counts to a state that is saved; adds [`Counts::SAVED`] bytes.
    pub fn save(&self, state: &mut Vec<u8>) {
        state.extend(self.endings.to_le_bytes());
        for count in self.events.iter().chain(&self.exposure) {
            state.extend((*count as f32).to_le_bytes());
        }
    }

    /// The length of saved counts, in bytes.
    pub const SAVED: usize = 4 * (1 + 2 * BINS);

    /// Reads counts that [`Counts::save`] wrote; `None` if it can't have written this state.
    pub fn load(state: &[u8]) -> Option<Self> {
        let (numbers, []) = state.as_chunks::<4>() else { return None };
        let (endings, counts) = numbers.split_first()?;
        let counts: Vec<f64> = counts.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect();
        let is_possible = |count: &f64| (0.0..=GREATEST).contains(count);
        if counts.len() != 2 * BINS || !counts.iter().all(is_possible) {
            return None;
        }
        let (events, exposure) = counts.split_at(BINS);
        Some(Self {
            events: events.try_into().ok()?,
            exposure: exposure.try_into().ok()?,
            endings: u32::from_le_bytes(*endings),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_pieces_of_an_interval_cover_it_completely(from in 0.0..1e6f64, length in 0.0..1e6f64) {
            let to = (from + length).min(bounds(BINS - 1).1);
            let mut reached = from;
            for (bin, begins, length) in pieces(from, to) {
                prop_assert!((begins - reached).abs() < 1e-6 && bin == bin_of(begins));
                reached = begins + length;
            }
            prop_assert!((reached - to).abs() < 1e-6);
        }

        #[test]
        fn an_ending_counts_once_even_if_it_may_lie_in_several_bins(
            from in 0.0..1e5f64, length in 1e-3..1e5f64, rates in prop::collection::vec(-12.0..2.0f64, BINS),
        ) {
            let hazard = Hazard(std::array::from_fn(|bin| 10_f64.powf(rates[bin])));
            let mut counts = Counts::default();
            counts.add_ending(from, from + length, &hazard);
            prop_assert!((counts.events.iter().sum::<f64>() - 1.0).abs() < 1e-6);
            let exposure: f64 = counts.exposure.iter().sum();
            prop_assert!(exposure >= 0.0 && exposure <= length * (1.0 + 1e-9));
        }

        #[test]
        fn a_saved_state_is_loaded_unchanged(
            events in prop::collection::vec(0.0..1e9f32, BINS), exposure in prop::collection::vec(0.0..1e15f32, BINS),
            endings: u32,
        ) {
            let array = |counts: &[f32]| std::array::from_fn(|bin| f64::from(counts[bin]));
            let counts = Counts { events: array(&events), exposure: array(&exposure), endings };
            let mut state = Vec::new();
            counts.save(&mut state);
            prop_assert_eq!(state.len(), Counts::SAVED);
            prop_assert_eq!(Counts::load(&state), Some(counts));
        }

        #[test]
        fn a_damaged_state_is_refused_or_has_only_valid_numbers(mut state in prop::collection::vec(any::<u8>(), Counts::SAVED), cut: bool) {
            state.truncate(Counts::SAVED - usize::from(cut));
            if let Some(counts) = Counts::load(&state) {
                prop_assert!(!cut && counts.events.iter().chain(&counts.exposure).all(|n| (0.0..=GREATEST).contains(n)));
            }
        }
    }

    #[test]
    fn an_ending_counts_most_where_the_hazard_is_greatest() {
        let mut hazard = Hazard([1e-6; BINS]);
        hazard.0[bin_of(30.0)] = 0.1;
        let mut counts = Counts::default();
        counts.add_ending(10.0, 60.0, &hazard);
        assert!(counts.events[bin_of(30.0)] > 0.999);
        // The PIN was at risk from 10 s to some moment in that bin.
        let exposure: f64 = counts.exposure.iter().sum();
        assert!((15.0..25.0).contains(&exposure), "{exposure}");
    }

    #[test]
    fn ages_beyond_the_last_bin_are_ignored() {
        let mut counts = Counts::default();
        counts.add_exposure(1e9, 2e9);
        counts.add_ending(1e9, 2e9, &Hazard([0.1; BINS]));
        assert_eq!(counts.events, [0.0; BINS]);
        counts.add_exposure(0.0, f64::MAX);
        assert!((counts.exposure.iter().sum::<f64>() - bounds(BINS - 1).1).abs() < 1.0);
    }

    #[test]
    fn an_old_ending_counts_half_after_the_half_life() {
        let mut counts = Counts::default();
        let hazard = Hazard([0.1; BINS]);
        counts.add_ending(1.0, 1.1, &hazard);
        for _ in 0..HALF_LIFE as u32 {
            counts.add_ending(100.0, 110.0, &hazard);
        }
        assert!((counts.events[bin_of(1.05)] - 0.5).abs() < 1e-6);
        assert_eq!(counts.endings, 2_001);
    }
}
