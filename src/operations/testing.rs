//! Services for tests: a real store, and a schedule handle whose task does not run.

use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Api, Config};
use crate::poll::Client;
use crate::schedule::Schedule;
use crate::services::Services;
use crate::sinks::Health;
use crate::sinks::testing::TestStore;
use crate::store::{FailedCounts, Progress};

/// Returns services whose store has this many outcomes, all delivered to one sink.
pub async fn services(folder: &Path, outcomes: usize) -> Services {
    let test = TestStore::in_folder(folder).await;
    test.writer.register("sink".into(), true).await.unwrap();
    test.finish("P", outcomes).await;
    let cursor = Some(outcomes as i64);
    test.writer.advance(Progress { sink: "sink".into(), cursor, ..Progress::default() }).await;
    let api = Config::of_sets(&["api.key=key"]).unwrap().api;
    let api = Api { base_url: "http://127.0.0.1:9".parse().unwrap(), ..api };
    Services {
        schedule: Schedule::channel().0,
        store: test.store,
        writer: test.writer,
        clock: Clock::system(),
        deadline: watch::channel(Duration::ZERO).1,
        api: Client::new(&api).unwrap(),
        socket: watch::channel(None).1,
        health: Health::default(),
        stop: CancellationToken::new(),
        failed_counts: FailedCounts::default(),
        max_in_flight: usize::MAX,
        places: crate::intake::places(8),
        room: Default::default(),
        cluster: None,
    }
}
