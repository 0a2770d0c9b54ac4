//! The whole program: PINs go in at the socket, and signed outcomes come out.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pinwatch::simulate::{Settings, Simulator};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixStream};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::bench::{AMPLE, SECRET};
use crate::receiver::{Answers, Receiver, Request};
use crate::signatures::assert_all_good;

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
             intake.socket = {socket:?}\nstore.url = \"sqlite:{db}\"\n\
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
    let requests = receiver.wait_for(40).await;
    assert_eq!(pins_of(&requests), pins(0..40).collect(), "what was accepted before the kill is there, too");
    let said = daemon.stop().await;
    for said in [said_before, said] {
        for secret in ["hunter2", SECRET, SECRET.trim_start_matches("whsec_"), "demo-key"] {
            assert!(!said.contains(secret), "{said}");
        }
    }
}
