//! `cargo bench`: submits, polls and memory of the real daemon, with the figures that are asked for beside them.
//!
//! Starts the release binary and the simulator, both on this machine, in a temporary folder. Prints the median
//! of several runs; judges nothing, for a shared machine is noisy.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pinwatch::simulate::{Settings, Simulator};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

const RUNS: usize = 3;
const PINS: usize = 100_000;
const POLLING: Duration = Duration::from_secs(5);
const CONNECTIONS: usize = 64;
const KEY: &str = "bench-key";

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    // The plain loop below is a second HTTP client in this process.
    rustls::crypto::ring::default_provider().install_default().expect("none is installed yet");
    println!(
        "# {RUNS} runs each, the median; {} processors",
        thread::available_parallelism().map_or(0, usize::from)
    );
    println!("{:<58} {:>12} {:>12}", "what", "measured", "asked for");

    let submits = median(|run| submits_per_second(&runtime, run));
    row("submits acknowledged a second, one pipelined connection", submits, "/s", "20000 /s");

    let mut ratios = Vec::new();
    let polls = median(|run| {
        let (polls, plain) = polls_per_second(&runtime, run);
        ratios.push(polls / plain);
        polls
    });
    row("polls a second, 64 at once, simulator on the same cores", polls, "/s", "10000 /s");
    ratios.sort_by(f64::total_cmp);
    row("  ratio to a plain reqwest loop in the same run", ratios[RUNS / 2], "", "");

    let mut idle = Vec::new();
    let resident = median(|run| {
        let (before, after) = resident_mib(&runtime, run);
        idle.push(before);
        after
    });
    idle.sort_by(f64::total_cmp);
    row("resident memory with no PIN in flight", idle[RUNS / 2], "MiB", "");
    row("resident memory with 100,000 PINs in flight", resident, "MiB", "200 MiB");
    let slope = (resident - idle[RUNS / 2]) * 1024.0 * 1024.0 / PINS as f64;
    row("  per PIN in flight", slope, "bytes", "");
}

fn row(what: &str, figure: f64, unit: &str, asked: &str) {
    let figure = if figure < 10.0 { format!("{figure:.2}") } else { format!("{figure:.0}") };
    println!("{what:<58} {:>12} {asked:>12}", format!("{figure} {unit}"));
}

fn median(mut measure: impl FnMut(usize) -> f64) -> f64 {
    let mut figures: Vec<f64> = (0..RUNS).map(&mut measure).collect();
    figures.sort_by(f64::total_cmp);
    figures[RUNS / 2]
}

fn submits_per_second(runtime: &Runtime, run: usize) -> f64 {
    let daemon = Daemon::start(runtime, &["schedule.initial_interval=1h", "schedule.max_interval=1h"]);
    let start = Instant::now();
    daemon.submit(run, PINS);
    PINS as f64 / start.elapsed().as_secs_f64()
}

/// Polls by the daemon, and requests by a loop that does nothing else, at the same server.
fn polls_per_second(runtime: &Runtime, run: usize) -> (f64, f64) {
    let often = ["schedule.initial_interval=1s", "schedule.multiplier=1.0", "schedule.max_interval=1s"];
    let daemon = Daemon::start(runtime, &often);
    daemon.submit(run, PINS);
    thread::sleep(Duration::from_secs(2));
    let per_second = |simulator: &Simulator| {
        let before = simulator.counts().requests;
        let start = Instant::now();
        thread::sleep(POLLING);
        (simulator.counts().requests - before) as f64 / start.elapsed().as_secs_f64()
    };
    let polls = per_second(&daemon.simulator);
    let Daemon { ref simulator, .. } = daemon;
    let base = simulator.base_url();
    daemon.stop_process();
    (polls, runtime.block_on(plain_loop(&base)))
}

/// What polling costs without pinwatch: the same requests, the same answers, parsed and thrown away.
async fn plain_loop(base: &str) -> f64 {
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a client");
    let done = Arc::new(AtomicU64::new(0));
    let loops: Vec<_> = (0..CONNECTIONS)
        .map(|n| {
            let (client, done) = (client.clone(), done.clone());
            let url = format!("{base}/2fa/1/pin/sim-waiting-plain-{n}/status");
            tokio::spawn(async move {
                loop {
                    let request = client.get(&url).header("authorization", format!("App {KEY}"));
                    let body = request.send().await.expect("an answer").bytes().await.expect("a body");
                    let _: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, start) = (done.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(POLLING).await;
    let figure = (done.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64();
    loops.iter().for_each(tokio::task::JoinHandle::abort);
    figure
}

fn resident_mib(runtime: &Runtime, run: usize) -> (f64, f64) {
    let daemon = Daemon::start(runtime, &["schedule.initial_interval=1h", "schedule.max_interval=1h"]);
    let before = daemon.resident_mib();
    daemon.submit(run, PINS);
    (before, daemon.resident_mib())
}

/// The real binary and the simulator, in a folder that goes with them.
struct Daemon {
    process: std::cell::RefCell<Child>,
    simulator: Simulator,
    folder: tempfile::TempDir,
}

impl Daemon {
    fn start(runtime: &Runtime, settings: &[&str]) -> Self {
        let _within = runtime.enter();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let simulator = Settings { key: KEY.into(), ..Settings::default() };
        let simulator = Simulator::start(simulator, listener).expect("the simulator");
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name).display().to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pinwatch"));
        command.arg("run").env("PINWATCH__API__KEY", KEY).stdout(Stdio::null()).stderr(Stdio::piped());
        for setting in [
            format!("api.base_url={}", simulator.base_url()),
            format!("intake.socket={}", at("socket")),
            format!("store.url=sqlite:{}", at("pinwatch.db")),
            format!("sink=[{{type=\"file\",path=\"{}\"}}]", at("outcomes.jsonl")),
        ]
        .iter()
        .map(String::as_str)
        .chain(settings.iter().copied())
        {
            command.args(["--set", setting]);
        }
        let mut process = command.spawn().expect("the daemon");
        let mut log = BufReader::new(process.stderr.take().expect("its log"));
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            assert!(log.read_line(&mut line).expect("its log") > 0, "the daemon did not start");
        }
        thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { process: process.into(), simulator, folder }
    }

    /// Submits PINs that never end, and returns when all are acknowledged.
    fn submit(&self, run: usize, count: usize) {
        let stream = UnixStream::connect(self.folder.path().join("socket")).expect("the socket");
        let mut writer = stream.try_clone().expect("the socket");
        let writing = thread::spawn(move || {
            let mut lines = String::with_capacity(count * 40);
            (0..count).for_each(|n| lines.push_str(&format!("sim-waiting-{run:04}-{n:016x}\n")));
            writer.write_all(lines.as_bytes()).expect("submits");
        });
        let mut answers = BufReader::with_capacity(1 << 20, stream);
        let mut line = String::new();
        for _ in 0..count {
            line.clear();
            answers.read_line(&mut line).expect("an answer");
            assert!(line.contains("accepted"), "{line}");
        }
        writing.join().expect("the writer");
    }

    fn resident_mib(&self) -> f64 {
        let path = format!("/proc/{}/status", self.process.borrow().id());
        let mut status = String::new();
        std::fs::File::open(Path::new(&path))
            .and_then(|mut f| f.read_to_string(&mut status))
            .expect("its memory");
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        kib.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
    }

    fn stop_process(&self) {
        let mut process = self.process.borrow_mut();
        let _ = process.kill();
        let _ = process.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop_process();
    }
}
