//! A real full disk, under the database and under the result file: nothing is lost, it is logged
//! once, and the daemon continues by itself when there is room.
//!
//! Needs root for a tmpfs with a size; without it the tests report that they were skipped, and fail in CI.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::process::Command;

use crate::support::disk::SmallDisk;
use crate::support::{
    Place, Simulated, all_delivered, assert_each_once, program, sim_pins, submit, until, wrapped,
};

const MIB: u64 = 1024 * 1024;

#[test]
fn with_a_full_database_disk_submits_are_refused_and_no_outcome_is_lost() {
    let api = Simulated::start();
    let place = Place::in_folders(&api.base_url());
    let Some(disk) = SmallDisk::mount(&place.data, 16 * MIB) else { return };
    let start = || place.spawn_by(disk.within(&place.command()));

    let daemon = start().ready();
    let mut client = daemon.client();
    let (waiting, ending) = (sim_pins("waiting", 20), sim_pins("10s", 300));
    for answer in submit(&mut client, &waiting).iter().chain(&submit(&mut client, &ending)) {
        assert_eq!(answer["state"], "accepted", "{answer}");
    }
    disk.fill();
    // The WAL still has some room of its own.
    let mut taken = Vec::new();
    let refusal = until("a submit is refused", || {
        let pin = format!("sim-delivered-full{}", taken.len());
        let answer = submit(&mut client, std::slice::from_ref(&pin)).remove(0);
        if answer["ok"] == false {
            return Some(answer);
        }
        taken.push(pin);
        None
    });
    assert_eq!(refusal["error"]["code"], "store_unavailable", "{refusal}");

    let stats = until("outcomes wait for the store", || {
        let stats = client.stats();
        (stats["finishing"].as_u64() >= Some(200)).then_some(stats)
    });
    let what = stats["store"]["trouble"]["what"].as_str().expect("stats say that the store is in trouble");
    assert!(what.contains("full"), "{what}");
    let polls = stats["polls"]["total"].as_u64();
    until("polling goes on", || (client.stats()["polls"]["total"].as_u64() > polls).then_some(()));
    let unknown = client.ask(r#"{"op":"submit","pinId":"sim-delivered-refused"}"#);
    assert_eq!(unknown["error"]["code"], "store_unavailable", "{unknown}");
    assert_eq!(client.ask(r#"{"op":"show","pinId":"sim-waiting-0"}"#)["ok"], true);
    assert_eq!(daemon.times_logged("the store can't be written"), 1, "{}", daemon.log());

    disk.free();
    all_delivered(&mut client);
    until("the rest is delivered", || (client.stats()["inFlight"] == waiting.len()).then_some(()));
    all_delivered(&mut client);
    assert_each_once(&client.outbox(), &place.all_results(), &[&ending, &taken]);
    assert!(client.stats()["store"]["trouble"].is_null());
    assert_eq!(daemon.times_logged("the store can be written again"), 1, "{}", daemon.log());
    assert_eq!(submit(&mut client, &sim_pins("delivered", 1))[0]["state"], "accepted");
    drop(client);
    daemon.terminate();
}

#[test]
fn a_backup_that_fills_the_disk_fails_and_keeps_the_previous_backup() {
    let api = Simulated::start();
    let place = Place::in_folders(&api.base_url());
    let Some(disk) = SmallDisk::mount(&place.out, MIB / 4) else { return };
    let daemon = place.start();
    let mut client = daemon.client();
    submit(&mut client, &sim_pins("waiting", 20_000));
    let (file, older) = (place.out.join("backup.db"), disk.path(&place.out.join("older.db")));
    fs::write(&older, "an older one").expect("it has room");
    let back_up = |file: &std::path::Path| {
        let mut command = program();
        command
            .args(["backup", "--force", "--set"])
            .arg(format!("store.url=sqlite:{}", place.store().display()));
        command.arg("--config").arg("/dev/null").arg(file);
        disk.within(&command).output().expect("it can be started")
    };
    let before = fs::read_dir(disk.path(&place.out)).expect("it is there").count();
    for file in [&file, &place.out.join("older.db")] {
        let ended = back_up(file);
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(said.contains("no room in ") && said.contains(place.out.to_str().unwrap()), "{said}");
        assert_eq!(fs::read_dir(disk.path(&place.out)).expect("it is there").count(), before, "{said}");
    }
    // Full to the last byte: not even the first page has room.
    disk.fill();
    let ended = back_up(&file);
    assert!(String::from_utf8_lossy(&ended.stderr).contains("no room in "), "{ended:?}");
    assert_eq!(fs::read_to_string(&older).expect("it is there"), "an older one");
    drop(client);
    daemon.terminate();
}

#[test]
fn a_daemon_killed_while_its_database_disk_is_full_loses_nothing() {
    let api = Simulated::start();
    let place = Place::in_folders(&api.base_url());
    let Some(disk) = SmallDisk::mount(&place.data, 16 * MIB) else { return };
    let start = || place.spawn_by(disk.within(&place.command()));

    let daemon = start().ready();
    let mut client = daemon.client();
    let pins = sim_pins("10s", 300);
    assert!(submit(&mut client, &pins).iter().all(|answer| answer["state"] == "accepted"));
    disk.fill();
    until("outcomes wait for the store", || (client.stats()["finishing"].as_u64() > Some(50)).then_some(()));
    daemon.kill9();

    let mut daemon = start();
    let ended = until("it serves or gives up", || match daemon.ended() {
        Some(status) => Some(Some(status)),
        None => daemon.try_client()?.try_ask(r#"{"op":"ping"}"#).map(|_| None),
    });
    if let Some(status) = ended {
        assert_eq!(status.code(), Some(1), "{}", daemon.log());
        assert!(daemon.log().contains(place.store().to_str().unwrap()), "{}", daemon.log());
    }
    drop(daemon);

    disk.free();
    let daemon = start().ready();
    let mut client = daemon.client();
    until("every PIN has its outcome", || (client.stats()["inFlight"] == 0).then_some(()));
    all_delivered(&mut client);
    assert_each_once(&client.outbox(), &place.all_results(), &[&pins]);
    drop(client);
    daemon.terminate();
}

#[test]
fn a_file_sink_waits_while_its_disk_is_full_and_then_continues_by_itself() {
    let api = Simulated::start();
    let place = Place::in_folders(&api.base_url());
    let Some(disk) = SmallDisk::mount(&place.out, MIB) else { return };
    let daemon = place.start_by(disk.within(&place.command()));
    let mut client = daemon.client();
    let file = disk.path(&place.results());

    let mut all = sim_pins("delivered", 100);
    submit(&mut client, &all);
    until("they are delivered", || (fs::read_to_string(&file).ok()?.lines().count() == 100).then_some(()));
    disk.fill();
    let more = sim_pins("call", 400);
    submit(&mut client, &more);
    let trouble = until("the sink is in trouble", || {
        client.stats()["sinks"]["file"]["trouble"]["what"].as_str().map(str::to_owned)
    });
    assert!(trouble.contains(place.results().to_str().unwrap()), "{trouble}");
    until("the others have their outcome nonetheless", || (client.stats()["inFlight"] == 0).then_some(()));
    let text = fs::read_to_string(&file).expect("the file is there");
    assert!(text.ends_with('\n'), "half a line is left in the file");
    assert!(client.stats()["sinks"]["file"]["behind"].as_i64() > Some(0));

    disk.free();
    all_delivered(&mut client);
    all.extend(more);
    assert_each_once(&client.outbox(), &[fs::read_to_string(&file).unwrap()], &[&all]);
    assert_eq!(daemon.times_logged("the sink takes no outcomes"), 1, "{}", daemon.log());
    assert_eq!(daemon.times_logged("the sink takes outcomes again"), 1, "{}", daemon.log());
    drop(client);
    daemon.terminate();
}

#[test]
fn a_file_sink_at_the_file_size_limit_waits_and_leaves_no_incomplete_line() {
    let api = Simulated::start();
    let place = Place::in_folders(&api.base_url());
    // So large that only the result file reaches the limit, in the middle of a line. It uses no space on the disk.
    let (limit, notes) = (64 * MIB, "\nmy notes\n");
    let mut file = File::create(place.results()).expect("a file can be made");
    file.set_len(limit - 10_000).and_then(|()| file.seek(SeekFrom::End(0))).expect("a file can be sparse");
    file.write_all(notes.as_bytes()).expect("it has room");
    let before = fs::metadata(place.results()).expect("it is there").len();
    let lines = || {
        let mut file = File::open(place.results()).expect("it is there");
        let mut lines = String::new();
        let read = file.seek(SeekFrom::Start(before)).and_then(|_| file.read_to_string(&mut lines));
        read.expect("lines are text");
        lines
    };

    let mut limit_to = Command::new("sh");
    // The signal would end a daemon that did not ignore it.
    limit_to.args(["-c", "trap '' XFSZ; exec prlimit \"$@\"", "sh", &format!("--fsize={limit}:unlimited")]);
    let daemon = place.start_by(wrapped(limit_to, &place.command()));
    let mut client = daemon.client();
    let all = sim_pins("delivered", 100);
    submit(&mut client, &all);
    let trouble = until("the sink is in trouble", || {
        client.stats()["sinks"]["file"]["trouble"]["what"].as_str().map(str::to_owned)
    });
    assert!(
        trouble.contains(place.results().to_str().unwrap()) && trouble.contains("LimitFSIZE="),
        "{trouble}"
    );
    until("every PIN has its outcome", || (client.stats()["inFlight"] == 0).then_some(()));
    let taken = lines();
    assert!(taken.ends_with('\n') && taken.lines().count() < all.len(), "half a line is left in the file");

    let raised =
        Command::new("prlimit").args(["--fsize=unlimited", "--pid", &daemon.pid().to_string()]).status();
    assert!(raised.expect("prlimit was there just now").success());
    all_delivered(&mut client);
    assert_each_once(&client.outbox(), &[lines()], &[&all]);
    assert_eq!(daemon.times_logged("the sink takes no outcomes"), 1, "{}", daemon.log());
    drop(client);
    daemon.terminate();
}

#[test]
fn a_file_sink_waits_for_a_removed_folder_and_continues_when_it_is_back() {
    let api = Simulated::start();
    let place = Place::in_folders(&api.base_url());
    let daemon = place.start();
    let mut client = daemon.client();
    let mut all = sim_pins("delivered", 50);
    submit(&mut client, &all);
    until("they are delivered", || (place.all_results().concat().lines().count() == 50).then_some(()));

    let away = place.folder.path().join("away");
    fs::rename(&place.out, &away).expect("a folder can be renamed");
    let more = sim_pins("call", 50);
    submit(&mut client, &more);
    until("the sink is in trouble", || {
        client.stats()["sinks"]["file"]["trouble"]["what"].as_str().map(str::to_owned)
    });
    assert!(!place.out.exists(), "the daemon made a folder");
    until("the others have their outcome nonetheless", || (client.stats()["inFlight"] == 0).then_some(()));

    fs::rename(&away, &place.out).expect("a folder can be renamed");
    all_delivered(&mut client);
    all.extend(more);
    assert_each_once(&client.outbox(), &place.all_results(), &[&all]);
    assert_eq!(daemon.times_logged("the sink takes no outcomes"), 1, "{}", daemon.log());
    drop(client);
    daemon.terminate();
}
