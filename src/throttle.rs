//! Thins out log lines about what happens often.
//!
//! Promises at most one line a minute, which says how many were left out before it. Must not know what the lines say.

use std::time::Duration;

use tokio::time::Instant;

/// The least time between two lines.
const EVERY: Duration = Duration::from_secs(60);

/// The lines about one thing.
#[derive(Debug, Default)]
pub struct Throttle {
    last: Option<Instant>,
    left_out: u64,
}

impl Throttle {
    /// If a line is due, returns how many were left out since the last one; otherwise leaves it out.
    pub fn due(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < EVERY) {
            self.left_out += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_often_is_logged_once_a_minute_with_the_number_of_lines_left_out() {
        let (mut throttle, begun) = (Throttle::default(), Instant::now());
        let lines = (0..1000).map(|n| throttle.due(begun + Duration::from_millis(100 * n)));
        assert_eq!(lines.flatten().collect::<Vec<_>>(), [0, 599]);
    }
}
