//! Two daemons in one place: the second one reports it, and the first one is not disturbed.

use std::os::unix::net::{UnixListener, UnixStream};

use serde_json::json;

use crate::support::{Place, Simulated};

#[test]
fn a_second_daemon_on_the_same_database_is_refused_with_the_reason() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    daemon.client().submit("sim-waiting-1");
    let other = Place::new(&api.base_url());
    let other = other.set("store.url", &format!("sqlite:{}", daemon.place.store().display()));
    let ended = other.refusal();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("another pinwatch uses the database"), "{}", ended.stderr);
    assert!(ended.stderr.contains(daemon.place.store().to_str().unwrap()), "{}", ended.stderr);
    assert!(!other.socket().exists() && !other.results().exists());
    assert_eq!(daemon.client().submit("sim-delivered-1"), "accepted");
    assert_eq!(daemon.client().outcome("sim-delivered-1")["outcome"], "final");
    assert_eq!(daemon.client().stats()["inFlight"], 1);
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused_with_the_reason() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    let other = Place::new(&api.base_url()).set("intake.socket", daemon.place.socket().to_str().unwrap());
    for _ in 0..2 {
        let ended = other.refusal();
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains("another daemon listens at"), "{}", ended.stderr);
        assert!(ended.stderr.contains(daemon.place.socket().to_str().unwrap()), "{}", ended.stderr);
        assert_eq!(daemon.client().op(&json!({"op": "ping"}))["ok"], true);
    }
    daemon.terminate();
}

#[test]
fn the_socket_of_a_killed_daemon_is_replaced() {
    let api = Simulated::start();
    let place = Place::new(&api.base_url()).start().kill9();
    assert!(place.socket().exists());
    let daemon = place.start();
    assert_eq!(daemon.client().submit("sim-delivered-1"), "accepted");
}

#[test]
fn a_daemon_that_ends_does_not_remove_the_socket_of_its_successor() {
    let api = Simulated::start();
    let first = Place::new(&api.base_url()).start();
    let (path, folder) = (first.place.socket(), tempfile::tempdir().unwrap());
    // Not a daemon, which would recreate its socket within seconds.
    let successor = folder.path().join("successor.sock");
    let _successor = UnixListener::bind(&successor).unwrap();
    std::fs::rename(&successor, &path).unwrap();
    let _place = first.terminate();
    UnixStream::connect(&path).expect("the socket is there, and its owner listens");
}
