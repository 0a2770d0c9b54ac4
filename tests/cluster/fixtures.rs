//! What the other tests here stand on does what it says.

use crate::common::postgres::Postgres;

#[test]
fn a_server_keeps_what_was_committed_over_an_immediate_restart_and_ends_with_its_owner() {
    let Some(server) = Postgres::launch() else { return };
    let database = server.database();
    database.execute("CREATE TABLE t (a int, b text)");
    database.execute("INSERT INTO t VALUES (1, 'x'), (2, NULL)");
    server.restart_immediately();
    assert_eq!(database.query("SELECT * FROM t ORDER BY a"), [["1", "x"], ["2", ""]]);
    server.stop();
    assert!(!database.answers());
    server.start();
    assert_eq!(database.count("SELECT count(*) FROM t"), 2);
    drop(server);
    assert!(!database.answers());
}

#[test]
fn databases_of_a_shared_server_are_apart() {
    let Some(server) = Postgres::shared() else { return };
    let (one, other) = (server.database(), server.database());
    one.execute("CREATE TABLE t (a int)");
    assert_eq!(other.one("SELECT to_regclass('t') IS NULL"), "t");
    assert_ne!(one.url(), other.url());
}
