//! The daemon's request handlers, end to end: any bytes over a real socket, to a real schedule and a real store.
//!
//! Each line gets one answer, in order; each answer is one harmless line of JSON, and a refusal says why; the connection
//! ends when the client has no more to say; and the next client is served as well.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pinwatch::clock::Clock;
use pinwatch::config::{Config, Environment, Sources};
use pinwatch::intake::{self, Socket};
use pinwatch::outcome::{Delivery, Ending, Status, Verdict};
use pinwatch::pin::PinId;
use pinwatch::poll::{Connection, Meaning};
use pinwatch::protocol::{self, MAX_LINE, Request};
use pinwatch::schedule::{Core, Poll, Schedule, Task};
use pinwatch::services::Services;
use pinwatch::sinks::{Health, SinkHealth};
use pinwatch::store::{self, Failed, FailedCounts, NewPin, Progress, Writer};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::is_harmful;

/// No connection takes longer to end.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How long a connection that may wait for ever is given to answer.
const QUIET: Duration = Duration::from_millis(20);

/// The daemon has P0 to P9 with outcomes, some of them dead letters of "sink". PINs that begin with W stay in flight.
pub struct Daemon {
    runtime: Runtime,
    socket: PathBuf,
    _folder: TempDir,
}

struct Api;

impl Poll for Api {
    async fn poll(&self, pin: &PinId, _: Connection) -> Meaning {
        let status = Status::from_wire("MESSAGE_DELIVERED");
        let delivered = Delivery { status, description: None, final_status: true };
        Meaning::Deliveries(if pin.as_str().starts_with('W') { Vec::new() } else { vec![delivered] })
    }
}

impl Daemon {
    pub fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        runtime.block_on(async {
            let services = services(&folder).await;
            let socket = Socket::bind(&socket, 0o600).await.unwrap();
            tokio::spawn(intake::serve(socket, services));
        });
        Self { runtime, socket, _folder: folder }
    }

    pub fn check(&self, sent: &[u8]) {
        let lines: Vec<&[u8]> = sent.split(|byte| *byte == b'\n').collect();
        let (half, lines) = lines.split_last().unwrap();
        let requests: Vec<_> = lines.iter().map(|line| protocol::parse(line)).collect();
        let is_tail = |request: &_| matches!(request, Ok(Request::Tail(_)));
        let may_wait = |request: &_| matches!(request, Ok(Request::Tail(_) | Request::Wait(_)));
        let waits = requests.iter().any(may_wait);
        let (answers, has_ended) = self.runtime.block_on(async { self.ask(sent, waits).await });
        let answers: Vec<&str> = answers.lines().collect();
        answers.iter().for_each(|answer| check_answer(answer));
        if !waits {
            assert!(has_ended, "the connection did not end");
        }
        if has_ended && sent.len() <= MAX_LINE && !requests.iter().any(is_tail) {
            assert_eq!(answers.len(), lines.len() + usize::from(!half.is_empty()), "{answers:#?}");
        }
    }

    /// Everything that is answered, and whether the daemon ended the connection.
    async fn ask(&self, sent: &[u8], waits: bool) -> (String, bool) {
        let (mut reader, mut writer) = UnixStream::connect(&self.socket).await.unwrap().into_split();
        let write = async {
            // The daemon may end the connection before all is written.
            let _ = writer.write_all(sent).await;
            let _ = writer.shutdown().await;
        };
        let read = async {
            let (mut answers, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
            loop {
                match timeout(if waits { QUIET } else { TIMEOUT }, reader.read(&mut piece)).await {
                    Ok(Ok(0) | Err(_)) => return (answers, true),
                    Ok(Ok(count)) => answers.extend_from_slice(&piece[..count]),
                    Err(_) => return (answers, false),
                }
            }
        };
        let ((), (mut answers, has_ended)) = tokio::join!(write, read);
        if !has_ended {
            // What was read may be the beginning of a line.
            answers.truncate(answers.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
        }
        (String::from_utf8(answers).expect("answers are UTF-8"), has_ended)
    }
}

fn check_answer(line: &str) {
    assert!(!line.contains(is_harmful), "{line:?}");
    let answer: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    match answer["ok"].as_bool() {
        Some(true) => {}
        Some(false) => {
            let says = |field: &str| answer["error"][field].as_str().is_some_and(|text| !text.is_empty());
            assert!(says("code") && says("message"), "{line}");
            assert_ne!(answer["error"]["code"], "shutting_down", "a part of the daemon broke");
        }
        None => assert!(answer["seq"].is_i64() && answer["pinId"].is_string(), "{line}"),
    }
}

async fn services(folder: &TempDir) -> Services {
    let set = ["api.key=key", "schedule.initial_interval=1ms", "schedule.multiplier=10"].map(str::to_owned);
    let environment = Environment { system_file: PathBuf::new(), ..Environment::default() };
    let config = Config::load(&Sources { environment, set: set.into(), ..Sources::default() }).unwrap();
    let clock = Clock::system();
    let unloaded = store::open_sqlite(&folder.path().join("db"), &clock).await.unwrap();
    let (store, mut connection) = unloaded.load(|_| {}).await.unwrap();
    connection.register_sink("sink", true).await.unwrap();
    let (schedule, inbox, events) = Schedule::channel();
    let (writer, task) = Writer::new(connection, inbox, 50);
    tokio::spawn(task.run());
    end_some(&writer, &clock).await;
    let stop = CancellationToken::new();
    let task = Task {
        core: Core::new(config.schedule.clone(), None, clock.clone(), 1),
        poller: Arc::new(Api),
        writer: writer.clone(),
        events,
        concurrency: 8,
        stop: stop.clone(),
        grace: Duration::ZERO,
    };
    tokio::spawn(task.run());
    let health = Health::default();
    health.update("sink", |health| *health = SinkHealth::at(10));
    Services {
        schedule,
        store,
        writer,
        cluster: None,
        api: pinwatch::poll::Client::new(&config.api).unwrap(),
        clock,
        deadline: watch::channel(config.schedule.deadline).1,
        health,
        socket: watch::channel(None).1,
        stop,
        failed_counts: FailedCounts::default(),
        max_in_flight: usize::MAX,
        places: intake::places(64),
        room: Default::default(),
    }
}

async fn end_some(writer: &Writer, clock: &Clock) {
    let now = clock.date();
    for n in 0..10 {
        let pin: PinId = format!("P{n}").parse().unwrap();
        let (reference, metadata) = (Some("order \u{202e}42".to_owned()), None);
        let new = NewPin {
            pin: pin.clone(),
            reference,
            metadata,
            submitted_at: now,
            deadline_at: now.wall,
            submitter: None,
            again: false,
        };
        writer.submit(vec![new]).await.unwrap();
        let (ending, deliveries, error) = (Ending::Rejected, None, Some("says \u{1b}[2J no".into()));
        writer.try_finish(Verdict { pin, ending, deliveries, error, polls: 1, finished_at: now }).unwrap();
    }
    writer.flush().await.unwrap();
    let dead = |seq| Failed {
        seq,
        dead: true,
        tries: 3,
        first_try_at: Some(now),
        last_try_at: Some(now),
        error: Some("404 Not Found".into()),
    };
    let failed = vec![dead(2), dead(5), dead(9)];
    writer.advance(Progress { sink: "sink".into(), cursor: Some(10), failed, ..Progress::default() }).await;
}
