//! What a poll costs, as a count that is the same on every machine: memory allocations.
//!
//! The real schedule and the real client on one thread, against a server on another; only this thread's
//! allocations count. `cargo bench -- polls` has the times.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use pinwatch::clock::Clock;
use pinwatch::config::{Api, Config};
use pinwatch::pin::PinId;
use pinwatch::poll::{Client, Connection, Meaning};
use pinwatch::schedule::{self, Core, Schedule};
use pinwatch::store::{InFlight, Writer, open_sqlite};
use tokio_util::sync::CancellationToken;

/// Allocations of a poll: 44 when this was written. A new version of a library may add a few; a change
/// that allocates again for each poll should be noticed.
const MOST: u64 = 46;

const WARM_UP: u64 = 500;
const COUNTED: u64 = 2000;
const CONCURRENCY: usize = 8;
const PINS: usize = 200;

thread_local! {
    static POLLS: Cell<u64> = const { Cell::new(0) };
}

/// The client, counted.
struct Counted(Client);

impl schedule::Poll for Counted {
    async fn poll(&self, pin: &PinId, _: Connection) -> Meaning {
        let meaning = self.0.poll(pin, Connection::Kept).await;
        assert!(matches!(meaning, Meaning::Deliveries(_)), "{meaning:?}");
        POLLS.set(POLLS.get() + 1);
        meaning
    }
}

#[test]
fn a_poll_does_not_exceed_its_allocation_budget() {
    let base_url = serve();
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _within = runtime.enter();
    let client = Client::new(&api(&base_url)).unwrap();
    let mut core = Core::new(often(), None, Clock::system(), 7);
    for n in 0..PINS {
        let (pin, now) = (format!("{n:032X}").parse().unwrap(), core.clock().date());
        core.accept(&InFlight { pin, submitted_at: now, deadline_at: now.wall + Duration::from_secs(3600) });
    }
    let (store, connection) = runtime.block_on(async {
        open_sqlite(&folder.path().join("pinwatch.db"), &Clock::system())
            .await
            .unwrap()
            .load(|_| {})
            .await
            .unwrap()
    });
    let (_schedule, inbox, events) = Schedule::channel();
    let (writer, writing) = Writer::new(connection, inbox, PINS);
    runtime.spawn(writing.run());
    let task = schedule::Task {
        core,
        poller: Arc::new(Counted(client)),
        writer,
        events,
        concurrency: CONCURRENCY,
        stop: CancellationToken::new(),
        grace: Duration::ZERO,
    };
    runtime.spawn(task.run());

    runtime.block_on(until(WARM_UP));
    let begun = POLLS.get();
    let counted = allocation_counter::measure(|| runtime.block_on(until(WARM_UP + COUNTED)));
    let each = counted.count_total / (POLLS.get() - begun);
    assert!(
        each <= MOST,
        "{each} allocations a poll, and {MOST} are the most; {} bytes",
        counted.bytes_total
    );
    drop(store);
}

async fn until(polls: u64) {
    let enough = async {
        while POLLS.get() < polls {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), enough).await.expect("so many polls within a minute");
}

/// A server that answers every request with "not final yet"; gives its base URL.
fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            thread::spawn(move || answer_all(stream));
        }
    });
    base_url
}

/// Until the client closes the connection.
fn answer_all(mut stream: TcpStream) {
    let body = r#"[{"status":"MESSAGE_WAITING_DELIVERY","description":"Message sent, waiting for delivery","finalStatus":false}]"#;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
    let answer = format!("{head}{}\r\n\r\n{body}", body.len());
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        request.extend_from_slice(&buffer[..read]);
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

fn often() -> pinwatch::config::Schedule {
    let sets = ["initial_interval=1ms", "max_interval=1ms", "multiplier=1", "deadline=1h"];
    let sets = sets.map(|set| format!("schedule.{set}"));
    Config::of_sets(&[&sets[0], &sets[1], &sets[2], &sets[3], "api.key=key"]).unwrap().schedule
}

fn api(base_url: &str) -> Api {
    let sets = [format!("api.base_url={base_url}"), format!("api.concurrency={CONCURRENCY}")];
    Config::of_sets(&[&sets[0], &sets[1], "api.key=key"]).unwrap().api
}
