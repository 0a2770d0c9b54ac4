//! Replaces sinks with a real store and real files; one sink hangs, or its folder is gone.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::Clock;
use crate::config::{Fsync, SinkKind};
use crate::sinks::Health;
use crate::sinks::testing::TestStore;

/// Only a bug makes a test wait this long.
const TIMEOUT: Duration = Duration::from_secs(30);

struct Bench {
    folder: TempDir,
    sinks: SinkSet,
    store: TestStore,
    health: Health,
    _rotate: watch::Sender<u64>,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = TestStore::in_folder(folder.path()).await;
        let (rotate, rotations) = watch::channel(0);
        let health = Health::default();
        let sinks = SinkSet::new(Outbox {
            name: String::new(),
            cursor: 0,
            store: store.store.clone(),
            writer: store.writer.clone(),
            clock: Clock::system(),
            health: health.clone(),
            rotate: rotations,
            finish: CancellationToken::new(),
            handover: Handover::default(),
        });
        Self { folder, sinks, store, health, _rotate: rotate }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn file(&self, name: &str, file: &str, from: config::From) -> config::Sink {
        let kind = SinkKind::File { path: self.path(file), fsync: Fsync::Never, others: Vec::new() };
        config::Sink { name: name.into(), kind, from }
    }

    async fn wait_for_lines(&self, file: &str, pins: &[&str]) {
        let all = async {
            while pins_in(&self.path(file)) != pins {
                tokio::task::yield_now().await;
            }
        };
        let came = timeout(TIMEOUT, all).await;
        came.unwrap_or_else(|_| panic!("{file} has {:?}", pins_in(&self.path(file))));
    }
}

fn pins_in(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| line.split('"').nth(9).unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_reload_that_a_hanging_sink_blocks_leaves_all_sinks_as_they_were() {
    let mut bench = Bench::new().await;
    let now = config::From::Now;
    bench.sinks.start(&[bench.file("idle", "idle", now)]).await.unwrap();
    // A sink that hangs in a write, and hands over after that.
    let (slow, (go_on, hung)) = (Handover::default(), oneshot::channel::<()>());
    let place = slow.clone();
    let task = async move {
        let _ = hung.await;
        place.requested().await;
        assert!(place.accept());
    };
    bench.store.writer.register("slow".into(), false).await.unwrap();
    bench.health.update("slow", |_| {});
    bench.sinks.run(bench.file("slow", "slow", now), slow.clone(), Box::pin(task));

    let moved = [bench.file("slow", "slow-2", now), bench.file("idle", "idle-2", now)];
    let idle = bench.sinks.running[0].handover.clone();
    let refused = {
        let time_passes = async {
            slow.requested().await;
            while idle.is_requested() {
                tokio::task::yield_now().await;
            }
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
    assert!(matches!(&refused, Err(CantReplace::Busy(name)) if name == "slow"), "{refused:?}");
    assert!(!bench.path("slow-2").exists() && !bench.path("idle-2").exists());
    bench.store.end(["P1".into()]).await;
    bench.wait_for_lines("idle", &["P1"]).await;
    go_on.send(()).expect("the one that hangs was broken off");

    let prepared = bench.sinks.prepare(&moved).await.unwrap();
    assert_eq!(bench.sinks.commit(prepared), ["sink slow changed", "sink idle changed"]);
    bench.store.end(["P2".into()]).await;
    bench.wait_for_lines("slow-2", &["P1", "P2"]).await;
    bench.wait_for_lines("idle-2", &["P2"]).await;
    assert_eq!(pins_in(&bench.path("idle")), ["P1"]);
}

#[tokio::test]
async fn a_stopped_sink_that_can_not_be_reopened_delivers_once_it_can() {
    let mut bench = Bench::new().await;
    let now = config::From::Now;
    let [here, away] = [bench.path("here"), bench.path("away")];
    std::fs::create_dir(&here).unwrap();
    bench.sinks.start(&[bench.file("one", "here/one", now)]).await.unwrap();
    std::fs::rename(&here, &away).unwrap();
    let wanted = [bench.file("one", "moved", now), bench.file("two", "missing/two", now)];
    let refused = bench.sinks.prepare(&wanted).await.map(|_| ());
    assert!(matches!(refused, Err(CantReplace::Start(_))), "{refused:?}");
    bench.store.end(["P1".into()]).await;
    let in_trouble = async {
        while bench.health.all()["one"].trouble.is_none() {
            tokio::task::yield_now().await;
        }
    };
    timeout(TIMEOUT, in_trouble).await.expect("nobody tries to open the old one");
    std::fs::rename(&away, &here).unwrap();
    bench.wait_for_lines("here/one", &["P1"]).await;
    assert_eq!(pins_in(&bench.path("moved")), [""; 0]);
    assert_eq!(bench.sinks.common.store.cursors().await.unwrap().len(), 1, "the other has no cursor");
}
