//! Each user has a share of the connections, and an administrator always gets in. Needs root, to be several users.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::support::{Child, Daemon, Ended, Place, isolate, run_to_end, until_true};

const ALICE: u32 = 4001;
const BOB: u32 = 4002;

/// A daemon whose socket every user may use; prints a message and returns `None` if this process can't be several users.
fn open_to_all() -> Option<Daemon> {
    let has_setpriv = Command::new("setpriv").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !rustix::process::geteuid().is_root() || !has_setpriv {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI does not run as root with setpriv");
        eprintln!("SKIPPED: only root with setpriv can be several users");
        return None;
    }
    let place = Place::new("http://127.0.0.1:9").never_due();
    fs::set_permissions(place.folder.path(), Permissions::from_mode(0o755)).unwrap();
    // Other users may not be able to read the build's folder.
    let mut copy = Command::new("install");
    copy.args(["-m", "755", env!("CARGO_BIN_EXE_pinwatch")]).arg(place.path("pinwatch"));
    assert!(copy.status().unwrap().success());
    Some(place.set("intake.mode", "0666").set("intake.max_connections", "8").start())
}

/// A command of a user.
fn command(daemon: &Daemon, user: u32, args: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    isolate(&mut command);
    command.args([format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()]);
    command.arg(daemon.place.path("pinwatch")).args(args).arg("--socket").arg(daemon.place.socket());
    command
}

/// Idle connections of a user.
fn hold(daemon: &Daemon, user: u32, count: usize) -> Vec<Child> {
    let follow = || {
        let mut command = command(daemon, user, &["tail", "-f", "-n", "0"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Child::spawn(command)
    };
    (0..count).map(|_| follow()).collect()
}

#[track_caller]
fn assert_refused(ended: &Ended, why: &str) {
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains(why), "{}", ended.stderr);
}

#[test]
fn a_user_with_a_full_share_is_refused_and_an_administrator_never_is() {
    let Some(daemon) = open_to_all() else { return };
    let mut root = daemon.client();
    let mut alice = hold(&daemon, ALICE, 6);
    until_true("Alice has her share", || root.stats()["connections"] == 7);
    assert_refused(&run_to_end(command(&daemon, ALICE, &["ping"])), "which is one user's share of 8");
    // The two that are left are the administrators'.
    assert_refused(
        &run_to_end(command(&daemon, BOB, &["ping"])),
        "reserved for root and the daemon's own user",
    );
    assert_eq!(daemon.client().op(&serde_json::json!({"op": "ping"}))["ok"], true);

    alice.truncate(5);
    until_true("one of hers is gone", || root.stats()["connections"] == 6);
    let bob = run_to_end(command(&daemon, BOB, &["ping"]));
    assert_eq!(bob.code, Some(0), "{}", bob.stderr);
}
