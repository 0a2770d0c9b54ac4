//! Whole lives: PINs over the socket, durable ack, three polls, durable outcome, a line in the file.
//!
//! As many PINs are in flight as the machine can turn over; everything shares its cores, the API too.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::daemon::{Home, every};
use super::metrics::{Histogram, scrape, sum};
use super::nginx::free_address;
use super::report::{Asked, Report};
use super::stand_in::StandIn;
use super::submit::pin;

const IN_FLIGHT: u64 = 20_000;

/// Three of these make a life: 24,000 lives a second are asked for, more than there can be.
const INTERVAL: &str = "278ms";
const POLLS_A_LIFE: u8 = 3;

/// Submits that are written at once, at most.
const CHUNK: u64 = 2048;
const LENGTH: Duration = Duration::from_secs(10);

pub fn measure(report: &mut Report, runs: usize) {
    let runs: Vec<_> = (0..runs).map(|_| one()).collect();
    let of = |figure: fn(&Lived) -> f64| runs.iter().map(figure).collect::<Vec<_>>();
    report.figure("whole lives a second", of(|l| l.per_second), "/s", Asked::AtLeast(12_000.0));
    report.figure("  commit, 99th percentile", of(|l| l.commit_p99 * 1000.0), "ms", Asked::AtMost(50.0));
    report.figure("  CPU seconds per 1,000 polls", of(|l| l.cpu_per_1000), "s", Asked::AtMost(0.03));
    report.figure("  lives in a commit", of(|l| l.per_commit), "", Asked::Nothing);
    report.figure("  written to the disk per life", of(|l| l.written), "bytes", Asked::Nothing);
}

struct Lived {
    per_second: f64,
    commit_p99: f64,
    cpu_per_1000: f64,
    per_commit: f64,
    written: f64,
}

fn one() -> Lived {
    let api = StandIn::start(Duration::ZERO, Some(POLLS_A_LIFE), None);
    let home = Home::new(&api.base_url);
    let (metrics, often) = (free_address(), every(INTERVAL));
    let listen = format!("http.listen={metrics}");
    let [a, b, c] = often.each_ref().map(String::as_str);
    let daemon = home.start(None, &[a, b, c, &listen]);
    let mut lives = Lives::new(&home);
    // Until everything that was in flight at first is replaced: from then on it is a steady state.
    lives.run(|lives| lives.ended >= IN_FLIGHT * 3 / 2);
    let look = || (scrape(metrics), daemon.process.cpu(), daemon.process.written());
    let (before, ended, begun) = (look(), lives.ended, Instant::now());
    lives.run(|_| begun.elapsed() >= LENGTH);
    let (after, ended, took) = (look(), (lives.ended - ended) as f64, begun.elapsed());
    lives.drain();
    let polls = sum("pinwatch_polls_total", &after.0) - sum("pinwatch_polls_total", &before.0);
    let commits = Histogram::between("pinwatch_store_commit_duration_seconds", &before.0, &after.0);
    Lived {
        per_second: ended / took.as_secs_f64(),
        commit_p99: commits.quantile(0.99),
        cpu_per_1000: (after.1 - before.1).as_secs_f64() * 1000.0 / polls,
        per_commit: ended / commits.count(),
        written: (after.2 - before.2) / ended,
    }
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
    fn new(home: &Home) -> Self {
        let stream = UnixStream::connect(home.socket()).expect("the socket");
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
        let path = home.at("outcomes.jsonl");
        Self { stream, accepted, submitted: 0, path, lines: None, ended: 0, buffer: vec![0; 1 << 20] }
    }

    /// Keeps [`IN_FLIGHT`] PINs between submit and line, until it is enough.
    fn run(&mut self, enough: impl Fn(&Self) -> bool) {
        while !enough(self) {
            self.count_lines();
            let missing = (IN_FLIGHT + self.ended).saturating_sub(self.submitted);
            self.submit(missing.min(CHUNK));
            if missing < CHUNK {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn submit(&mut self, count: u64) {
        let range = self.submitted..self.submitted + count;
        let lines: String = range.flat_map(|n| [pin(n), "\n".to_owned()]).collect();
        self.stream.write_all(lines.as_bytes()).expect("submits");
        self.submitted += count;
    }

    /// Waits for the last line; every PIN that was accepted has one.
    fn drain(&mut self) {
        let patience = Instant::now() + Duration::from_secs(120);
        while self.ended < self.submitted {
            assert!(Instant::now() < patience, "{} of {} lines", self.ended, self.submitted);
            thread::sleep(Duration::from_millis(20));
            self.count_lines();
        }
        assert_eq!(self.accepted.load(Ordering::Relaxed), self.submitted);
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
