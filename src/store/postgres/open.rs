//! Opening the database: whether it can be reached, whether it is ours, whether we know its schema.

use secrecy::SecretString;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Connection, PgConnection};
use std::time::Duration;

use super::Node;
use super::connect::Server;
use super::error::{OpenError, judge};
use super::membership::Membership;
use super::schema;
use crate::clock::Clock;

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/postgres/migrations");

/// The oldest server that this works with, as `server_version_num` has it.
const OLDEST: u32 = 130_000;

/// Connects, and brings the schema up to date: several nodes may do so at once. Nothing is registered yet. The clock goes on
/// from what the nodes know of the time when this one registers.
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
    // Closing can't fail in a way that matters.
    let _ = connection.close().await;
    Ok(Membership::new(server, node, name, clock.clone()))
}

/// Connects for somebody who moves a store, and brings the schema up to date.
///
/// # Errors
/// As [`open`].
pub async fn open_to_move(url: &SecretString, shown: &str) -> Result<PgConnection, OpenError> {
    // Whoever moves a store is no node, and has no lease.
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
    let url = || server.shown.clone();
    let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
    let judge = |error| judge(&server.shown, error);
    let is_made: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .map_err(judge)?;
    if is_made {
        let found: i64 = sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations")
            .fetch_one(&mut *connection)
            .await
            .map_err(judge)?;
        if found > known {
            return Err(OpenError::Newer { url: url(), found, known });
        }
        // Nothing to do, and nothing to lock the other nodes out for.
        if found == known {
            return Ok(());
        }
    }
    MIGRATIONS.run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::VersionMissing(found) | MigrateError::VersionTooNew(found, _) => {
            OpenError::Newer { url: url(), found, known }
        }
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => judge(source),
        other => OpenError::Foreign { url: url(), what: other.to_string() },
    })
}
