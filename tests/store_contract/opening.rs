//! Opening a PostgreSQL: every node creates missing tables, and a foreign or inaccessible database is refused
//! with a message and left unchanged.

use std::time::Duration;

use pinwatch::clock::Clock;
use pinwatch::store::postgres::open;

use super::place::Place;
use crate::support::postgres::{Database, PASSWORD, USER};

fn database() -> Option<Database> {
    match Place::postgres()? {
        Place::Postgres(database) => Some(database),
        Place::Sqlite(_) => None,
    }
}

/// The error for a database that can't be opened.
async fn refusal(url: &str) -> String {
    let url = url.to_owned().into();
    let said = open(&url, "postgres://***@db/x", "a".into(), Duration::from_secs(5), &Clock::system())
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(!said.contains("pg-secret") && !said.contains("geheim") && !said.contains('\n'), "{said}");
    said
}

#[tokio::test]
async fn nodes_that_start_together_on_an_empty_database_create_its_tables_once() {
    let Some(database) = database() else { return };
    let url = database.url().into();
    let clock = Clock::system();
    let open = || open(&url, "shown", "a".into(), Duration::from_secs(5), &clock);
    let (one, two, three) = tokio::join!(open(), open(), open());
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
    assert_eq!(database.count("SELECT count(*) FROM slot"), 256);
}

#[tokio::test]
async fn nodes_that_start_together_on_older_tables_build_their_indexes_once_and_whole() {
    let Some(database) = database() else { return };
    let url = database.url().into();
    let clock = Clock::system();
    let open = || open(&url, "shown", "a".into(), Duration::from_secs(5), &clock);
    open().await.map(drop).unwrap();
    database.execute("DROP INDEX pin_by_reference");
    database.execute("DROP INDEX outcome_by_reference");
    database.execute("DELETE FROM _sqlx_migrations WHERE version = 7");
    database.execute(
        "INSERT INTO outcome (seq, lane, pin_id, finished_at, record) SELECT n, 1, 'P', n, '{}' FROM generate_series(1, 9) n",
    );
    // Fails, and leaves what an interrupted build leaves.
    assert!(!database.try_execute("CREATE UNIQUE INDEX CONCURRENTLY outcome_by_reference ON outcome (lane)"));
    let invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
    assert_eq!(database.count(invalid), 1);
    let (one, two, three) = tokio::join!(open(), open(), open());
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
    assert_eq!(database.count(invalid), 0);
    let built = "SELECT count(*) FROM pg_indexes WHERE indexname LIKE '%_by_reference' AND indexdef LIKE '%hashtext%'";
    assert_eq!(database.count(built), 2);
    assert_eq!(database.count("SELECT max(version) FROM _sqlx_migrations"), 7);
}

#[tokio::test]
async fn a_user_whom_the_database_refuses_gets_an_error_without_the_password() {
    let Some(database) = database() else { return };
    let url = database.url();
    let refused = "the database postgres://***@db/x does not let this user in: ";
    let said = refusal(&url.replace(PASSWORD, "geheim")).await;
    assert!(said.starts_with(refused) && said.contains("password authentication failed"), "{said}");
    let said = refusal(&format!("{url}_not_there")).await;
    assert!(said.starts_with(refused) && said.contains("does not exist"), "{said}");
    database.execute("CREATE ROLE many LOGIN PASSWORD 'geheim' CONNECTION LIMIT 0");
    let said = refusal(&url.replace(&format!("{USER}:{PASSWORD}"), "many:geheim")).await;
    assert!(said.starts_with("the database postgres://***@db/x has no free connection (too many"), "{said}");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let said = refusal(&database.url_through(port)).await;
    assert!(said.starts_with("can't reach the database postgres://***@db/x: Connection refused"), "{said}");
    let said = refusal(&format!("{url}?sslmode=require")).await;
    assert!(said.contains("TLS"), "{said}");
    let said = refusal(&format!("{url}?sslmode=odd")).await;
    assert!(said.starts_with("store.url: ") && said.contains("odd"), "{said}");
}

#[tokio::test]
async fn a_user_without_rights_gets_an_error_that_names_the_missing_right() {
    let Some(database) = database() else { return };
    database.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    database.execute("CREATE ROLE guest LOGIN PASSWORD 'geheim'");
    let said = refusal(&database.url().replace(&format!("{USER}:{PASSWORD}"), "guest:geheim")).await;
    assert!(
        said.starts_with("the user of the database postgres://***@db/x lacks a right: permission denied"),
        "{said}"
    );
}

#[tokio::test]
async fn a_database_of_a_newer_version_or_another_program_is_left_unchanged() {
    let Some(newer) = database() else { return };
    open(&newer.url().into(), "shown", "a".into(), Duration::from_secs(5), &Clock::system())
        .await
        .map(drop)
        .unwrap();
    newer.execute("INSERT INTO _sqlx_migrations VALUES (99, 'later', now(), true, '', 0)");
    let said = refusal(&newer.url()).await;
    assert!(said.contains("was written by a newer pinwatch (schema 99, this one knows "), "{said}");

    let Some(foreign) = database() else { return };
    foreign.execute("CREATE SCHEMA pinwatch CREATE TABLE pin (number integer)");
    let said = refusal(&foreign.url()).await;
    assert!(said.contains("has tables that are not pinwatch's") && said.contains("pin"), "{said}");
    assert_eq!(foreign.query("SELECT tablename FROM pg_tables WHERE schemaname = 'pinwatch'"), [["pin"]]);
}
