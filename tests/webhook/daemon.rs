//! The whole program: PINs go in at the socket, and signed outcomes come out.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pinwatch::simulate::{Settings, Simulator};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::webhook::bench::{AMPLE, SECRET};
use crate::webhook::receiver::{Answers, Echoes, Receiver, Request};
use crate::webhook::signatures::assert_all_good;

/// Ends with the test, however that ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Daemon {
    process: Process,
    socket: UnixStream,
    said: PathBuf,
}

impl Daemon {
    /// Starts the program, and waits until it takes PINs.
    async fn start(folder: &Path, simulator: &Simulator, url: &str) -> Self {
        let config = folder.join("pinwatch.toml");
        let socket = folder.join("pinwatch.sock");
        let text = format!(
            "api.base_url = {base:?}\napi.key = \"demo-key\"\nschedule.initial_interval = \"50ms\"\n\
             intake.socket = {socket:?}\nstore.url = \"sqlite:{db}\"\nhttp.listen = \"127.0.0.1:0\"\n\
             [[sink]]\ntype = \"webhook\"\nurl = {url:?}\nsecret = {SECRET:?}\n",
            base = simulator.base_url(),
            db = folder.join("pinwatch.db").display(),
        );
        std::fs::write(&config, text).unwrap();
        let said = folder.join("stderr");
        let child = Command::new(env!("CARGO_BIN_EXE_pinwatch"))
            .args(["run", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(File::create(&said).unwrap())
            .spawn()
            .unwrap();
        let mut process = Process(child);
        let connect = async {
            loop {
                if let Ok(stream) = UnixStream::connect(&socket).await {
                    return stream;
                }
                if let Some(status) = process.0.try_wait().unwrap() {
                    panic!("ended by {status}: {}", std::fs::read_to_string(&said).unwrap());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let socket = timeout(AMPLE, connect).await.unwrap();
        Self { process, socket, said }
    }

    /// Submits PINs, and sees each acknowledged.
    async fn submit(&mut self, pins: impl IntoIterator<Item = String>) {
        let lines: Vec<String> = pins.into_iter().map(|pin| pin + "\n").collect();
        self.socket.write_all(lines.concat().as_bytes()).await.unwrap();
        let mut answers = BufReader::new(&mut self.socket).lines();
        for _ in &lines {
            let answer = timeout(AMPLE, answers.next_line()).await.unwrap().unwrap().unwrap();
            let answer: Value = serde_json::from_str(&answer).unwrap();
            assert_eq!(answer["ok"], true, "{answer}");
        }
    }

    /// Asks one question over the socket.
    async fn ask(&mut self, line: &str) -> String {
        self.socket.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        let mut socket = BufReader::new(&mut self.socket);
        timeout(AMPLE, socket.read_line(&mut answer)).await.unwrap().unwrap();
        answer
    }

    /// What `/readyz` answers.
    async fn readyz(&self) -> String {
        let said = std::fs::read_to_string(&self.said).unwrap();
        let (_, address) = said.rsplit_once("served over HTTP address=").unwrap();
        let mut stream = TcpStream::connect(address.split_whitespace().next().unwrap()).await.unwrap();
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        timeout(AMPLE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    /// Asks for `stats` until they hold this, and gives them.
    async fn until_stats(&mut self, holds: impl Fn(&Value) -> bool) -> String {
        let wait = async {
            loop {
                let stats = self.ask(r#"{"op":"stats"}"#).await;
                if holds(&serde_json::from_str::<Value>(&stats).unwrap()["stats"]["sinks"]["webhook"]) {
                    return stats;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let held = timeout(AMPLE, wait).await;
        match held {
            Ok(stats) => stats,
            Err(_) => panic!("stats are {}", self.ask(r#"{"op":"stats"}"#).await),
        }
    }

    /// Ends it as systemd does, which it has to do well; gives what it said.
    async fn stop(self) -> String {
        let Self { mut process, said, socket: _socket } = self;
        let pid = rustix::process::Pid::from_child(&process.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let ended = spawn_blocking(move || process.0.wait().unwrap());
        let status = timeout(AMPLE, ended).await.unwrap().unwrap();
        let said = std::fs::read_to_string(&said).unwrap();
        assert!(status.success(), "{status}: {said}");
        said
    }

    /// Ends it at once; gives what it said.
    fn kill(mut self) -> String {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
        std::fs::read_to_string(&self.said).unwrap()
    }
}

async fn simulator() -> Simulator {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Simulator::start(Settings::default(), listener).unwrap()
}

fn pins(numbers: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    numbers.map(|number| format!("sim-delivered-{number}"))
}

fn pins_of(requests: &[Request]) -> HashSet<String> {
    requests.iter().map(|request| request.json()["pinId"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_submitted_pin_comes_out_as_a_signed_outcome_and_a_stop_sends_nothing_twice() {
    let (folder, simulator) = (TempDir::new().unwrap(), simulator().await);
    let receiver = Receiver::start(|_, _| Answers(200)).await;
    let mut daemon = Daemon::start(folder.path(), &simulator, &receiver.url()).await;
    daemon.submit(pins(0..20)).await;
    receiver.wait_for(20).await;
    daemon.stop().await;
    let mut daemon = Daemon::start(folder.path(), &simulator, &receiver.url()).await;
    daemon.submit(pins(20..40)).await;
    let requests = receiver.wait_for(40).await;
    assert_eq!(pins_of(&requests), pins(0..40).collect());
    assert!(requests.iter().all(|request| request.json()["delivered"] == true));
    assert_all_good(&requests, SECRET);
    daemon.stop().await;
}

#[tokio::test]
async fn the_daemon_starts_without_the_endpoint_delivers_when_it_comes_and_never_tells_a_secret() {
    let (folder, simulator) = (TempDir::new().unwrap(), simulator().await);
    let addr = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("http://{addr}/hook?token=hunter2");
    let mut daemon = Daemon::start(folder.path(), &simulator, &url).await;
    daemon.submit(pins(0..20)).await;
    let said_before = daemon.kill();

    let mut daemon = Daemon::start(folder.path(), &simulator, &url).await;
    daemon.submit(pins(20..40)).await;
    let receiver = Receiver::start_at(addr, |n, _| Answers(if n == 0 { 404 } else { 200 })).await;
    // The first one is refused, and sent again.
    let requests = receiver.wait_for(41).await;
    assert_eq!(pins_of(&requests), pins(0..40).collect(), "what was accepted before the kill is there, too");
    let said = daemon.stop().await;
    for said in [said_before, said] {
        for secret in ["hunter2", SECRET, SECRET.trim_start_matches("whsec_"), "demo-key"] {
            assert!(!said.contains(secret), "{said}");
        }
    }
}

#[tokio::test]
async fn what_the_endpoint_echoes_is_in_no_log_no_health_and_no_stats() {
    let (folder, simulator) = (TempDir::new().unwrap(), simulator().await);
    let refuses_all = Arc::new(AtomicBool::new(true));
    let still = refuses_all.clone();
    let whim = move |_, request: &Request| {
        let refused = still.load(Ordering::SeqCst) || request.json()["pinId"] == "sim-delivered-0";
        if refused { Echoes(404) } else { Answers(200) }
    };
    let receiver = Receiver::start(whim).await;
    let mut daemon = Daemon::start(folder.path(), &simulator, &receiver.url()).await;
    daemon.submit(pins(0..40)).await;
    let in_trouble = daemon.until_stats(|sink| sink["trouble"].is_object()).await;
    assert!(in_trouble.contains(r#""deadLetters":0"#), "{in_trouble}");
    let ready = daemon.readyz().await;
    assert!(ready.contains(r#""404 Not Found""#), "{ready}");

    refuses_all.store(false, Ordering::SeqCst);
    for number in 40.. {
        // It is a dead letter once it is refused before and after another is accepted.
        daemon.submit(pins(number..number + 1)).await;
        let delivered = |sink: &Value| sink["trouble"].is_null() && sink["behind"] == 0;
        let stats = daemon.until_stats(delivered).await;
        if stats.contains(r#""deadLetters":1"#) {
            break;
        }
    }
    let shown = daemon.ask(r#"{"op":"show","pinId":"sim-delivered-0"}"#).await;
    assert!(shown.contains("404 Not Found: POST *** HTTP/1.1"), "{shown}");
    let said = daemon.stop().await;
    assert!(said.contains("dead letters"), "{said}");
    let requests = receiver.requests();
    let signatures = requests.iter().map(|request| &request.headers["webhook-signature"][3..]);
    let secrets: Vec<&str> = ["hunter2", SECRET, &SECRET[6..]].into_iter().chain(signatures).collect();
    for told in [&in_trouble, &ready, &shown, &said] {
        assert_eq!(secrets.iter().find(|secret| told.contains(**secret)), None, "{told}");
    }
    for told in [&in_trouble, &ready, &said] {
        assert!(!told.contains("sim-delivered-"), "{told}");
    }
}
