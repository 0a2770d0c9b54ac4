//! The disk of the result file is unmounted, remounted or replaced while the daemon runs: no outcome goes to a place where
//! nobody looks for it, the reason is reported, and the sink continues by itself when the path is right again.
//!
//! Needs root for mounts of its own; without it the tests report that they were skipped, and fail in CI.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::disk::SmallDisk;
use crate::support::{
    Client, Daemon, Place, Simulated, all_delivered, assert_each_once, sim_pins, submit, until,
};
use rustix::process::Signal;

const MIB: u64 = 1024 * 1024;

/// Runs a command among the mounts of the daemon.
#[track_caller]
fn run(disk: &SmallDisk, program: &str, arguments: &[&str], path: &Path) {
    let mut command = Command::new(program);
    command.args(arguments).arg(path);
    let output = disk.within(&command).output().expect("nsenter was there just now");
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// Waits until the file sink reports trouble, and returns it.
#[track_caller]
fn trouble(client: &mut Client) -> String {
    until("the sink is in trouble", || {
        client.stats()["sinks"]["file"]["trouble"]["what"].as_str().map(str::to_owned)
    })
}

/// Submits PINs, and waits until each has its outcome, delivered or not.
#[track_caller]
fn finish(client: &mut Client, pins: &[String]) {
    submit(client, pins);
    until("they have their outcomes", || (client.stats()["inFlight"] == 0).then_some(()));
}

/// Sends SIGHUP, and waits until the reload is done.
#[track_caller]
fn reload(daemon: &Daemon) {
    let before = daemon.times_logged("the files are reopened");
    daemon.signal(Signal::HUP);
    until("it has reloaded", || (daemon.times_logged("the files are reopened") > before).then_some(()));
}

#[test]
fn a_file_sink_waits_while_its_disk_is_unmounted_and_says_why() {
    let api = Simulated::start();
    let place = Place::in_folders(&api.base_url());
    let Some(disk) = SmallDisk::mount(&place.out, 4 * MIB) else { return };
    // A second way to the disk, from where it is mounted again.
    let aside = place.folder.path().join("aside");
    fs::create_dir(&aside).unwrap();
    run(&disk, "mount", &["--bind", place.out.to_str().unwrap()], &aside);

    let daemon = place.start_by(disk.within(&place.command()));
    let mut client = daemon.client();
    let before = sim_pins("delivered", 50);
    finish(&mut client, &before);
    all_delivered(&mut client);

    run(&disk, "umount", &["--lazy"], &place.out);
    // It is noticed without a delivery.
    let what = trouble(&mut client);
    assert!(what.contains("not mounted") && what.contains(place.results().to_str().unwrap()), "{what}");
    // The daemon has no file open there, so the disk can be unmounted.
    let open = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
    let open: Vec<_> = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).collect();
    assert!(!open.iter().any(|path| path.to_string_lossy().contains("outcomes.jsonl")), "{open:?}");
    let sinks = place.ask(&["sinks", "list"]);
    assert!(sinks[0].to_string().contains("not mounted"), "{sinks:?}");

    let meanwhile = sim_pins("call", 50);
    finish(&mut client, &meanwhile);
    // A reload for whatever reason is not meant for the disk beneath.
    reload(&daemon);
    let later = sim_pins("failed", 5);
    submit(&mut client, &later);
    let hidden = disk.path(&place.out);
    assert_eq!(fs::read_dir(&hidden).unwrap().count(), 0, "the daemon wrote to the disk beneath");

    run(&disk, "mount", &["--bind", aside.to_str().unwrap()], &place.out);
    until("the rest has its outcome", || (client.stats()["inFlight"] == 0).then_some(()));
    all_delivered(&mut client);
    let text = fs::read_to_string(disk.path(&place.results())).unwrap();
    assert_each_once(&client.outbox(), &[text], &[&before, &meanwhile, &later]);
    assert_eq!(daemon.times_logged("the sink takes no outcomes"), 1, "{}", daemon.log());
    assert_eq!(daemon.times_logged("the sink takes outcomes again"), 1, "{}", daemon.log());
    drop(client);
    daemon.terminate();
    run(&disk, "umount", &["--lazy"], &place.out);
    assert_eq!(fs::read_dir(disk.path(&place.out)).unwrap().count(), 0, "lines are hidden beneath the disk");
}

#[test]
fn a_disk_mounted_over_the_folder_of_a_file_sink_is_used_after_a_reload() {
    let api = Simulated::start();
    let place = Place::in_folders(&api.base_url());
    // A namespace; the disk in it is the database's.
    let Some(disk) = SmallDisk::mount(&place.data, 64 * MIB) else { return };
    let daemon = place.start_by(disk.within(&place.command()));
    let mut client = daemon.client();
    let before = sim_pins("delivered", 20);
    finish(&mut client, &before);
    all_delivered(&mut client);

    run(&disk, "mount", &["-t", "tmpfs", "tmpfs"], &place.out);
    let what = trouble(&mut client);
    assert!(what.contains("another disk was mounted") && what.contains("reload"), "{what}");
    let after = sim_pins("call", 20);
    finish(&mut client, &after);
    let file = disk.path(&place.results());
    assert!(!file.exists(), "nobody said that this disk is meant");
    reload(&daemon);
    all_delivered(&mut client);
    let files = [place.all_results().concat(), fs::read_to_string(file).unwrap()];
    assert_each_once(&client.outbox(), &files, &[&before, &after]);
    drop(client);
    daemon.terminate();
}

#[test]
fn a_recreated_folder_of_a_file_sink_is_used_after_a_reload() {
    let api = Simulated::start();
    let place = Place::in_folders(&api.base_url());
    let daemon = place.start();
    let mut client = daemon.client();
    let before = sim_pins("delivered", 20);
    finish(&mut client, &before);
    all_delivered(&mut client);

    let away = place.folder.path().join("away");
    fs::rename(&place.out, &away).unwrap();
    fs::create_dir(&place.out).unwrap();
    let what = trouble(&mut client);
    assert!(what.contains("its folder was replaced"), "{what}");
    let after = sim_pins("call", 20);
    finish(&mut client, &after);
    assert_eq!(fs::read_dir(&place.out).unwrap().count(), 0, "nobody said that this folder is meant");
    reload(&daemon);
    all_delivered(&mut client);
    let old = fs::read_to_string(away.join("outcomes.jsonl")).unwrap();
    assert_each_once(&client.outbox(), &[vec![old], place.all_results()].concat(), &[&before, &after]);
    drop(client);
    daemon.terminate();
}

#[test]
fn a_folder_replaced_while_no_daemon_ran_is_used_at_the_start() {
    let api = Simulated::start();
    let place = Place::in_folders(&api.base_url());
    let daemon = place.start();
    let before = sim_pins("delivered", 20);
    let mut client = daemon.client();
    finish(&mut client, &before);
    all_delivered(&mut client);
    drop(client);
    daemon.kill9();
    let away = place.folder.path().join("away");
    fs::rename(&place.out, &away).unwrap();
    fs::create_dir(&place.out).unwrap();
    let daemon = place.start();
    let mut client = daemon.client();
    let after = sim_pins("call", 20);
    finish(&mut client, &after);
    all_delivered(&mut client);
    // Outcomes that were undelivered at the kill went to the new folder.
    let old = fs::read_to_string(away.join("outcomes.jsonl")).unwrap();
    let new = place.all_results().concat();
    let missing = client.outbox().into_iter().filter(|line| !old.contains(line) && !new.contains(line));
    assert_eq!(missing.count(), 0);
    drop(client);
    daemon.terminate();
}
