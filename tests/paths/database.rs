//! The database's files are removed, replaced or moved while the daemon runs.

use std::fs;
use std::path::Path;

use super::{place, readiness};
use crate::support::{
    Client, Daemon, Place, Simulated, all_delivered, assert_each_once, run_to_end, sim_pins, submit, until,
};

/// What can happen to the database, and how it is undone.
struct Accident {
    what: &'static str,
    happens: fn(&Place),
    is_undone: fn(&Place),
    /// What the daemon says.
    told: &'static str,
}

fn away(place: &Place) -> std::path::PathBuf {
    place.folder.path().join("away")
}

const ACCIDENTS: [Accident; 3] = [
    Accident {
        what: "the file is moved",
        happens: |place| fs::rename(place.store(), away(place)).unwrap(),
        is_undone: |place| fs::rename(away(place), place.store()).unwrap(),
        told: "was removed or moved away",
    },
    Accident {
        what: "its folder is renamed",
        happens: |place| fs::rename(&place.data, away(place)).unwrap(),
        is_undone: |place| fs::rename(away(place), &place.data).unwrap(),
        told: "was removed or moved away",
    },
    Accident {
        what: "another file is put in its place",
        happens: |place| {
            fs::hard_link(place.store(), away(place)).unwrap();
            let copy = place.folder.path().join("copy");
            fs::copy(place.store(), &copy).unwrap();
            fs::rename(copy, place.store()).unwrap();
        },
        is_undone: |place| fs::rename(away(place), place.store()).unwrap(),
        told: "another file was put in the place of the database",
    },
];

#[track_caller]
fn assert_refused(client: &mut Client, path: &Path, told: &str) {
    for answer in submit(client, &sim_pins("none", 3)) {
        assert_eq!(answer["error"]["code"], "store_unavailable", "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(told) && message.contains(path.to_str().unwrap()), "{message}");
    }
}

#[test]
fn no_pin_is_acknowledged_while_the_database_file_is_not_in_its_place() {
    for Accident { what, happens, is_undone, told } in ACCIDENTS {
        eprintln!("--- {what}");
        let api = Simulated::start();
        let place = place(&api.base_url());
        let daemon = place.start();
        let mut client = daemon.client();
        let (waiting, ending) = (sim_pins("waiting", 20), sim_pins("3s", 200));
        for answer in submit(&mut client, &waiting).iter().chain(&submit(&mut client, &ending)) {
            assert_eq!(answer["state"], "accepted", "{answer}");
        }

        happens(&place);
        assert_refused(&mut client, &place.store(), told);
        // Whatever name it has now.
        let open = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
        let open: Vec<_> = open.map(|entry| entry.unwrap().path()).collect();
        let bytes = || -> Vec<Vec<u8>> {
            let of_database = |path: &&std::path::PathBuf| {
                let name = fs::read_link(path).unwrap_or_default().to_string_lossy().into_owned();
                // The index of the log is also written by those who read.
                (name.contains("pinwatch.db") || name.contains("away")) && !name.contains("-shm")
            };
            open.iter().filter(of_database).map(|path| fs::read(path).unwrap_or_default()).collect()
        };
        let before = bytes();
        assert!(before.len() > 3, "the database, its log and its lock are open");
        let stats = until("outcomes wait for the store", || {
            let stats = client.stats();
            (stats["finishing"].as_u64() >= Some(100)).then_some(stats)
        });
        assert!(stats["store"]["trouble"]["what"].as_str().unwrap().contains(told), "{stats}");
        assert_refused(&mut client, &place.store(), told);
        let (status, reasons) = readiness(&daemon);
        assert_eq!((status.as_str(), reasons[0].0.as_str()), ("not_ready", "store_failing"), "{reasons:?}");
        assert!(reasons[0].1.contains(told), "{reasons:?}");
        // Read requests are still answered, from the open file.
        assert_eq!(client.ask(r#"{"op":"show","pinId":"sim-waiting-0"}"#)["ok"], true);
        assert!(bytes() == before, "something was written");

        is_undone(&place);
        until("the rest is delivered", || (client.stats()["inFlight"] == waiting.len()).then_some(()));
        all_delivered(&mut client);
        assert_each_once(&client.outbox(), &place.all_results(), &[&ending]);
        assert_eq!(submit(&mut client, &sim_pins("waiting-too", 1))[0]["state"], "accepted");
        assert_eq!(daemon.times_logged("the store can't be written"), 1, "{}", daemon.log());
        assert_eq!(daemon.times_logged("the store can be written again"), 1, "{}", daemon.log());
        drop(client);
        daemon.kill9();
        let daemon = place.start();
        assert_eq!(daemon.client().stats()["inFlight"], waiting.len() + 1);
        daemon.terminate();
    }
}

#[test]
fn a_removed_database_is_noticed_without_submits_and_not_recreated() {
    let api = Simulated::start();
    let place = place(&api.base_url());
    let daemon = place.start();
    submit(&mut daemon.client(), &sim_pins("waiting", 1));
    fs::remove_dir_all(&place.data).unwrap();
    until("it is not ready", || {
        let (status, reasons) = readiness(&daemon);
        (status == "not_ready" && reasons[0].0 == "store_failing").then_some(())
    });
    until("it says what to do", || (daemon.times_logged("pinwatch backup FILE") == 1).then_some(()));
    // A stop still succeeds, and creates nothing there.
    daemon.terminate();
    assert!(!place.data.exists());
}

fn acked(place: &Place) -> Daemon {
    let daemon = place.start();
    let answers = submit(&mut daemon.client(), &sim_pins("waiting", 200));
    assert!(answers.iter().all(|answer| answer["state"] == "accepted"), "{answers:?}");
    daemon
}

#[test]
fn acknowledged_pins_survive_the_removal_of_the_wal_and_no_more_are_acknowledged() {
    for suffixes in [&["-wal"][..], &["-shm"], &["-wal", "-shm"]] {
        let api = Simulated::start();
        let place = place(&api.base_url());
        let daemon = acked(&place);
        for suffix in suffixes {
            fs::remove_file(place.beside(suffix)).unwrap();
        }
        let gone = place.beside(suffixes[0]);
        let mut client = daemon.client();
        assert_refused(&mut client, &gone, "was removed or replaced");
        until("what the log had is in the database", || {
            let what = client.stats()["store"]["trouble"]["what"].as_str()?.to_owned();
            what.contains("what was acknowledged is in the database").then_some(())
        });
        drop(client);
        daemon.kill9();
        let daemon = place.start();
        assert_eq!(daemon.client().stats()["inFlight"], 200);
        assert_eq!(submit(&mut daemon.client(), &sim_pins("waiting-too", 1))[0]["state"], "accepted");
        daemon.terminate();
    }
}

#[test]
fn a_foreign_file_in_place_of_the_wal_is_not_removed_at_the_stop() {
    let api = Simulated::start();
    let place = place(&api.base_url());
    let daemon = acked(&place);
    fs::write(place.folder.path().join("mine"), "mine").unwrap();
    fs::rename(place.folder.path().join("mine"), place.beside("-wal")).unwrap();
    assert_refused(&mut daemon.client(), &place.beside("-wal"), "was removed or replaced");
    daemon.terminate();
    assert_eq!(fs::read_to_string(place.beside("-wal")).unwrap(), "mine");
    fs::remove_file(place.beside("-wal")).unwrap();
    assert_eq!(place.start().client().stats()["inFlight"], 200);
}

#[test]
fn a_second_daemon_is_refused_even_without_the_lock_file_and_by_every_path() {
    let api = Simulated::start();
    let place = place(&api.base_url());
    let daemon = acked(&place);
    let second = |database: &Path| {
        let mut command = place.command();
        command.args(["--set", &format!("store.url=sqlite:{}", database.display())]);
        command
            .args(["--set", &format!("intake.socket={}", place.folder.path().join("second.sock").display())]);
        command.args(["--set", "http.listen="]);
        let second = run_to_end(command);
        assert_eq!(second.code, Some(1), "{}", second.stderr);
        assert!(second.stderr.contains("another pinwatch uses the database"), "{}", second.stderr);
    };
    fs::remove_file(place.beside(".lock")).unwrap();
    second(&place.store());
    let by_another_name = place.data.join("other.db");
    fs::hard_link(place.store(), &by_another_name).unwrap();
    second(&by_another_name);

    // The first one makes the lock file anew, with its note, and goes on.
    let mut client = daemon.client();
    let mut more = 0;
    until("submits are taken", || {
        more += 1;
        (submit(&mut client, &sim_pins(&format!("waiting-{more}"), 1))[0]["state"] == "accepted")
            .then_some(())
    });
    until("it says so", || {
        (daemon.times_logged("the lock file was removed; it was created again") > 0).then_some(())
    });
    second(&place.store());
    let note = fs::read_to_string(place.beside(".lock")).unwrap();
    assert!(note.trim().parse::<u64>().is_ok_and(|commits| commits > 0), "{note:?}");
    drop(client);
    daemon.kill9();
    assert_eq!(place.start().client().stats()["inFlight"], 201);
}

#[test]
fn a_foreign_file_in_place_of_the_lock_file_makes_the_store_unavailable() {
    let api = Simulated::start();
    let place = place(&api.base_url());
    let daemon = acked(&place);
    let notes = place.folder.path().join("notes.txt");
    fs::write(&notes, "mine").unwrap();
    fs::remove_file(place.beside(".lock")).unwrap();
    std::os::unix::fs::symlink(&notes, place.beside(".lock")).unwrap();
    assert_refused(&mut daemon.client(), &place.beside(".lock"), "symbolic link");
    fs::remove_file(place.beside(".lock")).unwrap();
    let mut client = daemon.client();
    until("submits are taken again", || {
        (submit(&mut client, &sim_pins("waiting", 1))[0]["ok"] == true).then_some(())
    });
    assert_eq!(fs::read_to_string(&notes).unwrap(), "mine");
    drop(client);
    daemon.terminate();
}
