//! The polls that are under way.
//!
//! Promises an answer for every poll that was started, also for one that broke off. They are futures of the
//! schedule's own task: a task for each costs two more wake-ups a poll. Knows neither when a poll is due nor what
//! follows from it.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tracing::error;

use super::{Poll, Ticket};
use crate::metrics;
use crate::poll::Meaning;

/// Polls, each made of its ticket by `start`.
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

    /// Gets under way when an answer is waited for next.
    pub fn start(&mut self, ticket: Ticket) {
        self.running.push((self.start)(ticket));
    }

    /// The next answer; `None` if no poll is under way. Nothing is lost if it is not waited for to the end.
    pub async fn answer(&mut self) -> Option<(Ticket, Meaning)> {
        self.running.next().await
    }

    /// An answer that is there already.
    pub fn try_answer(&mut self) -> Option<(Ticket, Meaning)> {
        self.running.next().now_or_never().flatten()
    }
}

/// One poll. A panic in it is its own: the PIN is polled again.
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

    /// Answers to all but one, whose polls panic.
    struct Fragile;

    impl Poll for Fragile {
        async fn poll(&self, pin: &PinId, _: Connection) -> Meaning {
            assert_ne!(pin.as_str(), "BAD", "as a bug would");
            tokio::task::yield_now().await;
            Meaning::NotFound
        }
    }

    #[tokio::test]
    async fn a_poll_that_panics_still_has_an_answer_and_harms_no_other() {
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
