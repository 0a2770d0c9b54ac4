//! When a sink got its latest outcomes.
//!
//! In memory and bounded, so that it costs no row an outcome: of what is older, or was delivered before the start,
//! only that the sink has it is known.

use std::collections::VecDeque;

use jiff::Timestamp;

/// Steps that are remembered; each is as many outcomes as were delivered at once.
const REMEMBERED: usize = 1024;

/// The latest steps of one sink, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passed(VecDeque<Step>);

/// Outcomes after one `seq`, up to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    after: i64,
    to: i64,
    at: Timestamp,
}

impl Passed {
    /// The sink has the outcomes after one `seq` up to another now.
    pub fn step(&mut self, after: i64, to: i64, at: Timestamp) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(Step { after, to, at });
    }

    /// Since when it has this one, if that is remembered. What it got twice it has since the last time.
    pub fn since(&self, seq: i64) -> Option<Timestamp> {
        self.0.iter().rev().find(|step| step.after < seq && seq <= step.to).map(|step| step.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_when_is_known_for_the_latest_and_for_no_others() {
        let second = |second| Timestamp::from_second(second).unwrap();
        let mut passed = Passed::default();
        passed.step(0, 3, second(10));
        passed.step(3, 4, second(20));
        // One that had failed before.
        passed.step(1, 2, second(30));
        assert_eq!([1, 2, 3, 4].map(|seq| passed.since(seq)), [10, 30, 10, 20].map(|s| Some(second(s))));
        assert_eq!(passed.since(5), None);
        (0..2000).for_each(|n| passed.step(4 + n, 5 + n, second(40)));
        assert_eq!(
            (passed.0.len(), passed.since(4), passed.since(2004)),
            (REMEMBERED, None, Some(second(40)))
        );
    }
}
