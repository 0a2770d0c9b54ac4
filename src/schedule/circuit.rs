//! The circuit: tells an outage of the API from the bad luck of single polls. Pure: moments are passed in.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Moment;

/// So many of the last polls are remembered.
const REMEMBERED: usize = 20;

/// With fewer polls than this nothing is concluded.
const ENOUGH: usize = 5;

/// What is older says nothing about now: where few PINs are in flight, twenty polls can be hours.
const NO_NEWS: Duration = Duration::from_secs(10 * 60);

/// How the last polls went.
#[derive(Debug, Default)]
pub struct Circuit {
    /// When the last answers came, and whether they were any; the oldest first.
    last: VecDeque<(Moment, bool)>,
}

impl Circuit {
    /// A poll got an answer of any kind, or none. True if most of the last polls got none: it is an outage.
    pub fn record(&mut self, now: Moment, answered: bool) -> bool {
        while self.last.front().is_some_and(|(at, _)| now.since(*at) > NO_NEWS)
            || self.last.len() >= REMEMBERED
        {
            self.last.pop_front();
        }
        self.last.push_back((now, answered));
        let failed = || self.last.iter().filter(|(_, answered)| !answered).count();
        !answered && self.last.len() >= ENOUGH && failed() * 2 > self.last.len()
    }

    /// The API is well again: what was before says nothing about what comes.
    pub fn forget(&mut self) {
        self.last.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Moment = Moment::START;

    #[test]
    fn five_polls_without_an_answer_are_an_outage_and_single_ones_are_not() {
        let mut circuit = Circuit::default();
        assert_eq!(
            [false; 5].map(|answered| circuit.record(T0, answered)),
            [false, false, false, false, true]
        );
        let mut circuit = Circuit::default();
        for _ in 0..100 {
            assert!(!circuit.record(T0, true) && !circuit.record(T0, false), "one in two is no outage");
        }
    }

    #[test]
    fn after_many_good_polls_it_takes_most_of_the_last_twenty() {
        let mut circuit = Circuit::default();
        (0..1000).for_each(|_| assert!(!circuit.record(T0, true)));
        let failures_until_open = (1..).find(|_| circuit.record(T0, false));
        assert_eq!(failures_until_open, Some(11));
        circuit.forget();
        assert!(!circuit.record(T0, false));
    }

    #[test]
    fn failures_of_long_ago_are_no_outage_of_now() {
        let minutes = |count: u32| T0.after(count * Duration::from_secs(60));
        let mut circuit = Circuit::default();
        // One PIN, polled every three minutes by a network that loses some.
        for n in 0..100 {
            assert!(!circuit.record(minutes(3 * n), false), "four polls in ten minutes conclude nothing");
        }
        let mut circuit = Circuit::default();
        (0..4).for_each(|_| assert!(!circuit.record(T0, false)));
        assert!(!circuit.record(minutes(11), false), "the first for eleven minutes");
    }
}
