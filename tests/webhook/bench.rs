//! A webhook sink with a real store, as the daemon runs it.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use pinwatch::clock::Clock;
use pinwatch::config::{Config, SinkKind, Webhook};
use pinwatch::outcome::{Ending, Verdict};
use pinwatch::sinks::{Endpoint, Handover, Health, Outbox, run_webhook};
use pinwatch::store::{self, Committed, Failed, NewPin, Store, Writer};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Long enough that no healthy step reaches it, even on the slowest machine.
pub const LONG_TIMEOUT: Duration = Duration::from_secs(60);

pub const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// The value of the header that each request of [`webhook`] has.
pub const HEADER: &str = "gateway-k3y";

/// A webhook's configuration.
pub fn webhook(url: &str) -> Webhook {
    let sink = format!(
        "sink=[{{type=\"webhook\", url={url:?}, secret={SECRET:?}, headers={{X-Gateway-Key={HEADER:?}}}}}]"
    );
    let mut config = Config::of_sets(&["api.key=key", &sink]).unwrap();
    match config.sinks.remove(0).kind {
        SinkKind::Webhook(webhook) => Webhook { timeout: LONG_TIMEOUT, ..webhook },
        other => panic!("{other:?}"),
    }
}

/// The folder of the store, which stays between two runs.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn database(&self) -> PathBuf {
        self.0.path().join("pinwatch.db")
    }

    /// Starts the sink.
    pub async fn start(&self, webhook: &Webhook) -> Bench {
        let (store, mut connection) =
            store::open_sqlite(&self.database(), &Clock::system()).await.unwrap().load(|_| {}).await.unwrap();
        let cursor = connection.register_sink("hook", true).await.unwrap();
        let (committed, mut commits) = mpsc::channel::<Committed>(64);
        let (writer, task) = Writer::new(connection, committed, 1_000_000);
        let writing = tokio::spawn(async move {
            tokio::join!(task.run(), async { while commits.recv().await.is_some() {} }).0
        });
        let (health, finish) = (Health::default(), CancellationToken::new());
        let outbox = Outbox {
            name: "hook".into(),
            cursor,
            store: store.clone(),
            writer: writer.clone(),
            clock: Clock::system(),
            health: health.clone(),
            finish: finish.clone(),
            rotate: watch::channel(0).1,
            handover: Handover::default(),
        };
        let sink = tokio::spawn(run_webhook(Endpoint::new(webhook).unwrap(), outbox));
        Bench { store, writer, health, finish, sink, writing }
    }
}

/// A running sink.
pub struct Bench {
    pub store: Store,
    pub writer: Writer,
    pub health: Health,
    pub finish: CancellationToken,
    sink: JoinHandle<()>,
    writing: JoinHandle<usize>,
}

impl Bench {
    /// Ends this many PINs; their outcomes get the next `seq`s.
    pub async fn outcomes(&self, count: usize) {
        let now = Timestamp::now();
        let before = *self.writer.newest().borrow();
        let pin = |n| format!("PIN-{}", before + 1 + i64::try_from(n).unwrap()).parse().unwrap();
        let new = |n| NewPin {
            pin: pin(n),
            reference: Some("order \"é\"".into()),
            metadata: None,
            submitted_at: now.into(),
            deadline_at: now,
            submitter: None,
            again: false,
        };
        self.writer.submit((0..count).map(new).collect()).await.unwrap();
        for n in 0..count {
            let mut verdict = Verdict {
                pin: pin(n),
                ending: Ending::Deadline,
                deliveries: None,
                error: None,
                polls: 1,
                finished_at: now.into(),
            };
            while let Err(back) = self.writer.try_finish(verdict) {
                verdict = back;
                self.writer.room().await;
            }
        }
        self.writer.flush().await.unwrap();
    }

    /// Waits until `holds` returns something.
    pub async fn until<T>(&self, what: &str, mut holds: impl AsyncFnMut(&Self) -> Option<T>) -> T {
        let wait = async {
            loop {
                if let Some(held) = holds(self).await {
                    return held;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LONG_TIMEOUT, wait).await.unwrap_or_else(|_| panic!("never came: {what}"))
    }

    /// The cursor and the failed outcomes, as the file has them.
    pub async fn stored(&self) -> (i64, Vec<Failed>) {
        self.writer.flush().await.unwrap();
        let cursors = self.store.cursors().await.unwrap();
        let mut failed = self.store.failed("hook", false, 0, 10_000).await.unwrap();
        failed.extend(self.store.failed("hook", true, 0, 10_000).await.unwrap());
        (cursors[0].1, failed.into_iter().map(|(failed, _)| failed).collect())
    }

    /// Waits until all is delivered and durable.
    pub async fn until_all_delivered(&self) {
        let newest = *self.writer.newest().borrow();
        self.until("all delivered", async |bench| {
            (bench.stored().await == (newest, Vec::new())).then_some(())
        })
        .await;
        assert_eq!(self.health.all()["hook"].trouble, None);
    }

    pub async fn until_failed(&self, seq: i64, dead: bool) -> Failed {
        self.until("a failed outcome", async |bench| {
            bench.stored().await.1.into_iter().find(|failed| failed.seq == seq && failed.dead == dead)
        })
        .await
    }

    /// Stops the sink as the daemon does.
    pub async fn stop(self) {
        self.finish.cancel();
        tokio::time::timeout(LONG_TIMEOUT, self.sink).await.unwrap().unwrap();
        drop(self.writer);
        self.store.close().await;
        assert_eq!(self.writing.await.unwrap(), 0);
    }

    /// Aborts the sink; what it had committed to the store is kept.
    pub async fn kill(self) {
        self.sink.abort();
        assert!(self.sink.await.unwrap_err().is_cancelled());
        drop(self.writer);
        self.store.close().await;
        self.writing.await.unwrap();
    }
}
