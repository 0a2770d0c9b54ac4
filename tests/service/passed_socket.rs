//! Socket activation.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::Command;

use crate::http::served::get;
use crate::service::daemon::{Daemon, Start, ask, place};
use crate::support::not_run::not_run;
use crate::support::{Place, program, until_true, wrapped};

const CONFIG: &str = "api.key = \"k\"\napi.base_url = \"http://127.0.0.1:9\"\n";

#[test]
fn a_passed_socket_is_used_unchanged_and_stays_for_the_next_daemon() {
    let place = place();
    let path = place.path("pinwatch.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let socket = Some(listener.try_clone().unwrap().into());
    let mut first = Daemon::start(&place, Start { config: CONFIG, socket, ..Start::default() });
    assert_eq!(ask(&path, "A1")["state"], "accepted");
    assert_eq!(first.stop(), Some(0));
    assert!(path.exists());

    // While no daemon accepts, a client waits for the next one.
    let waiting = std::thread::spawn({
        let path = path.clone();
        move || ask(&path, "A1")
    });
    drop(first);
    let _second =
        Daemon::start(&place, Start { config: CONFIG, socket: Some(listener.into()), ..Start::default() });
    assert_eq!(waiting.join().unwrap()["state"], "duplicate");
}

#[test]
fn a_passed_socket_at_another_path_than_the_configured_one_is_reported() {
    let place = place();
    let elsewhere = place.path("other.sock");
    let socket = Some(UnixListener::bind(&elsewhere).unwrap().into());
    let daemon = Daemon::start(&place, Start { config: CONFIG, socket, ..Start::default() });
    assert_eq!(ask(&elsewhere, "A1")["state"], "accepted");
    daemon.until_logged("is not intake.socket");
    assert!(!daemon.socket().exists());
}

#[test]
fn a_passed_socket_whose_file_is_removed_is_reported_and_not_recreated() {
    let place = place();
    let path = place.path("pinwatch.sock");
    let socket = Some(UnixListener::bind(&path).unwrap().into());
    let mut daemon = Daemon::start(&place, Start { config: CONFIG, socket, ..Start::default() });
    daemon.notifications_until("READY=1");
    std::fs::remove_file(&path).unwrap();
    daemon.until_logged("restart what passed the socket");
    assert!(!path.exists());
    assert_eq!(daemon.stop(), Some(0));
}

/// A TCP socket that listens, and where.
fn tcp(address: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn a_passed_tcp_socket_serves_http_and_stays_over_a_reload_and_for_the_next_daemon() {
    let place = place();
    let (listener, address) = tcp("127.0.0.1:0");
    let start = || {
        let socket = Some(listener.try_clone().unwrap().into());
        Start { config: CONFIG, socket, socket_name: "http", ..Start::default() }
    };
    let is_alive = || get(address, "/healthz").is_some_and(|answer| answer.status == 200);
    let mut first = Daemon::start(&place, start());
    first.notifications_until("READY=1");
    assert!(is_alive());
    first.reload();
    assert!(is_alive());
    assert_eq!(first.stop(), Some(0));
    drop(first);

    // While no daemon accepts, a client waits for the next one.
    let waiting = std::thread::spawn(move || get(address, "/healthz").is_some());
    let _second = Daemon::start(&place, start());
    assert!(waiting.join().unwrap());
}

#[test]
fn a_passed_http_socket_must_be_tcp_and_secured_if_other_machines_reach_it() {
    let place = place();
    let start = |socket, config| {
        let start = Start { config, socket: Some(socket), socket_name: "http", ..Start::default() };
        Daemon::start(&place, start)
    };
    let mut open = start(tcp("0.0.0.0:0").0.into(), CONFIG);
    assert_eq!(open.ended(), Some(2), "{}", open.log());
    assert!(open.log().contains("http.allow_remote"), "{}", open.log());
    let allowed = format!("{CONFIG}http.allow_remote = true\n");
    let mut allowed = start(tcp("0.0.0.0:0").0.into(), &allowed);
    allowed.notifications_until("READY=1");
    assert_eq!(allowed.stop(), Some(0));
    let unix = UnixListener::bind(place.path("http.sock")).unwrap();
    let mut wrong = start(unix.into(), CONFIG);
    assert_eq!(wrong.ended(), Some(1), "{}", wrong.log());
    assert!(wrong.log().contains("HTTP needs a TCP socket"), "{}", wrong.log());
}

#[test]
fn systemd_can_pass_both_sockets_and_each_is_used_for_its_purpose() {
    if Command::new("systemd-socket-activate").arg("--version").output().is_err() {
        return not_run("both sockets passed by systemd", "systemd");
    }
    let place = Place::of(&format!(
        "store.url = \"sqlite:FOLDER/p.db\"\nintake.socket = \"FOLDER/p.sock\"\n{CONFIG}"
    ));
    let socket = place.path("p.sock");
    // Free a moment ago.
    let address = tcp("127.0.0.1:0").1;
    let mut daemon = program();
    daemon.arg("--config").arg(place.config()).arg("run");
    let mut activate = Command::new("systemd-socket-activate");
    activate.arg("--listen").arg(&socket).arg("--listen").arg(address.to_string());
    activate.args(["--fdname=pinwatch.socket:http"]);
    let _daemon = place.spawn_by(wrapped(activate, &daemon));
    until_true("it listens", || TcpStream::connect(address).is_ok());
    assert!(get(address, "/healthz").is_some_and(|answer| answer.status == 200));
    assert_eq!(ask(&socket, "A1")["state"], "accepted");
}
