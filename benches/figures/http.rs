//! Measures submits over `/v1`: many lines on one connection, beside the socket; and single POSTs, beside a bare axum handler
//! that stores nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use pinwatch::http::tokens::{NewToken, Scope};
use secrecy::ExposeSecret;

use super::daemon::{Daemon, Home, NEVER_DUE, NOWHERE};
use super::process::{Process, pinned};
use super::report::{Asked, Report};
use super::submit::{pin, submit};

/// The program's first argument when it runs as the bare handler.
pub const MODE: &str = "--bare-axum";

const LINES: u64 = 200_000;

/// Clients that each wait for the answer to one POST before they send the next.
const CLIENTS: u64 = 64;

/// How long they do that.
const POSTING: Duration = Duration::from_secs(3);

pub fn measure(report: &mut Report, runs: usize) {
    let (mut socket, mut lines, mut posts, mut bare) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let home = Home::new(NOWHERE);
        let (_daemon, address, token) = start(&home);
        socket.push(LINES as f64 / submit(&home.socket(), 0..LINES).as_secs_f64());
        lines.push(LINES as f64 / send_lines(address, &token, LINES..2 * LINES).as_secs_f64());
        posts.push(post_for_a_while(address, &token));
        bare.push(post_for_a_while(BareAxum::start().address, &token));
    }
    let ratio = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a / b).collect::<Vec<_>>();
    let (of_socket, of_bare) = (ratio(&lines, &socket), ratio(&posts, &bare));
    report.figure("durable acks a second: the socket, pipelined", socket, "/s", Asked::Nothing);
    report.figure("durable acks a second: NDJSON on one connection", lines, "/s", Asked::Nothing);
    report.figure("  share of the socket's", of_socket, "", Asked::AtLeast(0.6));
    report.figure("single POSTs a second, 64 clients, durable", posts, "/s", Asked::Nothing);
    report.figure("single POSTs a second, bare axum that stores nothing", bare, "/s", Asked::Nothing);
    report.figure("  share of bare axum's", of_bare, "", Asked::Nothing);
}

/// Starts a daemon with one token, which it returns with the address of `/v1`.
fn start(home: &Home) -> (Daemon, SocketAddr, String) {
    let name = "bench".parse().expect("a name");
    let NewToken { token, line } = NewToken::make(&name, Scope::Submit).expect("random numbers");
    let file = home.at("tokens");
    let mut private = std::fs::OpenOptions::new();
    let written = private.write(true).create(true).truncate(true).mode(0o600).open(&file);
    written.and_then(|mut file| file.write_all(line.as_bytes())).expect("a file");
    let setting = format!("http.tokens_file={}", file.display());
    let (daemon, address) = home.start_observed(&[&NEVER_DUE[..], &[setting.as_str()]].concat());
    (daemon, address, token.expose_secret().to_owned())
}

fn head(address: SocketAddr, token: &str, content_type: &str, length: usize) -> String {
    format!(
        "POST /v1/pins HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         content-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// Sends these PINs in one request; returns how long it took until all were acknowledged.
fn send_lines(address: SocketAddr, token: &str, pins: std::ops::Range<u64>) -> Duration {
    let lines: String = pins.clone().map(|n| format!("{{\"pinId\":\"{}\"}}\n", pin(n))).collect();
    let request = head(address, token, "application/x-ndjson", lines.len()) + &lines;
    let stream = TcpStream::connect(address).expect("the daemon");
    let mut writer = stream.try_clone().expect("the connection");
    let begun = Instant::now();
    let writing = thread::spawn(move || writer.write_all(request.as_bytes()).expect("submits"));
    let (mut answers, mut missing, mut buffer) = (stream, pins.count(), vec![0; 1 << 20]);
    while missing > 0 {
        let read = answers.read(&mut buffer).expect("answers");
        assert!(read > 0, "the daemon closed the connection");
        missing -= memchr::memmem::find_iter(&buffer[..read], b"}\n").count();
        assert!(memchr::memmem::find(&buffer[..read], b"\"ok\":false").is_none(), "a PIN was refused");
    }
    let took = begun.elapsed();
    writing.join().expect("the writer");
    took
}

/// Lets [`CLIENTS`] POST single PINs on connections that they keep; returns the answers per second.
fn post_for_a_while(address: SocketAddr, token: &str) -> f64 {
    let next = Arc::new(AtomicU64::new(2 * LINES));
    let begun = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (token, next) = (token.to_owned(), next.clone());
            thread::spawn(move || {
                let mut stream = TcpStream::connect(address).expect("the server");
                stream.set_nodelay(true).expect("a socket");
                let mut answers = BufReader::new(stream.try_clone().expect("the connection"));
                while begun.elapsed() < POSTING {
                    let body = format!("{{\"pinId\":\"{}\"}}", pin(next.fetch_add(1, Ordering::Relaxed)));
                    let request = head(address, &token, "application/json", body.len()) + &body;
                    stream.write_all(request.as_bytes()).expect("a request");
                    read_answer(&mut answers);
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().expect("a client"));
    (next.load(Ordering::Relaxed) - 2 * LINES) as f64 / begun.elapsed().as_secs_f64()
}

/// Reads one answer, which must be a 202 with a length.
fn read_answer(answers: &mut impl BufRead) {
    let (mut line, mut length) = (String::new(), 0);
    answers.read_line(&mut line).expect("a status line");
    assert!(line.starts_with("HTTP/1.1 202"), "{line}");
    while line.trim_end() != "" {
        line.clear();
        answers.read_line(&mut line).expect("a header");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
    }
    answers.read_exact(&mut vec![0; length]).expect("a body");
}

/// A running bare handler, which ends when this is dropped.
struct BareAxum {
    _process: Process,
    address: SocketAddr,
}

impl BareAxum {
    fn start() -> Self {
        let mut command = pinned(None, &std::env::current_exe().expect("this program"));
        command.arg(MODE).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(command);
        let mut address = String::new();
        BufReader::new(process.stdout()).read_line(&mut address).expect("its address");
        Self { _process: process, address: address.trim().parse().expect("an address") }
    }
}

/// Serves a handler that reads the body and answers it, until standard input ends.
pub fn run_bare() {
    thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("{}", listener.local_addr().expect("a port"));
        let echo = async |body: Bytes| (StatusCode::ACCEPTED, body);
        axum::serve(listener, Router::new().route("/v1/pins", post(echo))).await.expect("a server");
    });
}
