//! The circuit: tells an outage of the API from the bad luck of single polls. Pure.

/// So many of the last polls are remembered.
const REMEMBERED: u32 = 20;

/// With fewer polls than this nothing is concluded.
const ENOUGH: u32 = 5;

/// How the last polls went.
#[derive(Debug, Default)]
pub struct Circuit {
    /// A bit for each, the newest lowest: set if it got no answer.
    failed: u32,
    known: u32,
}

impl Circuit {
    /// A poll got an answer of any kind, or none. True if most of the last polls got none: it is an outage.
    pub fn record(&mut self, answered: bool) -> bool {
        self.failed = (self.failed << 1 | u32::from(!answered)) & ((1 << REMEMBERED) - 1);
        self.known = (self.known + 1).min(REMEMBERED);
        !answered && self.known >= ENOUGH && self.failed.count_ones() * 2 > self.known
    }

    /// The API is well again: what was before says nothing about what comes.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_polls_without_an_answer_are_an_outage_and_single_ones_are_not() {
        let mut circuit = Circuit::default();
        assert_eq!([false; 5].map(|answered| circuit.record(answered)), [false, false, false, false, true]);
        let mut circuit = Circuit::default();
        for _ in 0..100 {
            assert!(!circuit.record(true) && !circuit.record(false), "one in two is no outage");
        }
    }

    #[test]
    fn after_many_good_polls_it_takes_most_of_the_last_twenty() {
        let mut circuit = Circuit::default();
        (0..1000).for_each(|_| assert!(!circuit.record(true)));
        let failures_until_open = (1..).find(|_| circuit.record(false));
        assert_eq!(failures_until_open, Some(11));
        circuit.forget();
        assert!(!circuit.record(false));
    }
}
