//! Measures nodes that share a PostgreSQL: whole lives, the take-over of a dead node's PINs, and what a PIN costs the database.
//!
//! PostgreSQL (14 or later) has Debian's settings except for its sockets, so every commit waits for the disk.

use super::lives::{self, Lived};
use super::postgres::{Database, Postgres};
use super::report::{Asked, Report};
use super::{database_work, takeover};

pub fn measure(report: &mut Report, runs: usize) {
    let Some(server) = Postgres::launch() else { return };
    // The tests' launcher sets a small value.
    let settings = server.database();
    settings.execute("ALTER SYSTEM RESET shared_buffers");
    server.restart_immediately();
    alive(report, &server, runs);
    takeover::measure(report, &server, runs);
    // The extension slows the server down, so it is loaded after everything that is timed.
    settings.execute("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'");
    server.restart_immediately();
    database_work::measure(report, &server);
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
    lives::measured(nodes, &[&store(&server.database())], false)
}

/// The setting that makes nodes share this database.
pub fn store(database: &Database) -> String {
    format!("store.url={}", database.url())
}
