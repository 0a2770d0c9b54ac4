//! Whole lives: PINs over the socket, durable ack, three polls, durable outcome, a line in the file.
//!
//! `cargo bench --bench whole_lives -- [--in-flight N] [--seconds S] [--pace LIVES]`: the release binary, and in a
//! process of its own the cheapest API that can be (it says "not final" twice and "final" the third time), both on
//! this machine. Keeps N PINs in flight, as fast as lines come out or at PACE a second, and prints what the daemon
//! did and what it cost. Then the acks alone: pipelined, and of a client that waits for each.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Lives a second that the intervals ask for: more than the machine can, so that it is the limit.
const DEMAND: f64 = 24_000.0;

const POLLS_A_LIFE: u8 = 3;

/// Submits that are written at once, at most.
const CHUNK: u64 = 2048;

const PIPELINED: u64 = 200_000;
const LONE: u64 = 500;

/// `/proc` counts processor time in these.
const TICKS_A_SECOND: f64 = 100.0;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().is_some_and(|first| first == "stand-in") {
        return stand_in();
    }
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        Some(arguments.get(at + 1)?.parse::<u64>().expect("a number"))
    };
    let in_flight = option("--in-flight").unwrap_or(20_000);
    let seconds = Duration::from_secs(option("--seconds").unwrap_or(20));
    whole_lives(in_flight, seconds, option("--pace"));
    acks();
}

fn row(what: &str, figure: f64, unit: &str, asked: &str) {
    let digits = if figure < 0.1 { 4 } else { usize::from(figure < 100.0) * 2 };
    println!("{what:<58} {:>16} {asked:>14}", format!("{figure:.digits$} {unit}"));
}

fn whole_lives(in_flight: u64, seconds: Duration, pace: Option<u64>) {
    let interval = in_flight as f64 / pace.map_or(DEMAND, |pace| pace as f64) / f64::from(POLLS_A_LIFE);
    let interval = format!("{:.0}ms", interval * 1000.0);
    let daemon = Daemon::start(&interval);
    let mut lives = Lives::new(&daemon);
    // Until everything that is in flight at first was replaced: from then on it is a steady state.
    lives.run(in_flight, pace, |lives| lives.ended >= in_flight * 3 / 2);
    let (before, start) = (daemon.look(), Instant::now());
    let ended = lives.ended;
    lives.run(in_flight, pace, |_| start.elapsed() >= seconds);
    let (after, took) = (daemon.look(), start.elapsed().as_secs_f64());
    let ended = (lives.ended - ended) as f64;
    let accepted = lives.drain();

    let polls = after.polls - before.polls;
    let cpu = after.cpu - before.cpu;
    let commits = Histogram::between(&before.commits, &after.commits);
    println!(
        "# whole lives: {in_flight} PINs in flight, every {interval}, for {took:.1} s; {accepted} in all"
    );
    row("lives a second", ended / took, "/s", "12000 /s");
    row("polls a second", polls / took, "/s", "");
    row("CPU seconds of the daemon per 1000 polls", cpu * 1000.0 / polls, "s", "0.03 s");
    row("  per life", cpu * 1e6 / ended, "µs", "");
    row("  share of it in the kernel", (after.kernel - before.kernel) / cpu, "", "");
    row("commit, median", commits.quantile(0.5) * 1000.0, "ms", "");
    row("commit, 99th percentile", commits.quantile(0.99) * 1000.0, "ms", "50 ms");
    row("commits over 50 ms", commits.share_over(0.05) * 100.0, "%", "1 %");
    row("commits a second", commits.count() / took, "/s", "");
    row("lives in a commit", ended / commits.count(), "", "");
    row("flushes of the whole machine's disks a second", (after.flushes - before.flushes) / took, "/s", "");
    row("written to the disk per life", (after.written - before.written) / ended, "bytes", "");
    row("passed to write() per life", (after.passed - before.passed) / ended, "bytes", "");
}

/// Submits without polls: pipelined, then by a client that waits for each answer, with a bare sync beside it.
fn acks() {
    let daemon = Daemon::start("1h");
    let mut lives = Lives::new(&daemon);
    let (cpu, start) = (daemon.look().cpu, Instant::now());
    lives.submit(PIPELINED);
    while lives.accepted.load(Ordering::Relaxed) < PIPELINED {
        thread::sleep(Duration::from_millis(1));
    }
    let took = start.elapsed().as_secs_f64();
    let cpu = daemon.look().cpu - cpu;
    println!("# acks");
    row("durable acks a second, one pipelined connection", PIPELINED as f64 / took, "/s", "50000 /s");
    row("  CPU per ack", cpu * 1e6 / PIPELINED as f64, "µs", "");

    let mut file = File::create(daemon.at("bare")).expect("a file");
    let (mut trips, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..LONE {
        let (start, before) = (Instant::now(), lives.accepted.load(Ordering::Relaxed));
        lives.submit(1);
        while lives.accepted.load(Ordering::Relaxed) == before {
            thread::yield_now();
        }
        trips.push(start.elapsed().as_secs_f64() * 1e6);
        let start = Instant::now();
        file.write_all(&[1; 8192]).and_then(|()| file.sync_data()).expect("a sync");
        bare.push(start.elapsed().as_secs_f64() * 1e6);
    }
    [&mut trips, &mut bare].into_iter().for_each(|times| times.sort_by(f64::total_cmp));
    let middle = LONE as usize / 2;
    row("round trip of a lone client, median", trips[middle], "µs", "");
    row("  a bare write of 8 KiB and its sync, median", bare[middle], "µs", "");
    row("  ratio", trips[middle] / bare[middle], "", "");
}

/// One client that submits, and the file that the lines come out in.
struct Lives {
    stream: UnixStream,
    accepted: Arc<AtomicU64>,
    submitted: u64,
    path: PathBuf,
    lines: Option<File>,
    ended: u64,
    buffer: Vec<u8>,
}

impl Lives {
    fn new(daemon: &Daemon) -> Self {
        let stream = UnixStream::connect(daemon.at("socket")).expect("the socket");
        let answers = BufReader::with_capacity(1 << 20, stream.try_clone().expect("the socket"));
        let accepted = Arc::new(AtomicU64::new(0));
        let count = accepted.clone();
        thread::spawn(move || {
            for line in answers.lines() {
                let Ok(line) = line else { return };
                assert!(line.ends_with(r#""state":"accepted"}"#), "{line}");
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let path = daemon.at("outcomes.jsonl");
        Self { stream, accepted, submitted: 0, path, lines: None, ended: 0, buffer: vec![0; 1 << 20] }
    }

    fn submit(&mut self, count: u64) {
        let range = self.submitted..self.submitted + count;
        let lines: String = range.map(|n| format!("{:016X}{n:016X}\n", scrambled(n))).collect();
        self.stream.write_all(lines.as_bytes()).expect("submits");
        self.submitted += count;
    }

    /// Keeps `in_flight` PINs between submit and line, until it is enough.
    fn run(&mut self, in_flight: u64, pace: Option<u64>, enough: impl Fn(&Self) -> bool) {
        let (start, first) = (Instant::now(), self.submitted);
        while !enough(self) {
            self.count_lines();
            let mut missing = (in_flight + self.ended).saturating_sub(self.submitted);
            if let Some(pace) = pace {
                let due = first + (start.elapsed().as_secs_f64() * pace as f64) as u64;
                missing = due.saturating_sub(self.submitted);
            }
            self.submit(missing.min(CHUNK));
            if missing < CHUNK {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Waits for the last line; every PIN that was accepted has one.
    fn drain(&mut self) -> u64 {
        let patience = Instant::now() + Duration::from_secs(300);
        while self.ended < self.submitted {
            assert!(Instant::now() < patience, "{} of {} lines", self.ended, self.submitted);
            thread::sleep(Duration::from_millis(20));
            self.count_lines();
        }
        assert_eq!(self.accepted.load(Ordering::Relaxed), self.submitted);
        self.submitted
    }

    fn count_lines(&mut self) {
        self.lines = self.lines.take().or_else(|| File::open(&self.path).ok());
        let Some(file) = &mut self.lines else { return };
        loop {
            let read = file.read(&mut self.buffer).expect("the file");
            self.ended += memchr::memchr_iter(b'\n', &self.buffer[..read]).count() as u64;
            if read < self.buffer.len() {
                return;
            }
        }
    }
}

/// Numbers in no order, each once: PIN IDs are random. (The finalizer of splitmix64.)
fn scrambled(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// The daemon and the API, in a folder that goes with them.
struct Daemon {
    process: Child,
    api: Child,
    metrics: SocketAddr,
    folder: tempfile::TempDir,
}

/// What the daemon did and cost so far.
struct Look {
    cpu: f64,
    kernel: f64,
    polls: f64,
    commits: Histogram,
    written: f64,
    passed: f64,
    flushes: f64,
}

impl Daemon {
    fn start(interval: &str) -> Self {
        let this = std::env::current_exe().expect("this program");
        let api = Command::new(this).arg("stand-in").stdout(Stdio::piped()).stdin(Stdio::piped()).spawn();
        let mut api = api.expect("the API");
        let mut port = String::new();
        let stdout = api.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut port).expect("its port");
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name).display().to_string();
        // Free a moment ago; a port that somebody else takes meanwhile ends the run.
        let metrics = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let metrics = metrics.expect("a port");
        let settings = [
            format!("api.base_url=http://127.0.0.1:{}", port.trim()),
            format!("schedule.initial_interval={interval}"),
            format!("schedule.max_interval={interval}"),
            "schedule.multiplier=1.0".to_owned(),
            "intake.max_in_flight=4000000".to_owned(),
            format!("intake.socket={}", at("socket")),
            format!("store.url=sqlite:{}", at("pinwatch.db")),
            format!("http.listen={metrics}"),
            format!("sink=[{{type=\"file\",path=\"{}\"}}]", at("outcomes.jsonl")),
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_pinwatch"));
        command
            .arg("run")
            .env("PINWATCH__API__KEY", "bench-key")
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        settings.iter().for_each(|setting| {
            command.args(["--set", setting]);
        });
        let mut process = command.spawn().expect("the daemon");
        let mut log = BufReader::new(process.stderr.take().expect("its log"));
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            assert!(log.read_line(&mut line).expect("its log") > 0, "the daemon did not start");
        }
        thread::spawn(move || std::io::copy(&mut log, &mut std::io::stderr()));
        Self { process, api, metrics, folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn look(&self) -> Look {
        let read = |path: String| std::fs::read_to_string(path).expect("a file of /proc");
        let process = self.process.id();
        let stat = read(format!("/proc/{process}/stat"));
        // Behind the name, which may have anything in it; there the state is the first field.
        let fields = stat.rsplit_once(") ").expect("a name").1.split(' ');
        let times: Vec<f64> = fields.skip(11).take(2).map(number).collect();
        let io = read(format!("/proc/{process}/io"));
        let io = |name: &str| number(io.lines().find_map(|line| line.strip_prefix(name)).expect("a count"));
        let metrics = self.metrics();
        let polls = metrics.lines().filter(|line| line.starts_with("pinwatch_polls_total"));
        let disks = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
        let flushes = disks.filter_map(|disk| {
            let stat = std::fs::read_to_string(disk.path().join("stat")).ok()?;
            stat.split_whitespace().nth(15).map(number)
        });
        Look {
            cpu: (times[0] + times[1]) / TICKS_A_SECOND,
            kernel: times[1] / TICKS_A_SECOND,
            polls: polls.map(last_number).sum(),
            commits: Histogram::of("pinwatch_store_commit_duration_seconds", &metrics),
            written: io("write_bytes:"),
            passed: io("wchar:"),
            flushes: flushes.sum(),
        }
    }

    fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.metrics).expect("the metrics");
        let request = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the metrics");
        answer
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        for process in [&mut self.process, &mut self.api] {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The buckets of one of the daemon's histograms: upper bound and count up to there.
struct Histogram(Vec<(f64, f64)>);

impl Histogram {
    fn of(name: &str, metrics: &str) -> Self {
        let prefix = format!("{name}_bucket{{le=\"");
        let lines = metrics.lines().filter_map(|line| line.strip_prefix(&prefix));
        Self(lines.map(|line| (number(line.split('"').next().unwrap_or("")), last_number(line))).collect())
    }

    fn between(before: &Self, after: &Self) -> Self {
        let both = before.0.iter().zip(&after.0);
        Self(both.map(|((bound, before), (_, after))| (*bound, after - before)).collect())
    }

    fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// As Prometheus works it out: evenly within the bucket.
    fn quantile(&self, quantile: f64) -> f64 {
        let rank = self.count() * quantile;
        let (mut lower, mut below) = (0.0, 0.0);
        for &(bound, count) in &self.0 {
            if count >= rank {
                return lower + (bound - lower) * (rank - below) / (count - below).max(1.0);
            }
            (lower, below) = (bound, count);
        }
        lower
    }

    fn share_over(&self, bound: f64) -> f64 {
        let within = self.0.iter().find(|(upper, _)| *upper >= bound).map_or(0.0, |(_, count)| *count);
        1.0 - within / self.count().max(1.0)
    }
}

fn number(text: &str) -> f64 {
    text.trim().parse().expect("a number")
}

fn last_number(line: &str) -> f64 {
    number(line.rsplit(' ').next().unwrap_or(""))
}

/// The API, in a process of its own: one thread, no framework. Prints its port; ends with its parent.
fn stand_in() {
    thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("{}", listener.local_addr().expect("a port").port());
        let asked = std::rc::Rc::new(std::cell::RefCell::new(HashMap::<u64, u8>::new()));
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("a socket");
            let asked = asked.clone();
            tokio::task::spawn_local(async move {
                let (mut request, mut answers) = (Vec::with_capacity(4096), Vec::new());
                while stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {
                    while let Some(end) = memchr::memmem::find(&request, b"\r\n\r\n") {
                        answer(&request[..end], &mut asked.borrow_mut(), &mut answers);
                        request.drain(..end + 4);
                    }
                    if stream.write_all(&answers).await.is_err() {
                        return;
                    }
                    answers.clear();
                }
            });
        }
    });
}

/// Not final twice, final the third time.
fn answer(request: &[u8], asked: &mut HashMap<u64, u8>, out: &mut Vec<u8>) {
    let pin = request.strip_prefix(b"GET /2fa/1/pin/").and_then(|rest| rest.get(16..32));
    let pin = pin.and_then(|digits| u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
    let pin = pin.expect("a PIN of ours");
    let polls = asked.entry(pin).or_default();
    *polls += 1;
    let body = if *polls < POLLS_A_LIFE {
        r#"[{"status":"MESSAGE_WAITING_DELIVERY","description":"Message sent, waiting for delivery","finalStatus":false}]"#
    } else {
        asked.remove(&pin);
        r#"[{"status":"MESSAGE_DELIVERED","description":"Message sent and delivered","finalStatus":true}]"#
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    out.extend_from_slice(head.as_bytes());
}
