//! Nodes that share a PostgreSQL: whole lives, what a PIN costs the database, and the PINs of a node that dies.
//!
//! PostgreSQL is as it comes from Debian, but for its sockets: every commit waits for the disk.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;

use super::daemon::{Daemon, Home, NEVER_DUE, every};
use super::lives::{self, Lived, Lives};
use super::metrics::{scrape, sum};
use super::nginx::free_address;
use super::postgres::{Database, Postgres};
use super::report::{Asked, Report};
use super::stand_in::StandIn;
use super::submit::submit;

/// PINs that live while the database's work is counted.
const COUNTED: u64 = 50_000;

/// Time in which the database's work for polls alone is counted.
const POLLED: Duration = Duration::from_secs(6);
const POLLED_PINS: u64 = 20_000;

/// A session tells the server's statistics of its work with the first command a second later, and the keeper of the
/// lease has a command every 1.7 s.
const TOLD: Duration = Duration::from_secs(3);

/// PINs of the node that dies; each of the others has as many.
const ORPHANS: u64 = 100_000;
const NODES: u64 = 3;
const PATIENCE: Duration = Duration::from_secs(60);

pub fn measure(report: &mut Report, runs: usize) {
    let Some(server) = Postgres::launch() else { return };
    // Tests make it small.
    let server_wide = server.database();
    server_wide.execute("ALTER SYSTEM RESET shared_buffers");
    server.restart_immediately();
    alive(report, &server, runs);
    taken_over(report, &server, runs);
    // It costs the server something, so it comes after what is timed.
    server_wide.execute("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'");
    server.restart_immediately();
    counted(report, &server);
}

fn alive(report: &mut Report, server: &Postgres, runs: usize) {
    for (nodes, what, asked) in
        [(1, "whole lives a second, one node", Asked::AtLeast(5000.0)), (3, "  three nodes", Asked::Nothing)]
    {
        let runs: Vec<Lived> = (0..runs).map(|_| lives_of(server, nodes)).collect();
        let of = |figure: fn(&Lived) -> f64| runs.iter().map(figure).collect::<Vec<_>>();
        report.figure(what, of(|l| l.per_second), "/s", asked);
        report.figure("    commit, 99th percentile", of(|l| l.commit_p99 * 1000.0), "ms", Asked::Nothing);
        report.figure("    nodes' CPU seconds per 1,000 polls", of(|l| l.cpu_per_1000), "s", Asked::Nothing);
        report.figure("    lives in a commit", of(|l| l.per_commit), "", Asked::Nothing);
    }
}

fn lives_of(server: &Postgres, nodes: usize) -> Lived {
    let database = server.database();
    let url = store(&database);
    lives::measured(&|base_url| (0..nodes).map(|_| Home::new(base_url)).collect(), &[&url])
}

fn store(database: &Database) -> String {
    format!("store.url={}", database.url())
}

/// Statements, and rows inserted, changed or deleted.
#[derive(Clone, Copy)]
struct Work {
    statements: f64,
    rows: f64,
    log: f64,
}

impl Work {
    /// All that was done in a database since [`Work::begin`].
    fn done(database: &Database) -> Self {
        thread::sleep(TOLD);
        let number = |sql: &str| database.one(sql).parse::<f64>().expect("a number");
        Self {
            statements: number(
                "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements JOIN pg_database ON oid = dbid \
                 WHERE datname = current_database()",
            ),
            rows: number("SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables"),
            log: number("SELECT pg_current_wal_insert_lsn() - '0/0'"),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            statements: self.statements - before.statements,
            rows: self.rows - before.rows,
            log: self.log - before.log,
        }
    }
}

/// A database whose statements are counted.
fn observed(server: &Postgres) -> Database {
    let database = server.database();
    database.execute("CREATE EXTENSION pg_stat_statements");
    database
}

/// Counts what does not depend on how fast the machine is just now.
fn counted(report: &mut Report, server: &Postgres) {
    let three = work_of_lives(server, 3, "278ms");
    let twelve = work_of_lives(server, 12, "69500us");
    let each = |work: f64| vec![work / COUNTED as f64];
    report.figure("rows changed per PIN, 3 polls each", each(three.rows), "", Asked::AtMost(3.1));
    report.figure("  12 polls each, to that", vec![twelve.rows / three.rows], "", Asked::AtMost(1.05));
    report.figure("statements per PIN, 3 polls each", each(three.statements), "", Asked::AtMost(1.0));
    report.figure("  12 polls each", each(twelve.statements), "", Asked::AtMost(1.0));
    report.figure("write-ahead log per PIN", each(three.log), "bytes", Asked::Nothing);

    let api = StandIn::start(Duration::ZERO, None, None);
    let database = observed(server);
    let (home, url) = (Home::new(&api.base_url), store(&database));
    let watch = |metrics: SocketAddr| {
        let before = (Work::done(&database), sum("pinwatch_polls_total", &scrape(metrics)));
        thread::sleep(POLLED);
        let polls = sum("pinwatch_polls_total", &scrape(metrics)) - before.1;
        (Work::done(&database).since(before.0), polls)
    };
    let start = |settings: &[&str]| {
        let metrics = free_address();
        let listen = format!("http.listen={metrics}");
        (home.start(None, &[settings, &[url.as_str(), listen.as_str()]].concat()), metrics)
    };
    let (mut daemon, metrics) = start(&NEVER_DUE);
    submit(&home.socket(), 0..POLLED_PINS);
    let (waiting, _) = watch(metrics);
    daemon.process.end(Signal::TERM);
    let (_daemon, metrics) = start(&every("2s").each_ref().map(String::as_str));
    let (polling, polls) = watch(metrics);
    let seconds = POLLED.as_secs_f64();
    report.figure("polls a second that end no PIN", vec![polls / seconds], "/s", Asked::Nothing);
    let each_second = |work: f64| vec![work / seconds];
    report.figure("  statements a second meanwhile", each_second(polling.statements), "/s", Asked::Nothing);
    report.figure("  with no poll", each_second(waiting.statements), "/s", Asked::Nothing);
    let more = |with: f64, without: f64| vec![(with - without).max(0.0) / polls];
    report.figure(
        "  statements per poll",
        more(polling.statements, waiting.statements),
        "",
        Asked::AtMost(0.001),
    );
    report.figure("  rows changed per poll", more(polling.rows, waiting.rows), "", Asked::AtMost(0.001));
}

fn work_of_lives(server: &Postgres, polls: u8, interval: &str) -> Work {
    let api = StandIn::start(Duration::ZERO, Some(polls), None);
    let database = observed(server);
    let (home, url, often) = (Home::new(&api.base_url), store(&database), every(interval));
    let [a, b, c] = often.each_ref().map(String::as_str);
    let _daemon = home.start(None, &[a, b, c, &url]);
    let before = Work::done(&database);
    let mut lives = Lives::new(std::slice::from_ref(&home));
    lives.run(|lives| lives.submitted >= COUNTED);
    lives.drain();
    let work = Work::done(&database).since(before);
    assert!(lives.submitted < COUNTED + COUNTED / 10);
    work
}

/// How long after the end of a dead node's lease the others have its PINs.
fn taken_over(report: &mut Report, server: &Postgres, runs: usize) {
    let runs: Vec<_> = (0..runs).map(|_| orphaned(server)).collect();
    let of = |n: usize| runs.iter().map(|run| run[n]).collect::<Vec<_>>();
    report.figure("a dead node's 100,000 PINs: its slots taken", of(0), "s", Asked::Nothing);
    report.figure("  and all of them loaded", of(1), "s", Asked::AtMost(3.0));
}

fn orphaned(server: &Postgres) -> [f64; 2] {
    // PINs are polled meanwhile, as they would be: some thousands a second.
    let api = StandIn::start(Duration::ZERO, None, None);
    let database = server.database();
    let (url, often) = (store(&database), every("60s"));
    let homes: Vec<Home> = (0..NODES).map(|_| Home::new(&api.base_url)).collect();
    let start = |home: &Home| {
        let metrics = free_address();
        let listen = format!("http.listen={metrics}");
        let [a, b, c] = often.each_ref().map(String::as_str);
        (home.start(None, &[a, b, c, &url, &listen]), metrics)
    };
    let mut nodes: Vec<(Daemon, SocketAddr)> = homes.iter().map(start).collect();
    until("every node has its share", || {
        database.count("SELECT count(DISTINCT node) FROM slot WHERE node IS NOT NULL") == NODES as i64
            && database
                .count("SELECT max(n) - min(n) FROM (SELECT count(*) AS n FROM slot GROUP BY node) AS s")
                <= 1
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
    // It was the first to register. The database's clock is this machine's.
    let ends: f64 = database
        .one("SELECT extract(epoch FROM lease_until) FROM node ORDER BY id LIMIT 1")
        .parse()
        .expect("a time");
    let after = || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time");
        now.as_secs_f64() - ends
    };
    until("its slots are taken", || {
        database.count("SELECT count(*) FROM slot JOIN node ON node.id = slot.node WHERE node.id = (SELECT min(id) FROM node)") == 0
    });
    let taken = after();
    until("its PINs are loaded", || in_flight(&nodes) == all as f64);
    [taken, after()]
}

fn until(what: &str, enough: impl Fn() -> bool) {
    let patience = Instant::now() + PATIENCE;
    while !enough() {
        assert!(Instant::now() < patience, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
