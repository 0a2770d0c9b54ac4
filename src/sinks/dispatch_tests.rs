//! Tests replays with a real store and a sink that follows a script.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::testing::TestStore;
use super::super::{Handover, Health};
use super::{BATCH, Dispatcher, Ordered, Trouble};
use crate::clock::Clock;
use crate::store::{DeliveryCommand, Outcome, Progress, Seqs, Store};

const SINK: &str = "sink";

/// The delivered outcomes in order, and the failures to come: how many outcomes of a batch the sink still accepts.
#[derive(Clone, Default)]
struct Script {
    delivered: Arc<Mutex<Vec<i64>>>,
    troubles: Arc<Mutex<VecDeque<usize>>>,
    /// For each `open`, whether the sink was asked to adopt the existing file.
    opened: Arc<Mutex<Vec<bool>>>,
    adopts: bool,
    /// Cancelled when the first batch arrives.
    stop: CancellationToken,
    /// If set, each batch waits for a permit.
    gate: Option<Arc<Semaphore>>,
}

impl Ordered for Script {
    async fn open(&mut self, _store: &Store, _cursor: i64) -> Result<Option<i64>, Trouble> {
        self.opened.lock().unwrap().push(std::mem::take(&mut self.adopts));
        Ok(None)
    }

    fn adopt(&mut self) {
        self.adopts = true;
    }

    async fn deliver(&mut self, outcomes: Vec<Outcome>) -> (usize, Result<(), Trouble>) {
        self.stop.cancel();
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        let trouble = self.troubles.lock().unwrap().pop_front();
        let count = trouble.unwrap_or(outcomes.len()).min(outcomes.len());
        self.delivered.lock().unwrap().extend(outcomes[..count].iter().map(|outcome| outcome.seq));
        (count, trouble.map_or(Ok(()), |_| Err(Trouble::Later("the test says so".into()))))
    }
}

/// A store with this many outcomes for the sink.
struct Outbox {
    test: TestStore,
    health: Health,
    rotate: watch::Sender<u64>,
}

impl Deref for Outbox {
    type Target = TestStore;

    fn deref(&self) -> &TestStore {
        &self.test
    }
}

impl Outbox {
    async fn with(outcomes: usize) -> Self {
        let test = TestStore::with_sink(SINK).await;
        test.finish("OLD", outcomes).await;
        let cursor = Some(outcomes as i64);
        test.writer.advance(Progress { sink: SINK.into(), cursor, ..Progress::default() }).await;
        test.writer.flush().await.unwrap();
        Self { test, health: Health::default(), rotate: watch::channel(0).0 }
    }

    async fn replay(&self, from: i64, to: i64) {
        let command =
            DeliveryCommand::Replay { sink: SINK.into(), seqs: Seqs::Range(from, to), only_dead: false };
        self.writer.command(command).await.unwrap();
    }

    /// How many replays remain.
    async fn left(&self) -> usize {
        self.store.failed(SINK, false, 0, u32::MAX).await.unwrap().len()
    }

    /// Runs the sink until `finish`.
    fn run(&self, cursor: i64, sink: Script, finish: CancellationToken) -> JoinHandle<()> {
        tokio::spawn(self.dispatcher(cursor, sink, finish, Handover::default()).run())
    }

    fn dispatcher(
        &self,
        cursor: i64,
        sink: Script,
        finish: CancellationToken,
        handover: Handover,
    ) -> Dispatcher<Script> {
        let (name, clock) = (SINK.into(), Clock::system());
        let (store, writer) = (self.store.clone(), self.writer.clone());
        let (health, rotate) = (self.health.clone(), self.rotate.subscribe());
        let outbox = super::Outbox { name, cursor, store, writer, clock, health, rotate, finish, handover };
        Dispatcher { sink, outbox }
    }

    /// Runs the sink until no replay is left, and then stops it.
    async fn run_until_replayed(&self, cursor: i64, sink: Script) {
        let finish = CancellationToken::new();
        let running = self.run(cursor, sink, finish.clone());
        let replayed = async {
            while self.left().await > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), replayed).await.expect("the replays were not done in time");
        finish.cancel();
        running.await.unwrap();
    }
}

#[tokio::test]
async fn a_long_replay_delivers_each_outcome_once_and_does_not_delay_new_ones() {
    let many = 2 * BATCH as usize + 1;
    let (outbox, script) = (Outbox::with(many).await, Script::default());
    outbox.finish("NEW", 1).await;
    outbox.replay(1, many as i64).await;
    outbox.run_until_replayed(many as i64, script.clone()).await;
    let delivered = script.delivered.lock().unwrap().clone();
    let new = many as i64 + 1;
    assert_eq!(delivered.iter().position(|seq| *seq == new), Some(BATCH as usize));
    let replays: Vec<_> = delivered.into_iter().filter(|seq| *seq != new).collect();
    assert_eq!(replays, (1..new).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_sink_that_fails_during_a_replay_continues_after_its_last_delivery() {
    let (outbox, script) = (Outbox::with(5).await, Script::default());
    script.troubles.lock().unwrap().extend([0, 2]);
    outbox.replay(1, 5).await;
    outbox.run_until_replayed(5, script.clone()).await;
    assert_eq!(*script.delivered.lock().unwrap(), [1, 2, 3, 4, 5]);
    assert_eq!(outbox.health.all()[SINK].trouble, None);
}

#[tokio::test]
async fn a_stop_interrupts_a_long_replay_after_a_batch_and_the_next_start_completes_it() {
    let many = 3 * BATCH as usize;
    let (outbox, first) = (Outbox::with(many).await, Script::default());
    outbox.replay(1, many as i64).await;
    let running = outbox.run(many as i64, first.clone(), first.stop.clone());
    timeout(Duration::from_secs(20), running).await.expect("the stop waits for the whole replay").unwrap();
    assert_eq!(first.delivered.lock().unwrap().len(), BATCH as usize);
    assert_eq!(outbox.left().await, many - BATCH as usize);
    let second = Script::default();
    outbox.run_until_replayed(many as i64, second.clone()).await;
    let both: Vec<_> =
        [first, second].iter().flat_map(|script| script.delivered.lock().unwrap().clone()).collect();
    assert_eq!(both, (1..=many as i64).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_handover_stops_a_sink_after_its_batch_unless_it_is_withdrawn() {
    let many = 3 * BATCH as usize;
    let outbox = Outbox::with(many).await;
    let gate = Arc::new(Semaphore::new(0));
    let script = Script { gate: Some(gate.clone()), ..Script::default() };
    let handover = Handover::default();
    let running = outbox.dispatcher(0, script.clone(), CancellationToken::new(), handover.clone()).run();
    let running = tokio::spawn(running);
    let delivered = || script.delivered.lock().unwrap().len();
    script.stop.cancelled().await;
    handover.request();
    assert!(handover.withdraw());
    gate.add_permits(2);
    let two = async {
        while delivered() < 2 * BATCH as usize {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), two).await.expect("it left, though that was taken back");
    handover.request();
    gate.add_permits(1);
    timeout(Duration::from_secs(20), running).await.expect("it does not end").unwrap();
    assert!(delivered() <= many && outbox.health.all()[SINK].cursor == delivered() as i64);
    assert!(!handover.withdraw());
}

#[tokio::test]
async fn a_sink_is_notified_of_a_reload_while_idle_busy_or_in_trouble() {
    let outbox = Outbox::with(1).await;
    let adopted = async |script: &Script, times: usize| {
        let adopted = async {
            while script.opened.lock().unwrap().iter().filter(|adopts| **adopts).count() < times {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), adopted).await.expect("it is not told");
    };
    let finish = CancellationToken::new();
    // During a batch.
    let script = Script::default();
    let dispatcher = outbox.dispatcher(0, script.clone(), finish.clone(), Handover::default());
    outbox.rotate.send_modify(|count| *count += 1);
    let running = tokio::spawn(dispatcher.run());
    adopted(&script, 1).await;
    // Idle.
    let delivered = async {
        while script.delivered.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), delivered).await.expect("it delivers nothing");
    outbox.rotate.send_modify(|count| *count += 1);
    adopted(&script, 2).await;
    // In trouble.
    script.troubles.lock().unwrap().extend([0]);
    outbox.finish("NEW", 1).await;
    let troubled = async {
        while outbox.health.all()[SINK].trouble.is_none() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), troubled).await.expect("it is in no trouble");
    outbox.rotate.send_modify(|count| *count += 1);
    adopted(&script, 3).await;
    finish.cancel();
    running.await.unwrap();
}
