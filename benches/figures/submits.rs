//! Measures durable acks: of pipelined submits, and of a client that waits for each ack.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use super::daemon::{Home, NEVER_DUE, NOWHERE};
use super::metrics::{scrape, sum};
use super::report::{Asked, Report};
use super::submit::{pin, submit};

const PIPELINED: u64 = 200_000;
const LONE: u64 = 300;

pub fn measure(report: &mut Report, runs: usize) {
    let (mut rates, mut lones) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let home = Home::new(NOWHERE);
        let (_daemon, metrics) = home.start_observed(&NEVER_DUE);
        rates.push(PIPELINED as f64 / submit(&home.socket(), 0..PIPELINED).as_secs_f64());
        lones.push(lone(&home, metrics, PIPELINED));
    }
    let of = |figure: fn(&Lone) -> f64| lones.iter().map(figure).collect::<Vec<_>>();
    report.figure("durable acks a second, pipelined", rates, "/s", Asked::AtLeast(50_000.0));
    report.figure("round trip of a lone client", of(|l| l.trip * 1000.0), "ms", Asked::Nothing);
    let bare = of(|l| l.bare * 1000.0);
    report.figure("  a bare write of 8 KiB and its sync, beside it", bare, "ms", Asked::Nothing);
    // A commit is one write and one sync; everything else in a round trip takes far less than the shortest timer.
    let more = of(|l| (l.trip - l.bare) * 1000.0);
    report.figure("  what the round trip has on top", more, "ms", Asked::AtMost(1.0));
    report.figure("  commits a submit", of(|l| l.commits), "", Asked::AtMost(1.05));
}

/// Results of a client that waits for each ack: medians in seconds.
pub struct Lone {
    /// From a submit to its ack.
    pub trip: f64,
    /// The least that a durable write takes.
    pub bare: f64,
    /// Commits per submit.
    pub commits: f64,
}

/// Submits [`LONE`] PINs with numbers from `from` on, one after the other.
pub fn lone(home: &Home, metrics: SocketAddr, from: u64) -> Lone {
    let counted = || sum("pinwatch_store_commit_duration_seconds_count", &scrape(metrics));
    let before = counted();
    let mut stream = UnixStream::connect(home.socket()).expect("the socket");
    let mut answers = BufReader::new(stream.try_clone().expect("the socket"));
    let mut file = File::create(home.at("bare")).expect("a file");
    let (mut trips, mut bares, mut line) = (Vec::new(), Vec::new(), String::new());
    for n in from..from + LONE {
        let begun = Instant::now();
        stream.write_all(format!("{}\n", pin(n)).as_bytes()).expect("a submit");
        line.clear();
        answers.read_line(&mut line).expect("an ack");
        trips.push(begun.elapsed().as_secs_f64());
        assert!(line.contains("accepted"), "{line}");
        let begun = Instant::now();
        file.write_all(&[1; 8192]).and_then(|()| file.sync_data()).expect("a sync");
        bares.push(begun.elapsed().as_secs_f64());
    }
    [&mut trips, &mut bares].into_iter().for_each(|times| times.sort_by(f64::total_cmp));
    let middle = trips.len() / 2;
    Lone { trip: trips[middle], bare: bares[middle], commits: (counted() - before) / LONE as f64 }
}
