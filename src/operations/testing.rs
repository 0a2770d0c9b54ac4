//! Services for tests: a real store, and a schedule handle whose task does not run.

use std::path::Path;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Api, Config};
use crate::outcome::{Ending, Verdict};
use crate::pin::PinId;
use crate::poll::Client;
use crate::schedule::Schedule;
use crate::services::Services;
use crate::sinks::Health;
use crate::store::{self, Committed, FailedCounts, NewPin, Progress, Writer};

/// Returns services whose store has this many outcomes, all delivered to one sink.
pub async fn services(folder: &Path, outcomes: usize) -> Services {
    let (store, mut connection) =
        store::open_sqlite(&folder.join("db"), &Clock::system()).await.unwrap().load(|_| {}).await.unwrap();
    connection.register_sink("sink", true).await.unwrap();
    let (committed, _) = mpsc::channel::<Committed>(1);
    let (writer, task) = Writer::new(connection, committed, usize::MAX);
    tokio::spawn(task.run());
    let clock = Clock::system();
    for n in 0..outcomes {
        let (pin, now) = (format!("P{n}").parse::<PinId>().unwrap(), clock.wall());
        let new = NewPin {
            pin: pin.clone(),
            reference: None,
            metadata: None,
            submitted_at: now.into(),
            deadline_at: now,
            submitter: None,
            again: false,
        };
        writer.submit(vec![new]).await.unwrap();
        let (ending, deliveries, error) = (Ending::Final, None, None);
        writer
            .try_finish(Verdict { pin, ending, deliveries, error, polls: 1, finished_at: now.into() })
            .unwrap();
    }
    writer.flush().await.unwrap();
    let cursor = Some(outcomes as i64);
    writer.advance(Progress { sink: "sink".into(), cursor, ..Progress::default() }).await;
    let api = Config::of_sets(&["api.key=key"]).unwrap().api;
    let api = Api { base_url: "http://127.0.0.1:9".parse().unwrap(), ..api };
    Services {
        schedule: Schedule::channel().0,
        store,
        writer,
        clock,
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
