//! Durable acks: pipelined, and of a client that waits for each.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use super::daemon::{Home, NEVER_DUE};
use super::metrics::{scrape, sum};
use super::nginx::free_address;
use super::report::{Asked, Report};
use super::submit::{pin, submit};

const PIPELINED: u64 = 200_000;
const LONE: u64 = 300;

pub fn measure(report: &mut Report, runs: usize) {
    let (mut rates, mut trips, mut bares, mut commits) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let metrics = free_address();
        let home = Home::new("http://127.0.0.1:9");
        let listen = format!("http.listen={metrics}");
        let _daemon = home.start(None, &[&NEVER_DUE[..], &[listen.as_str()]].concat());
        rates.push(PIPELINED as f64 / submit(&home.socket(), 0..PIPELINED).as_secs_f64());
        let counted = || sum("pinwatch_store_commit_duration_seconds_count", &scrape(metrics));
        let before = counted();
        let (trip, bare) = lone(&home);
        trips.push(trip * 1000.0);
        bares.push(bare * 1000.0);
        commits.push((counted() - before) / LONE as f64);
    }
    report.figure("durable acks a second, pipelined", rates, "/s", Asked::AtLeast(50_000.0));
    report.figure("round trip of a lone client", trips.clone(), "ms", Asked::Nothing);
    report.figure("  a bare write of 8 KiB and its sync, beside it", bares.clone(), "ms", Asked::Nothing);
    // One commit is one write and one sync, and what else a round trip needs is far below the least timer.
    let more = trips.iter().zip(&bares).map(|(trip, bare)| trip - bare).collect();
    report.figure("  what the round trip has on top", more, "ms", Asked::AtMost(1.0));
    report.figure("  commits a submit", commits, "", Asked::AtMost(1.05));
}

/// Medians in seconds: of a submit until its ack, and of the least that can be durable.
fn lone(home: &Home) -> (f64, f64) {
    let mut stream = UnixStream::connect(home.socket()).expect("the socket");
    let mut answers = BufReader::new(stream.try_clone().expect("the socket"));
    let mut file = File::create(home.at("bare")).expect("a file");
    let (mut trips, mut bares, mut line) = (Vec::new(), Vec::new(), String::new());
    for n in PIPELINED..PIPELINED + LONE {
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
    (trips[trips.len() / 2], bares[bares.len() / 2])
}
