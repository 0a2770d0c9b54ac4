//! Counts what a PIN and a poll cost the shared database; counts are the same on a loaded machine.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::cluster::store;
use super::daemon::{Home, NEVER_DUE, every};
use super::lives::Lives;
use super::metrics::{scrape, sum};
use super::postgres::{Database, Postgres};
use super::process::family_cpu;
use super::report::{Asked, Report};
use super::stand_in::StandIn;
use super::submit::submit;

/// How many PINs are submitted and end while the database's work is counted.
const COUNTED: u64 = 50_000;

/// How long the database's work for polls alone is counted.
const POLLED: Duration = Duration::from_secs(6);
const POLLED_PINS: u64 = 20_000;

/// PostgreSQL's statistics lag: a session reports its work with the first command that comes a second later, and the session
/// that renews the lease sends a command every 1.7 s.
const TOLD: Duration = Duration::from_secs(3);

/// The work of a database.
#[derive(Clone, Copy)]
struct Work {
    statements: f64,
    /// Rows inserted, changed or deleted.
    rows: f64,
    /// Bytes of the server's write-ahead log.
    log: f64,
    /// How often the server synced its write-ahead log to the disk.
    syncs: f64,
    /// Processor time of the whole server, in seconds.
    cpu: f64,
    /// Bytes of the outcomes, with their indexes.
    outcomes: f64,
}

impl Work {
    /// Returns the database's work so far, as the server counts it.
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
            syncs: number("SELECT wal_sync FROM pg_stat_wal"),
            cpu: family_cpu(database.count("SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)"))
                .as_secs_f64(),
            outcomes: number("SELECT pg_total_relation_size('outcome')"),
        }
    }

    fn since(self, before: Self) -> Self {
        self.with(before, |after, before| after - before)
    }

    fn each_of(self, count: f64) -> Self {
        self.with(self, |work, _| work / count)
    }

    fn with(self, other: Self, figure: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            statements: figure(self.statements, other.statements),
            rows: figure(self.rows, other.rows),
            log: figure(self.log, other.log),
            syncs: figure(self.syncs, other.syncs),
            cpu: figure(self.cpu, other.cpu),
            outcomes: figure(self.outcomes, other.outcomes),
        }
    }
}

/// Creates a database whose statements are counted.
fn observed(server: &Postgres) -> Database {
    let database = server.database();
    database.execute("CREATE EXTENSION pg_stat_statements");
    database
}

pub fn measure(report: &mut Report, server: &Postgres) {
    of_lives(report, server);
    of_polls(report, server);
}

fn of_lives(report: &mut Report, server: &Postgres) {
    let three = work_of_lives(server, 3, "278ms");
    let twelve = work_of_lives(server, 12, "69500us");
    report.figure("rows changed per PIN, 3 polls each", vec![three.rows], "", Asked::Nothing);
    report.figure("  12 polls each, to that", vec![twelve.rows / three.rows], "", Asked::AtMost(1.05));
    report.figure("statements per PIN, 3 polls each", vec![three.statements], "", Asked::Nothing);
    report.figure("  12 polls each", vec![twelve.statements], "", Asked::Nothing);
    report.figure("PostgreSQL's CPU per PIN", vec![three.cpu * 1e6], "µs", Asked::Nothing);
    report.figure("write-ahead log per PIN", vec![three.log], "bytes", Asked::Nothing);
    report.figure("  PINs in a sync of it", vec![1.0 / three.syncs], "", Asked::Nothing);
    report.figure("an outcome on the disk, with its indexes", vec![three.outcomes], "bytes", Asked::Nothing);
}

/// Measures what polls that end no PIN cost, compared with PINs that are not polled.
fn of_polls(report: &mut Report, server: &Postgres) {
    let api = StandIn::start(Duration::ZERO, None, None);
    let database = observed(server);
    let (home, url) = (Home::new(&api.base_url), store(&database));
    let watch = |metrics: SocketAddr| {
        let look = || (Work::done(&database), sum("pinwatch_polls_total", &scrape(metrics)));
        let before = look();
        thread::sleep(POLLED - TOLD);
        let after = look();
        (after.0.since(before.0), after.1 - before.1)
    };
    let start = |settings: &[&str]| home.start_observed(&[settings, &[url.as_str()]].concat());
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

/// Returns the database's work per life.
fn work_of_lives(server: &Postgres, polls: u8, interval: &str) -> Work {
    let api = StandIn::start(Duration::ZERO, Some(polls), None);
    let database = observed(server);
    let (home, url, often) = (Home::new(&api.base_url), store(&database), every(interval));
    let [a, b, c] = often.each_ref().map(String::as_str);
    let _daemon = home.start(None, &[a, b, c, &url]);
    let before = Work::done(&database);
    let mut lives = Lives::new(std::slice::from_ref(&home), 0);
    lives.run(|lives| lives.submitted >= COUNTED);
    lives.drain();
    Work::done(&database).since(before).each_of(lives.submitted as f64)
}
