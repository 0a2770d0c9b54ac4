//! Measures durable acks over HTTP: NDJSON on one connection beside the socket, and single POSTs beside a server of the same
//! framework that stores nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::Value;

use super::daemon::{Daemon, Home, NEVER_DUE, NOWHERE, program};
use super::process::{Process, pinned};
use super::report::{Asked, Report};
use super::submit::{pin, submit};

/// The program's first argument when it runs as the server that stores nothing.
pub const MODE: &str = "--echo";

/// PINs on the one connection.
const STREAMED: u64 = 200_000;

/// Connections that send one PIN after the other, each with its own POST.
const CONNECTIONS: u64 = 64;

/// POSTs of each of them.
const POSTS: u64 = 300;

pub fn measure(report: &mut Report, runs: usize) {
    let (mut socket, mut streamed, mut share) = (Vec::new(), Vec::new(), Vec::new());
    let (mut stored, mut echoed, mut slower) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..runs {
        // Which is first changes, so that a machine that gets slower favours neither.
        let of_socket =
            || STREAMED as f64 / fresh(|home, _, _| submit(&home.socket(), 0..STREAMED)).as_secs_f64();
        let of_http = || STREAMED as f64 / fresh(|_, at, token| stream(at, token, 0..STREAMED)).as_secs_f64();
        let (by_socket, by_http) = if run % 2 == 0 {
            let by_socket = of_socket();
            (by_socket, of_http())
        } else {
            let by_http = of_http();
            (of_socket(), by_http)
        };
        socket.push(by_socket);
        streamed.push(by_http);
        share.push(by_http / by_socket * 100.0);

        let count = (CONNECTIONS * POSTS) as f64;
        let by_store = count / fresh(|_, at, token| posts(at, token)).as_secs_f64();
        let echo = Echo::start();
        let by_echo = count / posts(echo.address, "none").as_secs_f64();
        stored.push(by_store);
        echoed.push(by_echo);
        slower.push(by_store / by_echo * 100.0);
    }
    report.figure("durable acks a second over the socket, pipelined", socket, "/s", Asked::Nothing);
    report.figure(
        "durable acks a second over HTTP, NDJSON on one connection",
        streamed,
        "/s",
        Asked::Nothing,
    );
    report.figure("  its share of the socket's", share, "%", Asked::AtLeast(60.0));
    report.figure("single POSTs a second, 64 connections, each durable", stored, "/s", Asked::Nothing);
    report.figure("  the same to a bare axum echo that stores nothing", echoed, "/s", Asked::Nothing);
    report.figure("  the daemon's share of that", slower, "%", Asked::Nothing);
}

/// Measures with a daemon of its own, which has stored nothing yet and answers to this token.
fn fresh(measured: impl FnOnce(&Home, SocketAddr, &str) -> Duration) -> Duration {
    let home = Home::new(NOWHERE);
    let (token, line) = new_token();
    let file = home.at("tokens");
    std::fs::write(&file, line).expect("a file");
    // The daemon refuses tokens that others can read.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("a file");
    let setting = format!("http.tokens_file={}", file.display());
    let (_daemon, address): (Daemon, _) = home.start_observed(&[NEVER_DUE[0], NEVER_DUE[1], &setting]);
    measured(&home, address, &token)
}

/// A token, and its line of `http.tokens_file`.
fn new_token() -> (String, String) {
    let mut command = Command::new(program());
    command.args(["token", "new", "--name", "bench", "--scope", "submit", "--json"]);
    let made = command.stderr(Stdio::null()).output().expect("the command").stdout;
    let made: Value = serde_json::from_slice(&made).expect("JSON");
    let text = |name: &str| made[name].as_str().expect(name).to_owned();
    (text("token"), text("line"))
}

fn head(token: &str, kind: &str, length: usize) -> String {
    format!(
        "POST /v1/pins HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\ncontent-type: {kind}\r\n\
         content-length: {length}\r\n\r\n"
    )
}

fn object(n: u64) -> String {
    format!("{{\"pinId\":\"{}\"}}\n", pin(n))
}

/// Submits these PINs as one NDJSON body; returns how long it took until all were acknowledged.
fn stream(address: SocketAddr, token: &str, pins: Range<u64>) -> Duration {
    let stream = TcpStream::connect(address).expect("a connection");
    let mut writer = stream.try_clone().expect("a connection");
    let body: String = pins.clone().map(object).collect();
    let request = head(token, "application/x-ndjson", body.len()) + &body;
    let begun = Instant::now();
    let writing = thread::spawn(move || writer.write_all(request.as_bytes()).expect("submits"));
    let mut answers = BufReader::with_capacity(1 << 20, stream);
    let mut status = String::new();
    answers.read_line(&mut status).expect("a status");
    assert!(status.starts_with("HTTP/1.1 202 "), "{status}");
    let (mut missing, mut buffer, mut last) = (pins.count(), vec![0; 1 << 20], b'\n');
    while missing > 0 {
        let read = answers.read(&mut buffer).expect("answers");
        assert!(read > 0, "the daemon closed the connection");
        // Lines of HTTP itself end with a carriage return too.
        for end in memchr::memchr_iter(b'\n', &buffer[..read]) {
            let before = if end == 0 { last } else { buffer[end - 1] };
            missing -= usize::from(before != b'\r');
        }
        last = buffer[read - 1];
        assert!(memchr::memmem::find(&buffer[..read], b"\"ok\":false").is_none(), "a PIN was refused");
    }
    let took = begun.elapsed();
    writing.join().expect("the writer");
    took
}

/// Submits each PIN by a POST of its own, on several connections at once; returns how long all of it took.
fn posts(address: SocketAddr, token: &str) -> Duration {
    let begun = Instant::now();
    thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            scope.spawn(move || {
                let mut stream = TcpStream::connect(address).expect("a connection");
                stream.set_nodelay(true).expect("a connection");
                let mut answers = BufReader::new(stream.try_clone().expect("a connection"));
                for n in connection * POSTS..(connection + 1) * POSTS {
                    let body = object(n);
                    let request = head(token, "application/json", body.len()) + &body;
                    stream.write_all(request.as_bytes()).expect("a submit");
                    skip_answer(&mut answers);
                }
            });
        }
    });
    begun.elapsed()
}

/// Reads an answer, which must be a 202.
fn skip_answer(answers: &mut BufReader<TcpStream>) {
    let (mut line, mut length) = (String::new(), 0);
    answers.read_line(&mut line).expect("a status");
    assert!(line.starts_with("HTTP/1.1 202 "), "{line}");
    loop {
        line.clear();
        answers.read_line(&mut line).expect("a header");
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().expect("a length");
        }
    }
    answers.read_exact(&mut vec![0; length]).expect("a body");
}

/// A server in its own process that answers each POST with its body.
struct Echo {
    _process: Process,
    address: SocketAddr,
}

impl Echo {
    fn start() -> Self {
        let mut command = pinned(None, &std::env::current_exe().expect("this program"));
        command.arg(MODE).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(command);
        let mut address = String::new();
        BufReader::new(process.stdout()).read_line(&mut address).expect("its address");
        Self { _process: process, address: address.trim().parse().expect("an address") }
    }
}

/// Runs that server until its standard input ends, which happens when the process that started it ends.
pub fn run() {
    thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("{}", listener.local_addr().expect("a port"));
        let router = Router::new().route("/v1/pins", post(async |body: String| (StatusCode::ACCEPTED, body)));
        axum::serve(listener, router).await.expect("it serves");
    });
}
