//! A disk that accepts writes but fails to sync them (EIO): acknowledged PINs are kept, nothing is
//! acknowledged meanwhile, and the daemon continues by itself when the disk works again.
//!
//! strace simulates the disk: it makes the daemon's syncs fail while it is attached. If it is missing
//! or may not attach, the tests report that they were skipped.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use crate::support::not_run::not_run;
use crate::support::{Daemon, Place, Simulated, all_delivered, assert_each_once, sim_pins, submit, until};
use rustix::process::{Pid, Signal, kill_process};

/// Syncs of a daemon that fail until this is dropped.
struct Broken(Child);

impl Broken {
    /// Prints a message and returns `None` if strace can't be used.
    fn of(daemon: &Daemon, place: &Place) -> Option<Self> {
        let told = place.folder.path().join("strace");
        let mut command = Command::new("strace");
        command.args(["-f", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]);
        command.args(["-e", "inject=fsync,fdatasync:error=EIO", "-p", &daemon.pid().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&told).unwrap());
        // Not ended with the test by what ends its group.
        command.process_group(0);
        let mut strace = match command.spawn() {
            Ok(strace) => strace,
            Err(error) => return skipped(&error.to_string()),
        };
        let attached = until("strace is attached, or is not let", || match strace.try_wait().unwrap() {
            Some(_) => Some(false),
            None => std::fs::read_to_string(&told).unwrap().contains(" attached").then_some(true),
        });
        if attached { Some(Self(strace)) } else { skipped(&std::fs::read_to_string(&told).unwrap()) }
    }
}

fn skipped<T>(why: &str) -> Option<T> {
    not_run(&format!("a disk whose syncs fail ({why})"), "the package strace");
    None
}

impl Drop for Broken {
    fn drop(&mut self) {
        // It lets go of the daemon and ends; where the daemon was killed it has ended.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

#[test]
fn while_syncs_fail_no_pin_is_acknowledged_and_no_outcome_is_lost() {
    let api = Simulated::start();
    let place = Place::in_folders(&api.base_url());
    let daemon = place.start();
    let mut client = daemon.client();
    let (waiting, ending) = (sim_pins("waiting", 20), sim_pins("10s", 200));
    for answer in submit(&mut client, &waiting).iter().chain(&submit(&mut client, &ending)) {
        assert_eq!(answer["state"], "accepted", "{answer}");
    }
    let Some(broken) = Broken::of(&daemon, &place) else { return };
    let refused = submit(&mut client, &sim_pins("none", 3));
    assert!(refused.iter().all(|answer| answer["error"]["code"] == "store_unavailable"), "{refused:?}");
    let stats = until("outcomes wait for the store", || {
        let stats = client.stats();
        (stats["finishing"].as_u64() >= Some(100)).then_some(stats)
    });
    let what = stats["store"]["trouble"]["what"].as_str().expect("stats say that the store is in trouble");
    assert!(what.contains("I/O error"), "{what}");

    drop(broken);
    until("the rest is delivered", || (client.stats()["inFlight"] == waiting.len()).then_some(()));
    all_delivered(&mut client);
    assert_each_once(&client.outbox(), &place.all_results(), &[&ending]);
    assert_eq!(daemon.times_logged("the store can't be written"), 1, "{}", daemon.log());
    assert_eq!(daemon.times_logged("the store can be written again"), 1, "{}", daemon.log());
    // Refused PINs are not in the file.
    drop(client);
    daemon.kill9();
    let daemon = place.start();
    assert_eq!(daemon.client().stats()["inFlight"], waiting.len());
    daemon.terminate();
}

#[test]
fn a_daemon_killed_while_syncs_fail_has_every_acknowledged_pin() {
    let api = Simulated::start();
    let place = Place::in_folders(&api.base_url());
    let daemon = place.start();
    let mut client = daemon.client();
    let ending = sim_pins("10s", 200);
    assert!(submit(&mut client, &ending).iter().all(|answer| answer["state"] == "accepted"));
    let Some(broken) = Broken::of(&daemon, &place) else { return };
    until("outcomes wait for the store", || (client.stats()["finishing"].as_u64() > Some(50)).then_some(()));
    drop(client);
    daemon.kill9();
    drop(broken);

    let daemon = place.start();
    let mut client = daemon.client();
    until("all have their outcome", || (client.stats()["inFlight"] == 0).then_some(()));
    all_delivered(&mut client);
    assert_each_once(&client.outbox(), &place.all_results(), &[&ending]);
    drop(client);
    daemon.terminate();
}
