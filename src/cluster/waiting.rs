//! Waits for PINs of other nodes on behalf of all clients, with one query for all of them.
//!
//! Queries when a node hints that it committed outcomes, and every second in any case. Promises that a waiter gets an
//! answer only once its PIN is no longer in flight, and that a database which does not answer costs only time. Does not
//! know who waits, nor why.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{Cluster, Shared, State};
use crate::pin::PinId;
use crate::store::PinState;

/// The time between two queries if no hint comes.
const EVERY: Duration = Duration::from_secs(1);

/// The least time between two queries, however many hints come.
const APART: Duration = Duration::from_millis(50);

/// How long a query may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// PINs in one query.
const AT_ONCE: usize = 1000;

/// New waiters that the task has not taken yet. When the queue is full, further ones wait for a place.
const QUEUE: usize = 256;

/// A PIN, and who waits until it is no longer in flight.
pub(super) type Wait = (PinId, oneshot::Sender<PinState>);

/// The task that queries on behalf of all waiters.
pub struct Waiting {
    shared: Arc<dyn Shared>,
    asks: mpsc::Receiver<Wait>,
    outcomes: watch::Receiver<u64>,
    waiting: HashMap<PinId, Vec<oneshot::Sender<PinState>>>,
}

impl Cluster {
    /// The cluster's answers, and the task behind them.
    pub fn new(
        shared: Arc<dyn Shared>,
        state: watch::Receiver<State>,
        outcomes: watch::Receiver<u64>,
    ) -> (Self, Waiting) {
        let (waits, asks) = mpsc::channel(QUEUE);
        let waiting =
            Waiting { shared: shared.clone(), asks, outcomes: outcomes.clone(), waiting: HashMap::new() };
        (Self { shared, state, outcomes, waits }, waiting)
    }
}

impl Waiting {
    /// Serves waiters until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.answer()).await;
    }

    async fn answer(&mut self) {
        let mut asked = Instant::now();
        let mut hints = true;
        loop {
            let idle = self.waiting.is_empty();
            tokio::select! {
                ask = self.asks.recv() => match ask {
                    Some((pin, reply)) => self.waiting.entry(pin).or_default().push(reply),
                    // Nobody can ask any more.
                    None => return,
                },
                hint = self.outcomes.changed(), if hints => {
                    hints = hint.is_ok();
                    if !self.waiting.is_empty() {
                        sleep_until(asked + APART).await;
                        self.ask().await;
                        asked = Instant::now();
                    }
                }
                () = sleep_until(asked + EVERY), if !idle => {
                    self.ask().await;
                    asked = Instant::now();
                }
            }
        }
    }

    /// Queries for all PINs, and answers the waiters of those that are no longer in flight.
    async fn ask(&mut self) {
        self.waiting.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.is_closed());
            !waiters.is_empty()
        });
        let pins: Vec<PinId> = self.waiting.keys().cloned().collect();
        for pins in pins.chunks(AT_ONCE) {
            let pin_states = match timeout(TIMEOUT, self.shared.pin_states(pins)).await {
                Ok(Ok(pin_states)) => pin_states,
                Ok(Err(error)) => {
                    return debug!(%error, "the state of PINs of other nodes is unknown; the query is repeated");
                }
                Err(_) => {
                    return debug!("the query for PINs of other nodes timed out; it is repeated");
                }
            };
            for (pin, state) in pins.iter().zip(pin_states) {
                if state == PinState::InFlight {
                    continue;
                }
                for waiter in self.waiting.remove(pin).into_iter().flatten() {
                    let _ = waiter.send(state.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::super::View;
    use super::*;
    use crate::store::{Outcome, Unavailable};

    /// PINs that have ended, and every query so far.
    #[derive(Default)]
    struct Tables {
        ended: Mutex<HashMap<PinId, PinState>>,
        questions: Mutex<Vec<usize>>,
        down: Mutex<bool>,
    }

    #[async_trait]
    impl Shared for Tables {
        async fn look(&self) -> Result<View, Unavailable> {
            unreachable!()
        }

        async fn pin_states(&self, pins: &[PinId]) -> Result<Vec<PinState>, Unavailable> {
            self.questions.lock().unwrap().push(pins.len());
            if *self.down.lock().unwrap() {
                return Err(Unavailable("down".into()));
            }
            let ended = self.ended.lock().unwrap();
            Ok(pins.iter().map(|pin| ended.get(pin).cloned().unwrap_or(PinState::InFlight)).collect())
        }
    }

    fn pin(id: &str) -> PinId {
        id.parse().unwrap()
    }

    fn finished(id: &str) -> PinState {
        PinState::Finished(Outcome { seq: 1, pin: pin(id), record: "{}".into() })
    }

    #[tokio::test(start_paused = true)]
    async fn one_query_a_second_answers_all_waiting_clients_and_a_hint_does_at_once() {
        let tables = Arc::new(Tables::default());
        let (hint, hints) = watch::channel(0);
        let (cluster, waiting) = Cluster::new(tables.clone(), watch::channel(State::default()).1, hints);
        let stop = CancellationToken::new();
        tokio::spawn(waiting.run(stop.clone()));
        let ask = |id: &str| {
            tokio::spawn({
                let (cluster, pin) = (cluster.clone(), pin(id));
                async move { cluster.ended(pin).await }
            })
        };
        let (a, b, twice, c) = (ask("A"), ask("B"), ask("A"), ask("C"));
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(*tables.questions.lock().unwrap(), [3], "one for all, each PIN once");

        *tables.down.lock().unwrap() = true;
        tokio::time::sleep(Duration::from_secs(2)).await;
        *tables.down.lock().unwrap() = false;
        tables.ended.lock().unwrap().extend([(pin("A"), finished("A")), (pin("C"), PinState::Unknown)]);
        let before = Instant::now();
        hint.send_replace(1);
        assert_eq!((a.await.unwrap(), twice.await.unwrap()), (Ok(finished("A")), Ok(finished("A"))));
        assert_eq!(c.await.unwrap(), Ok(PinState::Unknown));
        assert!(before.elapsed() <= APART);

        // A client that gave up causes no more queries.
        b.abort();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let count = tables.questions.lock().unwrap().len();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(tables.questions.lock().unwrap().len(), count);

        let d = ask("D");
        tokio::task::yield_now().await;
        stop.cancel();
        assert!(d.await.unwrap().is_err(), "a waiter learns of a stop");
    }
}
