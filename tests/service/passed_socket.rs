//! Socket activation.

use std::os::unix::net::UnixListener;

use crate::service::daemon::{Daemon, Start, ask, place};

const CONFIG: &str = "api.key = \"k\"\napi.base_url = \"http://127.0.0.1:9\"\n";

#[test]
fn a_passed_socket_is_used_as_it_is_and_stays_for_the_next_daemon() {
    let place = place();
    let path = place.path("pinwatch.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let socket = Some(listener.try_clone().unwrap());
    let mut first = Daemon::start(&place, Start { config: CONFIG, socket, ..Start::default() });
    assert_eq!(ask(&path, "A1")["state"], "accepted");
    assert_eq!(first.stop(), Some(0));
    assert!(path.exists());

    // While nobody accepts, who connects waits for the next one.
    let waiting = std::thread::spawn({
        let path = path.clone();
        move || ask(&path, "A1")
    });
    drop(first);
    let _second = Daemon::start(&place, Start { config: CONFIG, socket: Some(listener), ..Start::default() });
    assert_eq!(waiting.join().unwrap()["state"], "duplicate");
}

#[test]
fn a_passed_socket_that_is_somewhere_else_is_told_of() {
    let place = place();
    let elsewhere = place.path("other.sock");
    let socket = Some(UnixListener::bind(&elsewhere).unwrap());
    let daemon = Daemon::start(&place, Start { config: CONFIG, socket, ..Start::default() });
    assert_eq!(ask(&elsewhere, "A1")["state"], "accepted");
    daemon.until_said("is not intake.socket");
    assert!(!daemon.socket().exists());
}

#[test]
fn a_passed_socket_whose_file_is_removed_is_reported_and_not_made_anew() {
    let place = place();
    let path = place.path("pinwatch.sock");
    let socket = Some(UnixListener::bind(&path).unwrap());
    let mut daemon = Daemon::start(&place, Start { config: CONFIG, socket, ..Start::default() });
    daemon.told_until("READY=1");
    std::fs::remove_file(&path).unwrap();
    daemon.until_said("restart what passed the socket");
    assert!(!path.exists());
    assert_eq!(daemon.stop(), Some(0));
}
