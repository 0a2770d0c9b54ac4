//! Builds the indexes that a migration adds to large tables before that migration runs, and has the lock for migrations.
//!
//! Promises that other nodes can write meanwhile, and that nodes which start at once build each index once. The starts of
//! the node that builds them, and of those that need them, wait. Knows nothing of what the indexes are for.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tokio::time::sleep;
use tracing::info;

/// The migrations whose every statement is `CREATE INDEX IF NOT EXISTS`, with their versions.
const BUILT_AHEAD: [(i64, &str); 1] = [(7, include_str!("migrations/0007_references.sql"))];

/// The advisory lock ("pinx") of the node that migrates.
const LOCK: i64 = 0x7069_6e78;

/// How long another node waits before it asks for the lock again. It must not wait within a statement, as sqlx's own
/// lock would make it: the build of an index waits for every statement that began before it, and so for ever.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Takes the lock of the node that migrates, once no other node has it.
pub async fn lock(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let ask = "SELECT pg_try_advisory_lock($1)";
    while !sqlx::query_scalar::<_, bool>(ask).bind(LOCK).fetch_one(&mut *connection).await? {
        sleep(ASK_AGAIN).await;
    }
    Ok(())
}

pub async fn unlock(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_unlock($1)").bind(LOCK).execute(connection).await.map(|_| ())
}

/// Builds the indexes of all migrations after the version `found`. The tables must exist, and this node has the lock.
pub async fn build_ahead(connection: &mut PgConnection, found: i64) -> Result<(), sqlx::Error> {
    let statements: Vec<&str> = BUILT_AHEAD
        .iter()
        .filter(|(version, _)| *version > found)
        .flat_map(|(_, sql)| sql.split(';'))
        .filter_map(|statement| statement.find("INDEX IF NOT EXISTS").map(|at| &statement[at..]))
        .collect();
    if statements.is_empty() {
        return Ok(());
    }
    info!("building indexes of the tables that are there already; other nodes can write meanwhile");
    build(connection, &statements).await
}

async fn build(connection: &mut PgConnection, statements: &[&str]) -> Result<(), sqlx::Error> {
    // An interrupted build leaves these: PostgreSQL maintains them, but does not use them.
    let unfinished: Vec<String> = sqlx::query_scalar(
        "SELECT indexrelid::regclass::text FROM pg_index \
         WHERE NOT indisvalid AND indrelid IN (to_regclass('pin'), to_regclass('outcome'))",
    )
    .fetch_all(&mut *connection)
    .await?;
    // Not the index that somebody else is building.
    let is_ours = |index: &String| statements.iter().any(|sql| sql.contains(&format!(" {index} ")));
    for index in unfinished.into_iter().filter(is_ours) {
        connection.execute(AssertSqlSafe(format!("DROP INDEX CONCURRENTLY IF EXISTS {index}"))).await?;
    }
    for statement in statements {
        let concurrently = statement.replacen("INDEX", "INDEX CONCURRENTLY", 1);
        connection.execute(AssertSqlSafe(format!("CREATE {concurrently}"))).await?;
    }
    Ok(())
}
