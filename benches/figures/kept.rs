//! Measures submits and whole lives while the store keeps many outcomes (`store.retention`): each submit checks whether its
//! PIN has an outcome already.

use std::time::Duration;

use ring::digest;
use rustix::process::Signal;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use super::daemon::Home;
use super::growth::{Grown, grown};
use super::lives;
use super::report::{Asked, Report};
use super::stand_in::StandIn;
use super::submit::pin;

const SIZES: [(u64, &str); 3] = [(100_000, "100,000"), (1_000_000, "1,000,000"), (10_000_000, "10,000,000")];

/// PINs of the kept outcomes have numbers from here on; no other PIN has.
const BEFORE: u64 = 1 << 40;

/// Rows per statement.
const CHUNK: usize = 20_000;

pub fn measure(report: &mut Report, runs: usize) {
    for (kept, words) in SIZES {
        let api = StandIn::start(Duration::ZERO, Some(lives::POLLS_A_LIFE), None);
        let home = filled(&api.base_url, kept);
        let runs: Vec<_> = (0..runs as u64).map(|run| grown(&home, run * (1 << 32))).collect();
        let of = |figure: fn(&Grown) -> f64| runs.iter().map(figure).collect::<Vec<_>>();
        report.figure(&format!("READY with {words} outcomes kept"), of(|b| b.ready), "s", Asked::AtMost(2.0));
        report.figure("  durable acks a second, pipelined", of(|b| b.acks), "/s", Asked::AtLeast(50_000.0));
        report.figure("  whole lives a second", of(|b| b.lives.per_second), "/s", Asked::AtLeast(12_000.0));
        let p99 = of(|b| b.lives.commit_p99 * 1000.0);
        report.figure("    commit, 99th percentile", p99, "ms", Asked::AtMost(50.0));
        let cpu = of(|b| b.lives.cpu_per_1000);
        report.figure("    CPU seconds per 1,000 polls", cpu, "s", Asked::AtMost(0.03));
        report.figure("    written to the disk per life", of(|b| b.lives.written), "bytes", Asked::Nothing);
    }
}

/// Returns the folder of a daemon that had this many outcomes and was stopped.
fn filled(base_url: &str, kept: u64) -> Home {
    let home = Home::new(base_url);
    home.start(None, &[]).process.end(Signal::TERM);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(fill(&home, kept)).expect("the store is filled");
    home
}

async fn fill(home: &Home, kept: u64) -> Result<(), sqlx::Error> {
    let options = SqliteConnectOptions::new().filename(home.at("pinwatch.db"));
    let options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Off);
    let mut connection = options.pragma("cache_size", "-500000").connect().await?;
    let pins = |from: u64| (from..=kept).map(|seq| (seq, pin(BEFORE + seq)));
    sqlx::query("BEGIN").execute(&mut connection).await?;
    let mut by_hash: Vec<(u64, u64)> = Vec::new();
    let mut from = 1;
    while from <= kept {
        let page: Vec<_> = pins(from).take(CHUNK).collect();
        by_hash.extend(page.iter().map(|(seq, pin)| (hash(pin), *seq)));
        write(
            &mut connection,
            "INSERT INTO outcome (seq, pin_id, finished_at, record) \
             SELECT value ->> 0, value ->> 1, unixepoch() * 1000, json_object( \
                 'seq', value ->> 0, 'id', printf('019ac000-0000-7000-8000-%012x', value ->> 0), 'pinId', value ->> 1, \
                 'outcome', 'final', 'status', 'MESSAGE_DELIVERED', 'description', 'Message sent and delivered', \
                 'delivered', json('true'), 'deliveries', json('[{\"status\":\"MESSAGE_DELIVERED\",\
                 \"description\":\"Message sent and delivered\",\"finalStatus\":true}]'), \
                 'submittedAt', '2026-11-25T19:00:00.000Z', 'finishedAt', '2026-11-25T19:00:05.000Z', 'polls', 3) \
             FROM json_each(?1)",
            &page,
        )
        .await?;
        from += CHUNK as u64;
    }
    by_hash.sort_unstable();
    for page in by_hash.chunks(CHUNK) {
        let sql = "INSERT INTO outcome_by_pin SELECT value ->> 0, value ->> 1 FROM json_each(?1)";
        write(&mut connection, sql, page).await?;
    }
    sqlx::query("UPDATE history SET indexed = (SELECT max(seq) FROM outcome)")
        .execute(&mut connection)
        .await?;
    sqlx::query("UPDATE sink SET cursor = (SELECT max(seq) FROM outcome)").execute(&mut connection).await?;
    sqlx::query("COMMIT").execute(&mut connection).await?;
    connection.close().await?;
    // Otherwise the disk is still writing during the measurement.
    rustix::fs::sync();
    Ok(())
}

async fn write(
    connection: &mut SqliteConnection,
    sql: &'static str,
    rows: &[impl serde::Serialize],
) -> Result<(), sqlx::Error> {
    let rows = serde_json::to_string(rows).expect("JSON");
    sqlx::query(sql).bind(rows).execute(connection).await.map(drop)
}

/// The hash that the store uses: the first 48 bits of the ID's SHA-256.
fn hash(pin: &str) -> u64 {
    let digest = digest::digest(&digest::SHA256, pin.as_bytes());
    digest.as_ref().iter().take(6).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}
