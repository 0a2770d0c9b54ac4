//! The database's files are removed, replaced or moved while the daemon runs.

use std::fs;
use std::path::Path;

use super::{home, readiness};
use crate::harness::{Api, Client, Daemon, Home, all_delivered, assert_each_once, pins, submit, until};

/// What can happen to the database, and how it is put right again.
struct Accident {
    what: &'static str,
    happens: fn(&Home),
    is_undone: fn(&Home),
    /// What the daemon says.
    told: &'static str,
}

fn away(home: &Home) -> std::path::PathBuf {
    home.path().join("away")
}

const ACCIDENTS: [Accident; 3] = [
    Accident {
        what: "the file is moved",
        happens: |home| fs::rename(home.database(), away(home)).unwrap(),
        is_undone: |home| fs::rename(away(home), home.database()).unwrap(),
        told: "was removed or moved away",
    },
    Accident {
        what: "its folder is renamed",
        happens: |home| fs::rename(&home.data, away(home)).unwrap(),
        is_undone: |home| fs::rename(away(home), &home.data).unwrap(),
        told: "was removed or moved away",
    },
    Accident {
        what: "another file is put in its place",
        happens: |home| {
            fs::hard_link(home.database(), away(home)).unwrap();
            let copy = home.path().join("copy");
            fs::copy(home.database(), &copy).unwrap();
            fs::rename(copy, home.database()).unwrap();
        },
        is_undone: |home| fs::rename(away(home), home.database()).unwrap(),
        told: "another file was put in the place of the database",
    },
];

#[track_caller]
fn assert_refused(client: &mut Client, path: &Path, told: &str) {
    for answer in submit(client, &pins("none", 3)) {
        assert_eq!(answer["error"]["code"], "store_unavailable", "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(told) && message.contains(path.to_str().unwrap()), "{message}");
    }
}

#[test]
fn no_pin_is_acked_into_a_database_that_is_not_in_its_place_and_all_goes_on_when_it_is_back() {
    for Accident { what, happens, is_undone, told } in ACCIDENTS {
        eprintln!("--- {what}");
        let api = Api::start();
        let home = home(&api.base_url());
        let daemon = home.start();
        let mut client = daemon.client();
        let (waiting, ending) = (pins("waiting", 20), pins("3s", 200));
        for answer in submit(&mut client, &waiting).iter().chain(&submit(&mut client, &ending)) {
            assert_eq!(answer["state"], "accepted", "{answer}");
        }

        happens(&home);
        assert_refused(&mut client, &home.database(), told);
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
        assert_refused(&mut client, &home.database(), told);
        let (status, reasons) = readiness(&daemon);
        assert_eq!((status.as_str(), reasons[0].0.as_str()), ("not_ready", "store_failing"), "{reasons:?}");
        assert!(reasons[0].1.contains(told), "{reasons:?}");
        // Questions are still answered, by the file that is open.
        assert_eq!(client.ask(r#"{"op":"show","pinId":"sim-waiting-0"}"#)["ok"], true);
        assert!(bytes() == before, "something was written");

        is_undone(&home);
        until("the rest is delivered", || (client.stats()["inFlight"] == waiting.len()).then_some(()));
        all_delivered(&mut client);
        assert_each_once(&client.outbox(), &home.results(), &[&ending]);
        assert_eq!(submit(&mut client, &pins("waiting-too", 1))[0]["state"], "accepted");
        assert_eq!(daemon.times_said("the store can't be written"), 1, "{}", daemon.said());
        assert_eq!(daemon.times_said("the store can be written again"), 1, "{}", daemon.said());
        drop(client);
        daemon.kill();
        let daemon = home.start();
        assert_eq!(daemon.client().stats()["inFlight"], waiting.len() + 1);
        daemon.stop();
    }
}

#[test]
fn a_database_that_is_removed_is_noticed_while_nobody_submits_and_nothing_is_made_in_its_place() {
    let api = Api::start();
    let home = home(&api.base_url());
    let daemon = home.start();
    submit(&mut daemon.client(), &pins("waiting", 1));
    fs::remove_dir_all(&home.data).unwrap();
    until("it is not ready", || {
        let (status, reasons) = readiness(&daemon);
        (status == "not_ready" && reasons[0].0 == "store_failing").then_some(())
    });
    until("it says what to do", || (daemon.times_said("pinwatch backup FILE") == 1).then_some(()));
    // A stop still ends well, and makes nothing there.
    daemon.stop();
    assert!(!home.data.exists());
}

fn acked(home: &Home) -> Daemon {
    let daemon = home.start();
    let answers = submit(&mut daemon.client(), &pins("waiting", 200));
    assert!(answers.iter().all(|answer| answer["state"] == "accepted"), "{answers:?}");
    daemon
}

#[test]
fn what_was_acked_outlives_the_removal_of_its_log_and_nothing_more_is_acked() {
    for suffixes in [&["-wal"][..], &["-shm"], &["-wal", "-shm"]] {
        let api = Api::start();
        let home = home(&api.base_url());
        let daemon = acked(&home);
        for suffix in suffixes {
            fs::remove_file(home.beside(suffix)).unwrap();
        }
        let gone = home.beside(suffixes[0]);
        let mut client = daemon.client();
        assert_refused(&mut client, &gone, "was removed or replaced");
        until("what the log had is in the database", || {
            let what = client.stats()["store"]["trouble"]["what"].as_str()?.to_owned();
            what.contains("what was acknowledged is in the database").then_some(())
        });
        drop(client);
        daemon.kill();
        let daemon = home.start();
        assert_eq!(daemon.client().stats()["inFlight"], 200);
        assert_eq!(submit(&mut daemon.client(), &pins("waiting-too", 1))[0]["state"], "accepted");
        daemon.stop();
    }
}

#[test]
fn what_somebody_put_in_the_place_of_the_log_is_not_removed_at_the_stop() {
    let api = Api::start();
    let home = home(&api.base_url());
    let daemon = acked(&home);
    fs::write(home.path().join("mine"), "mine").unwrap();
    fs::rename(home.path().join("mine"), home.beside("-wal")).unwrap();
    assert_refused(&mut daemon.client(), &home.beside("-wal"), "was removed or replaced");
    daemon.stop();
    assert_eq!(fs::read_to_string(home.beside("-wal")).unwrap(), "mine");
    fs::remove_file(home.beside("-wal")).unwrap();
    assert_eq!(home.start().client().stats()["inFlight"], 200);
}

#[test]
fn a_second_daemon_is_kept_from_the_database_though_its_lock_file_is_gone_and_by_every_name() {
    let api = Api::start();
    let home = home(&api.base_url());
    let daemon = acked(&home);
    let second = |database: &Path| {
        let mut command = home.command();
        command.args(["--set", &format!("store.url=sqlite:{}", database.display())]);
        command.args(["--set", &format!("intake.socket={}", home.path().join("second.sock").display())]);
        command.args(["--set", "http.listen="]);
        let mut second = Daemon::spawn(command, &home.socket(), &home.path().join("second.log"));
        assert_eq!(second.wait().code(), Some(1), "{}", second.said());
        assert!(second.said().contains("another pinwatch uses the database"), "{}", second.said());
    };
    fs::remove_file(home.beside(".lock")).unwrap();
    second(&home.database());
    let by_another_name = home.data.join("other.db");
    fs::hard_link(home.database(), &by_another_name).unwrap();
    second(&by_another_name);

    // The first one makes the lock file anew, with its note, and goes on.
    let mut client = daemon.client();
    let mut more = 0;
    until("submits are taken", || {
        more += 1;
        (submit(&mut client, &pins(&format!("waiting-{more}"), 1))[0]["state"] == "accepted").then_some(())
    });
    until("it says so", || {
        (daemon.times_said("the lock file was removed; it was made anew") > 0).then_some(())
    });
    second(&home.database());
    let note = fs::read_to_string(home.beside(".lock")).unwrap();
    assert!(note.trim().parse::<u64>().is_ok_and(|commits| commits > 0), "{note:?}");
    drop(client);
    daemon.kill();
    assert_eq!(home.start().client().stats()["inFlight"], 201);
}

#[test]
fn what_is_in_the_place_of_the_lock_file_and_is_not_ours_makes_the_store_unavailable() {
    let api = Api::start();
    let home = home(&api.base_url());
    let daemon = acked(&home);
    let notes = home.path().join("notes.txt");
    fs::write(&notes, "mine").unwrap();
    fs::remove_file(home.beside(".lock")).unwrap();
    std::os::unix::fs::symlink(&notes, home.beside(".lock")).unwrap();
    assert_refused(&mut daemon.client(), &home.beside(".lock"), "symbolic link");
    fs::remove_file(home.beside(".lock")).unwrap();
    let mut client = daemon.client();
    until("submits are taken again", || {
        (submit(&mut client, &pins("waiting", 1))[0]["ok"] == true).then_some(())
    });
    assert_eq!(fs::read_to_string(&notes).unwrap(), "mine");
    drop(client);
    daemon.stop();
}
