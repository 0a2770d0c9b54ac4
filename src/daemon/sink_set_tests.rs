//! Exchanges of sinks with a real store and real files, on a disk that hangs or is gone.

use std::path::{Path, PathBuf};
use std::sync::mpsc as blocking;

use tempfile::TempDir;
use tokio::runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::Clock;
use crate::config::{Fsync, SinkKind};
use crate::outcome::{Ending, Verdict};
use crate::sinks::Health;
use crate::store::{self, Committed, NewPin, Writer};

/// Reached only by a bug.
const PATIENCE: Duration = Duration::from_secs(30);

struct Bench {
    folder: TempDir,
    sinks: SinkSet,
    writer: Writer,
    health: Health,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (store, connection) = store::open_sqlite(&folder.path().join("db")).await.unwrap();
        // Nobody hears of commits.
        let (committed, _) = mpsc::channel::<Committed>(1);
        let (writer, task) = Writer::new(connection, committed, usize::MAX);
        tokio::spawn(task.run());
        let health = Health::default();
        let sinks = SinkSet::new(Outbox {
            cursor: 0,
            store,
            writer: writer.clone(),
            clock: Clock::system(),
            health: health.clone(),
            rotate: watch::channel(0).1,
            finish: CancellationToken::new(),
            leave: Leave::default(),
        });
        Self { folder, sinks, writer, health }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn file(&self, name: &str, file: &str, from: config::From) -> config::Sink {
        let kind = SinkKind::File { path: self.path(file), fsync: Fsync::Never };
        config::Sink { name: name.into(), kind, from }
    }

    /// A PIN comes and ends.
    async fn finish(&self, pin: &str) {
        let (now, pin) = (Clock::system().wall(), pin.parse().unwrap());
        let new = NewPin {
            pin,
            reference: None,
            metadata: None,
            submitted_at: now,
            deadline_at: now,
            again: false,
        };
        self.writer.submit(vec![new.clone()]).await.unwrap();
        let verdict = Verdict {
            pin: new.pin,
            ending: Ending::Final,
            deliveries: None,
            error: None,
            polls: 1,
            finished_at: now,
        };
        self.writer.try_finish(verdict).unwrap();
        self.writer.flush().await.unwrap();
    }

    async fn wait_for_lines(&self, file: &str, pins: &[&str]) {
        let all = async {
            while pins_in(&self.path(file)) != pins {
                tokio::task::yield_now().await;
            }
        };
        let came = timeout(PATIENCE, all).await;
        came.unwrap_or_else(|_| panic!("{file} has {:?}", pins_in(&self.path(file))));
    }
}

fn pins_in(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| line.split('"').nth(9).unwrap().to_owned()).collect()
}

/// A runtime whose file work stands still as long as its one thread for that is taken.
fn runtime() -> runtime::Runtime {
    runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap()
}

#[test]
fn a_sink_that_hangs_goes_on_as_it_was_and_so_do_those_that_had_left() {
    runtime().block_on(async {
        let mut bench = Bench::new().await;
        let (now, oldest) = (config::From::Now, config::From::Oldest);
        bench.finish("P1").await;
        // Only the one from the oldest has something to deliver, and hangs with it.
        let first = [bench.file("slow", "slow", oldest), bench.file("idle", "idle", now)];
        let moved = [bench.file("slow", "slow-2", oldest), bench.file("idle", "idle-2", now)];
        let prepared = bench.sinks.prepare(&first).await.unwrap();
        let (release, held) = blocking::channel::<()>();
        let disk = tokio::task::spawn_blocking(move || held.recv());
        bench.sinks.change_over(prepared);
        tokio::task::yield_now().await;

        let asked = bench.sinks.running[0].leave.clone();
        let refused = {
            let time_passes = async {
                asked.asked().await;
                tokio::time::pause();
                for _ in 0..1000 {
                    tokio::time::advance(Duration::from_secs(1)).await;
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                changed = bench.sinks.prepare(&moved) => changed.map(|_| ()),
                () = time_passes => panic!("it waits for ever"),
            }
        };
        tokio::time::resume();
        assert!(matches!(&refused, Err(CantChange::Busy(name)) if name == "slow"), "{refused:?}");
        release.send(()).unwrap();
        disk.await.unwrap().unwrap();
        bench.finish("P2").await;
        bench.wait_for_lines("slow", &["P1", "P2"]).await;
        bench.wait_for_lines("idle", &["P2"]).await;
        assert!(!bench.path("slow-2").exists() && !bench.path("idle-2").exists());

        let prepared = bench.sinks.prepare(&moved).await.unwrap();
        assert_eq!(bench.sinks.change_over(prepared), ["sink slow changed", "sink idle changed"]);
        bench.finish("P3").await;
        for file in ["slow-2", "idle-2"] {
            bench.wait_for_lines(file, &["P3"]).await;
        }
        assert_eq!((pins_in(&bench.path("slow")).len(), pins_in(&bench.path("idle")).len()), (2, 1));
    });
}

#[test]
fn a_sink_that_left_and_cannot_be_opened_again_delivers_once_it_can() {
    runtime().block_on(async {
        let mut bench = Bench::new().await;
        let now = config::From::Now;
        let [here, away] = [bench.path("here"), bench.path("away")];
        std::fs::create_dir(&here).unwrap();
        bench.sinks.start(&[bench.file("one", "here/one", now)]).await.unwrap();
        std::fs::rename(&here, &away).unwrap();
        let wanted = [bench.file("one", "moved", now), bench.file("two", "missing/two", now)];
        let refused = bench.sinks.prepare(&wanted).await.map(|_| ());
        assert!(matches!(refused, Err(CantChange::Start(_))), "{refused:?}");
        bench.finish("P1").await;
        let in_trouble = async {
            while bench.health.all()["one"].trouble.is_none() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, in_trouble).await.expect("nobody tries to open the old one");
        std::fs::rename(&away, &here).unwrap();
        bench.wait_for_lines("here/one", &["P1"]).await;
        assert_eq!(pins_in(&bench.path("moved")), [""; 0]);
        assert_eq!(bench.sinks.common.store.cursors().await.unwrap().len(), 1, "the other has no cursor");
    });
}
