//! Measures how soon the other nodes take over the PINs of a dead node.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::cluster::store;
use super::daemon::{Daemon, Home, every};
use super::metrics::{scrape, sum};
use super::postgres::Postgres;
use super::report::{Asked, Report};
use super::stand_in::StandIn;
use super::submit::submit;

/// About how many PINs the dying node has; each of the others has as many.
const ORPHANS: u64 = 100_000;
const NODES: u64 = 3;
const TIMEOUT: Duration = Duration::from_secs(60);

/// Measures how long after the end of a dead node's lease the others have its PINs.
pub fn measure(report: &mut Report, server: &Postgres, runs: usize) {
    let runs: Vec<_> = (0..runs).map(|_| orphaned(server)).collect();
    let of = |n: usize| runs.iter().map(|run| run[n]).collect::<Vec<_>>();
    report.figure("a dead node's 100,000 PINs: its slots taken", of(0), "s", Asked::Nothing);
    report.figure("  and all of them loaded", of(1), "s", Asked::AtMost(3.0));
}

fn orphaned(server: &Postgres) -> [f64; 2] {
    // As in real use, PINs are polled meanwhile: some thousands a second.
    let api = StandIn::start(Duration::ZERO, None, None);
    let database = server.database();
    let (url, often) = (store(&database), every("60s"));
    let homes: Vec<Home> = (0..NODES).map(|_| Home::new(&api.base_url)).collect();
    let often = often.each_ref().map(String::as_str);
    let start = |home: &Home| home.start_observed(&[&often[..], &[&url]].concat());
    let mut nodes: Vec<(Daemon, SocketAddr)> = homes.iter().map(start).collect();
    until("every node has its share", || {
        // The shares of the 256 slots are 86, 85 and 85.
        let shares =
            "SELECT count(*) FROM (SELECT 1 FROM slot GROUP BY node HAVING count(*) IN (85, 86)) AS share";
        database.count(shares) == NODES as i64
    });
    let all = ORPHANS * NODES;
    for (node, home) in (0..NODES).zip(&homes) {
        submit(&home.socket(), node * ORPHANS..(node + 1) * ORPHANS);
    }
    let in_flight = |nodes: &[(Daemon, SocketAddr)]| -> f64 {
        nodes.iter().map(|(_, metrics)| sum("pinwatch_pins_in_flight", &scrape(*metrics))).sum()
    };
    until("every PIN is with its node", || in_flight(&nodes) == all as f64);
    let (mut dies, _) = nodes.remove(0);
    dies.process.kill();
    // The node that died was the first to register. The database's clock is this machine's clock.
    let ends: f64 = database
        .one("SELECT extract(epoch FROM lease_until) FROM node ORDER BY id LIMIT 1")
        .parse()
        .expect("a time");
    let after = || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time");
        now.as_secs_f64() - ends
    };
    until("its slots are taken", || {
        database.count("SELECT count(*) FROM slot WHERE node = (SELECT min(id) FROM node)") == 0
    });
    let taken = after();
    until("its PINs are loaded", || in_flight(&nodes) == all as f64);
    [taken, after()]
}

fn until(what: &str, enough: impl Fn() -> bool) {
    let patience = Instant::now() + TIMEOUT;
    while !enough() {
        assert!(Instant::now() < patience, "not within {TIMEOUT:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
