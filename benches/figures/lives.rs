//! Measures whole lives: a PIN is submitted at the socket, acknowledged durably, polled three times, gets a durable outcome and a
//! line in the file.
//!
//! Keeps a constant number of PINs in flight, so the machine processes as many as it can. All parts share its cores, the API too.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::daemon::{Daemon, Home, every};
use super::metrics::{Histogram, scrape, sum};
use super::report::{Asked, Report};
use super::stand_in::StandIn;
use super::submit::pin;

const IN_FLIGHT: u64 = 20_000;

/// Three of these make a life, so the schedule asks for 24,000 lives a second: more than the machine can do.
pub const INTERVAL: &str = "278ms";
pub const POLLS_A_LIFE: u8 = 3;

/// The most submits that are written at once.
const CHUNK: u64 = 2048;
const LENGTH: Duration = Duration::from_secs(10);

pub fn measure(report: &mut Report, runs: usize) {
    figures(report, "whole lives a second", runs, false);
}

/// Measures lives of PINs that all have a reference.
pub fn measure_referring(report: &mut Report, runs: usize) {
    figures(report, "whole lives a second, each PIN with a reference", runs, true);
}

fn figures(report: &mut Report, what: &str, runs: usize, referring: bool) {
    let runs: Vec<_> = (0..runs).map(|_| measured(1, &[], referring)).collect();
    let of = |figure: fn(&Lived) -> f64| runs.iter().map(figure).collect::<Vec<_>>();
    report.figure(what, of(|l| l.per_second), "/s", Asked::AtLeast(12_000.0));
    report.figure("  commit, 99th percentile", of(|l| l.commit_p99 * 1000.0), "ms", Asked::AtMost(50.0));
    report.figure("  CPU seconds per 1,000 polls", of(|l| l.cpu_per_1000), "s", Asked::AtMost(0.03));
    report.figure("  lives in a commit", of(|l| l.per_commit), "", Asked::Nothing);
    report.figure("  written to the disk per life", of(|l| l.written), "bytes", Asked::Nothing);
}

/// What was measured in a steady state.
pub struct Lived {
    pub per_second: f64,
    pub commit_p99: f64,
    pub cpu_per_1000: f64,
    pub per_commit: f64,
    pub written: f64,
}

/// Measures as many lives as the machine can process, with this many nodes; with `referring` each PIN has a reference.
pub fn measured(nodes: usize, settings: &[&str], referring: bool) -> Lived {
    let api = StandIn::start(Duration::ZERO, Some(POLLS_A_LIFE), None);
    let homes: Vec<Home> = (0..nodes).map(|_| Home::new(&api.base_url)).collect();
    let often = every(INTERVAL);
    let often = often.each_ref().map(String::as_str);
    let nodes: Vec<_> =
        homes.iter().map(|home| home.start_observed(&[&often[..], settings].concat())).collect();
    lived(&nodes, Lives { referring, ..Lives::new(&homes, 0) })
}

/// Measures lives at nodes that poll at [`INTERVAL`].
pub fn lived(nodes: &[(Daemon, SocketAddr)], mut lives: Lives) -> Lived {
    // A steady state begins when all PINs that were in flight at first have been replaced.
    lives.run(|lives| lives.ended >= IN_FLIGHT * 3 / 2);
    let look = || nodes.iter().map(Seen::of).collect::<Vec<_>>();
    let (before, ended, begun) = (look(), lives.ended, Instant::now());
    lives.run(|_| begun.elapsed() >= LENGTH);
    let (after, ended, took) = (look(), (lives.ended - ended) as f64, begun.elapsed());
    lives.drain();
    let total = |figure: fn(&Seen) -> f64| {
        after.iter().map(figure).sum::<f64>() - before.iter().map(figure).sum::<f64>()
    };
    let commits = |(before, after): (&Seen, &Seen)| {
        Histogram::between("pinwatch_store_commit_duration_seconds", &before.metrics, &after.metrics)
    };
    let commits: Vec<Histogram> = before.iter().zip(&after).map(commits).collect();
    Lived {
        per_second: ended / took.as_secs_f64(),
        // Of several nodes the slowest counts.
        commit_p99: commits.iter().map(|commits| commits.quantile(0.99)).fold(0.0, f64::max),
        cpu_per_1000: total(|seen| seen.cpu) * 1000.0
            / total(|seen| sum("pinwatch_polls_total", &seen.metrics)),
        per_commit: ended / commits.iter().map(Histogram::count).sum::<f64>(),
        written: total(|seen| seen.written) / ended,
    }
}

/// The state of a node at one moment.
struct Seen {
    metrics: String,
    cpu: f64,
    written: f64,
}

impl Seen {
    fn of((daemon, metrics): &(Daemon, SocketAddr)) -> Self {
        let process = &daemon.process;
        Self { metrics: scrape(*metrics), cpu: process.cpu().as_secs_f64(), written: process.written() }
    }
}

/// Clients that submit, one for each node, and the files in which the outcomes appear.
pub struct Lives {
    clients: Vec<Client>,
    from: u64,
    /// Whether each PIN has a reference of its own.
    referring: bool,
    pub submitted: u64,
    pub ended: u64,
    buffer: Vec<u8>,
}

struct Client {
    stream: UnixStream,
    accepted: Arc<AtomicU64>,
    path: PathBuf,
    lines: Option<File>,
}

impl Lives {
    /// Connects to the nodes; the PINs have numbers from `from` on.
    pub fn new(homes: &[Home], from: u64) -> Self {
        let clients = homes.iter().map(Client::new).collect();
        Self { clients, from, referring: false, submitted: 0, ended: 0, buffer: vec![0; 1 << 20] }
    }

    /// Keeps [`IN_FLIGHT`] PINs between their submission and their line, until `enough` is true.
    pub fn run(&mut self, enough: impl Fn(&Self) -> bool) {
        while !enough(self) {
            self.count_lines();
            let missing = (IN_FLIGHT + self.ended).saturating_sub(self.submitted);
            self.submit(missing.min(CHUNK));
            if missing < CHUNK {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Submits this many PINs, an equal part at each node.
    fn submit(&mut self, count: u64) {
        let nodes = self.clients.len() as u64;
        for (node, client) in (0..).zip(&mut self.clients) {
            let first = self.from + self.submitted;
            let numbers = first..first + count;
            let numbers = numbers.filter(|n| n % nodes == node);
            let lines: String = if self.referring {
                let submit = |n| {
                    format!("{{\"op\":\"submit\",\"pinId\":\"{}\",\"reference\":\"order-{n}\"}}\n", pin(n))
                };
                numbers.map(submit).collect()
            } else {
                numbers.flat_map(|n| [pin(n), "\n".to_owned()]).collect()
            };
            client.stream.write_all(lines.as_bytes()).expect("submits");
        }
        self.submitted += count;
    }

    /// Waits for all lines; every accepted PIN has one.
    pub fn drain(&mut self) {
        let patience = Instant::now() + Duration::from_secs(120);
        while self.ended < self.submitted {
            assert!(Instant::now() < patience, "{} of {} lines", self.ended, self.submitted);
            thread::sleep(Duration::from_millis(20));
            self.count_lines();
        }
        let accepted: u64 = self.clients.iter().map(|client| client.accepted.load(Ordering::Relaxed)).sum();
        assert_eq!(accepted, self.submitted);
    }

    fn count_lines(&mut self) {
        for client in &mut self.clients {
            self.ended += client.new_lines(&mut self.buffer);
        }
    }
}

impl Client {
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
        // The file has lines of the run before.
        let mut lines = File::open(&path).ok();
        if let Some(file) = &mut lines {
            file.seek(SeekFrom::End(0)).expect("the file");
        }
        Self { stream, accepted, path, lines }
    }

    fn new_lines(&mut self, buffer: &mut [u8]) -> u64 {
        self.lines = self.lines.take().or_else(|| File::open(&self.path).ok());
        let Some(file) = &mut self.lines else { return 0 };
        let mut lines = 0;
        loop {
            let read = file.read(buffer).expect("the file");
            lines += memchr::memchr_iter(b'\n', &buffer[..read]).count() as u64;
            if read < buffer.len() {
                return lines;
            }
        }
    }
}
