//! Remembers when a sink received its latest outcomes.
//!
//! Promises bounded memory and no database row per outcome. Of older outcomes, and of those from before the start, only the
//! delivery is known and not its time. Must not know sinks or the store.

use std::collections::VecDeque;

use jiff::Timestamp;

/// The number of steps to remember. A step is all that was delivered at once.
const REMEMBERED: usize = 1024;

/// The latest steps of one sink, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeliveryHistory(VecDeque<Step>);

/// The outcomes after one `seq`, up to and including another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    after: i64,
    to: i64,
    at: Timestamp,
}

impl DeliveryHistory {
    /// Records that the sink got the outcomes after `after` up to `to`.
    pub fn record(&mut self, after: i64, to: i64, at: Timestamp) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(Step { after, to, at });
    }

    /// When the sink got this outcome, if that is remembered; for a repeated delivery, the last time.
    pub fn since(&self, seq: i64) -> Option<Timestamp> {
        self.0.iter().rev().find(|step| step.after < seq && seq <= step.to).map(|step| step.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_deliveries_have_a_known_time() {
        let second = |second| Timestamp::from_second(second).unwrap();
        let mut history = DeliveryHistory::default();
        history.record(0, 3, second(10));
        history.record(3, 4, second(20));
        // A repeated delivery.
        history.record(1, 2, second(30));
        assert_eq!([1, 2, 3, 4].map(|seq| history.since(seq)), [10, 30, 10, 20].map(|s| Some(second(s))));
        assert_eq!(history.since(5), None);
        (0..2000).for_each(|n| history.record(4 + n, 5 + n, second(40)));
        assert_eq!(
            (history.0.len(), history.since(4), history.since(2004)),
            (REMEMBERED, None, Some(second(40)))
        );
    }
}
