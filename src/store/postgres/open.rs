//! Opens the database: checks that it can be reached, is pinwatch's and has a known schema.
//!
//! Promises not to change a database that it refuses. Knows nothing of leases but their length.

use secrecy::SecretString;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Connection, PgConnection};
use std::time::Duration;

use super::Node;
use super::connect::Server;
use super::error::{OpenError, judge};
use super::membership::Membership;
use super::{indexes, schema};
use crate::clock::Clock;

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/postgres/migrations");

/// The oldest server that is supported, as a `server_version_num`.
const OLDEST: u32 = 130_000;

/// Connects and migrates the schema; several nodes may do so at once. Does not register the node: the clock continues
/// from the nodes' anchors once it registers.
///
/// # Errors
/// The server can't be reached or used, or the database is not for this version.
pub async fn open(
    url: &SecretString,
    shown: &str,
    name: String,
    lease: Duration,
    clock: &Clock,
) -> Result<Membership, OpenError> {
    let judge = |error| judge(shown, error);
    let (server, mut connection) = open_up_to_date(url, shown, lease).await?;
    let in_flight: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pin").fetch_one(&mut connection).await.map_err(judge)?;
    let node = Node::default();
    node.set_in_flight(usize::try_from(in_flight).unwrap_or(0));
    // Closing can't lose anything.
    let _ = connection.close().await;
    Ok(Membership::new(server, node, name, clock.clone()))
}

/// Connects for moving a store, and migrates the schema.
///
/// # Errors
/// As [`open`].
pub async fn open_to_move(url: &SecretString, shown: &str) -> Result<PgConnection, OpenError> {
    // A move is not a node and has no lease.
    Ok(open_up_to_date(url, shown, Duration::ZERO).await?.1)
}

async fn open_up_to_date(
    url: &SecretString,
    shown: &str,
    lease: Duration,
) -> Result<(Server, PgConnection), OpenError> {
    let mut server = Server::new(url, shown, lease).map_err(OpenError::Url)?;
    let mut connection = server.connect_bare().await.map_err(|error| judge(shown, error))?;
    let found = connection.server_version_num().unwrap_or(OLDEST);
    if found < OLDEST {
        return Err(OpenError::TooOld { url: shown.to_owned(), found: found / 10_000 });
    }
    let schema = schema::settle(&mut connection, shown).await?;
    server.tables_are_in(&schema);
    server.greet(&mut connection).await.map_err(|error| judge(shown, error))?;
    migrate(&server, &mut connection).await?;
    Ok((server, connection))
}

async fn migrate(server: &Server, connection: &mut PgConnection) -> Result<(), OpenError> {
    let judge = |error| judge(&server.shown, error);
    if outdated(server, connection).await?.is_none() {
        return Ok(());
    }
    indexes::lock(connection).await.map_err(judge)?;
    // Another node may have migrated it meanwhile.
    let migrated = match outdated(server, connection).await? {
        Some(found) => migrate_from(found, server, connection).await,
        None => Ok(()),
    };
    migrated.and(indexes::unlock(connection).await.map_err(judge))
}

/// Returns the version of the schema, 0 if there are no tables; `None` if it is current, so that there is no need to lock out the
/// other nodes.
async fn outdated(server: &Server, connection: &mut PgConnection) -> Result<Option<i64>, OpenError> {
    let known = newest_schema();
    let judge = |error| judge(&server.shown, error);
    let is_made: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .map_err(judge)?;
    if !is_made {
        return Ok(Some(0));
    }
    let found: i64 = sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations")
        .fetch_one(connection)
        .await
        .map_err(judge)?;
    if found > known {
        return Err(OpenError::Newer { url: server.shown.clone(), found, known });
    }
    Ok(Some(found).filter(|found| *found < known))
}

async fn migrate_from(found: i64, server: &Server, connection: &mut PgConnection) -> Result<(), OpenError> {
    let url = || server.shown.clone();
    let known = newest_schema();
    let judge = |error| judge(&server.shown, error);
    if found > 0 {
        indexes::build_ahead(connection, found).await.map_err(judge)?;
    }
    MIGRATIONS.run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::VersionMissing(found) | MigrateError::VersionTooNew(found, _) => {
            OpenError::Newer { url: url(), found, known }
        }
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => judge(source),
        other => OpenError::Foreign { url: url(), what: other.to_string() },
    })
}

/// The newest schema that this version knows.
fn newest_schema() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}
