//! The running polls.
//!
//! Guarantees an answer for every poll that was started, even if it panicked. The polls are futures of the schedule's
//! own task, because a task for each would cost two more wake-ups per poll. Must not know when a poll is due or what
//! follows from its answer.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tracing::error;

use super::{Poll, Ticket};
use crate::metrics;
use crate::poll::Meaning;

/// The running polls; `start` makes the future of each from its ticket.
pub(super) struct Polls<S, F> {
    start: S,
    running: FuturesUnordered<F>,
}

impl<S: Fn(Ticket) -> F, F: Future<Output = (Ticket, Meaning)>> Polls<S, F> {
    pub fn new(start: S) -> Self {
        Self { start, running: FuturesUnordered::new() }
    }

    pub fn len(&self) -> usize {
        self.running.len()
    }

    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Adds a poll, which begins to run when an answer is next awaited.
    pub fn start(&mut self, ticket: Ticket) {
        self.running.push((self.start)(ticket));
    }

    /// Returns the next answer; `None` if no poll is running. Cancel-safe.
    pub async fn answer(&mut self) -> Option<(Ticket, Meaning)> {
        self.running.next().await
    }

    /// Returns an answer that is already there.
    pub fn try_answer(&mut self) -> Option<(Ticket, Meaning)> {
        self.running.next().now_or_never().flatten()
    }
}

/// Runs one poll. Catches a panic, so that it affects only this PIN, which is polled again.
pub(super) async fn poll<P: Poll>(poller: &P, ticket: Ticket) -> (Ticket, Meaning) {
    let asked =
        AssertUnwindSafe(metrics::polled(poller.poll(&ticket.pin, ticket.connection))).catch_unwind().await;
    let meaning = asked.unwrap_or_else(|_| {
        error!("a poll broke off; this is a bug. Its PIN is polled again");
        Meaning::Unreadable("the poll broke off".into())
    });
    (ticket, meaning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pin::PinId;
    use crate::poll::Connection;

    /// Answers every PIN except one, for which it panics.
    struct Fragile;

    impl Poll for Fragile {
        async fn poll(&self, pin: &PinId, _: Connection) -> Meaning {
            assert_ne!(pin.as_str(), "BAD", "as a bug would");
            tokio::task::yield_now().await;
            Meaning::NotFound
        }
    }

    #[tokio::test]
    async fn a_poll_that_panics_counts_as_unreadable_and_affects_no_other() {
        let mut polls = Polls::new(|ticket| poll(&Fragile, ticket));
        for pin in ["GOOD", "BAD", "FINE"] {
            polls.start(Ticket::for_test(pin));
        }
        assert_eq!(polls.len(), 3);
        let mut told = Vec::new();
        while let Some((ticket, meaning)) = polls.answer().await {
            told.push((ticket.pin.as_str().to_owned(), meaning));
        }
        told.sort_by(|a, b| a.0.cmp(&b.0));
        let broken = Meaning::Unreadable("the poll broke off".into());
        let expected = [("BAD", broken), ("FINE", Meaning::NotFound), ("GOOD", Meaning::NotFound)]
            .map(|(pin, m)| (pin.to_owned(), m));
        assert_eq!(told, expected);
        assert!(polls.is_empty());
    }
}
