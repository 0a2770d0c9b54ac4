//! Tests of the helpers of the cluster tests.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::cluster::proxy::Proxy;
use crate::support::postgres::Postgres;

#[test]
fn a_test_server_keeps_commits_over_an_immediate_restart_and_stops_with_its_owner() {
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
fn databases_of_a_shared_server_are_separate() {
    let Some(server) = Postgres::shared() else { return };
    let (one, other) = (server.database(), server.database());
    one.execute("CREATE TABLE t (a int)");
    assert_eq!(other.one("SELECT to_regclass('t') IS NULL"), "t");
    assert_ne!(one.url(), other.url());
}

#[test]
fn a_cut_connection_delivers_its_bytes_after_it_is_restored() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap().port());
    let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let mut bytes = [0; 5];
    client.write_all(b"first").unwrap();
    server.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"first");

    proxy.cut();
    client.write_all(b"later").unwrap();
    server.set_nonblocking(true).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(server.read(&mut bytes).unwrap_err().kind(), ErrorKind::WouldBlock);
    proxy.heal();
    server.set_nonblocking(false).unwrap();
    server.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"later");

    proxy.reset();
    assert!(matches!(client.read(&mut bytes), Ok(0) | Err(_)));
    assert!(matches!(server.read(&mut bytes), Ok(0) | Err(_)));
}
