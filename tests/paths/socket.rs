//! The socket's file is removed or replaced while the daemon runs; and where it may be.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use super::{place, readiness, skipped};
use crate::support::{Client, Daemon, Place, Simulated, program, sim_pins, submit, until};

/// The daemon of this place, with its socket at this path.
fn start_at(place: &Place, socket: &Path) -> Daemon {
    place.clone().set("intake.socket", socket.to_str().unwrap()).start()
}

#[test]
fn a_removed_socket_is_recreated_with_its_mode_and_open_connections_stay() {
    let api = Simulated::start();
    let place = place(&api.base_url());
    let socket = place.folder.path().join("run/pinwatch.sock");
    let daemon = start_at(&place, &socket);
    let mut client = daemon.client();
    let removals: [fn(&Path); 2] = [
        |socket| fs::remove_file(socket).unwrap(),
        |socket| fs::remove_dir_all(socket.parent().unwrap()).unwrap(),
    ];
    for (done, remove) in removals.iter().enumerate() {
        remove(&socket);
        let mut new = until("it is reachable again", || Client::try_connect(&socket).ok());
        assert_eq!(submit(&mut new, &sim_pins("waiting", 1))[0]["ok"], true);
        assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(submit(&mut client, &sim_pins("waiting", 1))[0]["ok"], true, "the old connection stays");
        until("it is ready", || (readiness(&daemon).0 == "ready").then_some(()));
        assert_eq!(daemon.times_logged("it was created again"), done + 1, "{}", daemon.log());
    }
    drop(client);
    daemon.terminate();
    assert!(!socket.exists(), "the new one is removed as the first would have been");
}

#[test]
fn a_socket_that_another_daemon_took_is_reported_and_not_stolen() {
    let api = Simulated::start();
    let place = place(&api.base_url());
    let daemon = place.start();
    let other = place.folder.path().join("other.sock");
    let listener = UnixListener::bind(&other).unwrap();
    fs::rename(&other, place.socket()).unwrap();
    let told = until("it is reported", || {
        let (status, reasons) = readiness(&daemon);
        let reason = reasons.into_iter().find(|(code, _)| code == "socket_lost")?;
        (status == "not_ready").then_some(reason.1)
    });
    assert!(told.contains("another daemon listens at"), "{told}");
    assert!(told.contains(place.socket().to_str().unwrap()), "{told}");
    drop(Client::try_connect(&place.socket()).expect("the other one still listens"));

    // Nor is anything else that somebody put there.
    drop(listener);
    fs::write(place.folder.path().join("mine"), "mine").unwrap();
    fs::rename(place.folder.path().join("mine"), place.socket()).unwrap();
    until("it is reported", || {
        readiness(&daemon).1.iter().any(|(_, what)| what.contains("is not a socket")).then_some(())
    });
    assert_eq!(fs::read_to_string(place.socket()).unwrap(), "mine");

    fs::remove_file(place.socket()).unwrap();
    until("it is ready", || (readiness(&daemon).0 == "ready").then_some(()));
    assert_eq!(submit(&mut daemon.client(), &sim_pins("waiting", 1))[0]["ok"], true);
    assert_eq!(daemon.times_logged("clients reach the socket again"), 1, "{}", daemon.log());
    daemon.terminate();
}

#[test]
fn a_socket_path_longer_than_107_bytes_is_refused_by_check_config_and_the_daemon() {
    let api = Simulated::start();
    let place = place(&api.base_url());
    let path = |bytes: usize| {
        let short = place.folder.path().join("x");
        place.folder.path().join("x".repeat(bytes - short.as_os_str().len() + 1))
    };
    for bytes in [101, 102, 107, 108] {
        let socket = path(bytes);
        assert_eq!(socket.as_os_str().len(), bytes);
        let set = format!("intake.socket={}", socket.display());
        let mut check = program();
        check.env("PINWATCH__API__KEY", "demo-key");
        check.arg("--config").arg(place.config()).args(["check-config", "--set", &set]);
        let checked = check.output().unwrap();
        if bytes <= 107 {
            assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
            let daemon = start_at(&place, &socket);
            assert_eq!(submit(&mut daemon.client(), &sim_pins("waiting", 1))[0]["ok"], true);
            daemon.terminate();
        } else {
            assert_eq!(checked.status.code(), Some(2));
            assert_eq!(place.clone().set("intake.socket", socket.to_str().unwrap()).refusal().code, Some(2));
        }
    }
}

#[test]
fn the_kernel_lists_the_socket_by_its_path_so_that_clean_up_tools_keep_it() {
    let api = Simulated::start();
    let place = place(&api.base_url());
    let socket = place.folder.path().join("run/pinwatch.sock");
    let daemon = start_at(&place, &socket);
    let listed = fs::read_to_string("/proc/net/unix").unwrap();
    assert!(listed.lines().any(|line| line.ends_with(&format!(" {}", socket.display()))), "{listed}");

    let dead = place.folder.path().join("run/dead.sock");
    drop(UnixListener::bind(&dead).unwrap());
    let rule = place.folder.path().join("clean.conf");
    fs::write(&rule, format!("d {} - - - 0\n", socket.parent().unwrap().display())).unwrap();
    match Command::new("systemd-tmpfiles").arg("--clean").arg(&rule).output() {
        Err(error) => skipped(&format!("systemd-tmpfiles can't be run: {error}")),
        Ok(output) => {
            assert!(!dead.exists(), "it cleans: {}", String::from_utf8_lossy(&output.stderr));
            assert!(socket.exists(), "it took the live socket");
        }
    }
    daemon.terminate();
}
