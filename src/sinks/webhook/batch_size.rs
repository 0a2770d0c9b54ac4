//! Decides how many outcomes one request carries: at most what the operator allows, fewer while the receiver can't take that
//! many.
//!
//! A receiver may answer 500 or 413 above some size, take too long for many outcomes, or close the connection. Promises that
//! batches are halved until one is accepted, and that they grow again afterwards. Pure: the caller passes the time. Must not know
//! what a batch contains.

use std::time::Duration;

use crate::clock::Moment;

/// How long a size that was too large is not tried again. Each attempt costs the receiver a request that it can't take.
const PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct BatchSize {
    most: usize,
    now: usize,
    /// The largest size that the receiver accepted and has not failed at since.
    accepted: usize,
    /// No larger size is tried before this moment.
    grows_at: Moment,
}

impl BatchSize {
    pub fn new(most: usize) -> Self {
        Self { most, now: most, accepted: 0, grows_at: Moment::START }
    }

    /// The number of outcomes that the next request carries.
    pub fn get(&self) -> usize {
        self.now
    }

    /// The receiver accepted a batch of this size.
    pub fn accepted(&mut self, size: usize, now: Moment) {
        self.accepted = self.accepted.max(size);
        if size >= self.now && now >= self.grows_at {
            self.now = self.now.saturating_mul(2);
        }
        self.now = self.now.max(size).min(self.most);
    }

    /// A batch of this size failed or was refused, perhaps because of its size. `all_fail`: every request fails now.
    pub fn failed(&mut self, size: usize, all_fail: bool, now: Moment) {
        if size > 1 && (all_fail || size > self.accepted) {
            self.now = self.now.min(size.div_ceil(2));
            self.grows_at = now.after(PAUSE);
        } else if size == 1 && all_fail {
            // The size was not the cause.
            self.grows_at = now;
        }
        self.accepted = self.accepted.min(size.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Moment = Moment::START;

    #[test]
    fn batches_are_halved_until_one_is_accepted_and_a_larger_one_is_tried_a_minute_later() {
        let mut size = BatchSize::new(1000);
        let mut tried = vec![];
        let mut send = |size: &mut BatchSize, limit, now| {
            tried.push(size.get());
            match size.get() <= limit {
                true => size.accepted(size.get(), now),
                false => size.failed(size.get(), true, now),
            }
        };
        (0..5).for_each(|_| send(&mut size, 130, T0));
        (0..3).for_each(|_| send(&mut size, 130, T0.after(PAUSE)));
        (0..5).for_each(|_| send(&mut size, 1000, T0.after(2 * PAUSE)));
        assert_eq!(tried, [1000, 500, 250, 125, 125, 125, 250, 125, 125, 250, 500, 1000, 1000]);
    }

    #[test]
    fn one_bad_outcome_among_accepted_batches_does_not_make_batches_smaller() {
        let mut size = BatchSize::new(100);
        size.accepted(100, T0);
        size.failed(100, false, T0);
        size.failed(50, false, T0);
        assert_eq!(size.get(), 100);
        size.accepted(100, T0);
        size.failed(100, false, T0);
        assert_eq!(size.get(), 100);
        size.failed(100, false, T0);
        assert_eq!(size.get(), 50, "none was accepted between these two");
    }

    #[test]
    fn after_an_outage_batches_grow_at_once() {
        let mut size = BatchSize::new(8);
        for tried in [8, 4, 2, 1] {
            size.failed(tried, true, T0);
        }
        assert_eq!(size.get(), 1);
        let grown = [1, 2, 4, 8].map(|tried| {
            size.accepted(tried, T0);
            size.get()
        });
        assert_eq!(grown, [2, 4, 8, 8]);
    }

    #[test]
    fn small_batches_that_are_accepted_do_not_make_batches_larger() {
        let mut size = BatchSize::new(1000);
        size.failed(1000, true, T0);
        size.accepted(3, T0.after(2 * PAUSE));
        assert_eq!(size.get(), 500);
    }
}
