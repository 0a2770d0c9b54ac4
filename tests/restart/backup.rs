//! `pinwatch backup`, and a daemon on its copy.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::support::{
    Child, Client, Ended, Place, Simulated, change, count, program, run_to_end, until, until_true,
};

fn command(place: &Place, file: &Path) -> Command {
    let mut command = program();
    command.arg("backup").arg(file).arg("--config").arg(place.path("pinwatch.toml"));
    command
}

#[track_caller]
fn back_up(place: &Place, file: &Path) -> Value {
    let ended = run_to_end(command(place, file));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

/// Runs a backup that must fail; returns its message.
#[track_caller]
fn refusal(mut command: Command, more: &[&str]) -> String {
    command.args(more);
    let Ended { code, stderr, .. } = run_to_end(command);
    assert_eq!(code, Some(1), "{stderr}");
    stderr
}

/// Restores a backup as `docs/operations.md` says.
fn restore(place: &Place, backup: &Path) {
    let lost = place.path("lost");
    fs::create_dir_all(&lost).unwrap();
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let name = format!("pinwatch.db{suffix}");
        if place.path(&name).exists() {
            fs::rename(place.path(&name), lost.join(&name)).unwrap();
        }
    }
    fs::copy(backup, place.store()).unwrap();
    fs::set_permissions(place.store(), fs::Permissions::from_mode(0o600)).unwrap();
}

/// Outcomes that make a database large enough for a backup to take a moment.
fn fill(place: &Place, outcomes: usize) {
    let record =
        format!(r#"{{"seq":0,"pinId":"OLD","outcome":"final","description":"{}"}}"#, "x".repeat(400));
    let sql = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {outcomes}) \
         INSERT INTO outcome (pin_id, finished_at, record) SELECT 'OLD-' || i, 4000000000000 + i, '{record}' FROM n; \
         UPDATE history SET indexed = {outcomes}; UPDATE sink SET cursor = {outcomes};"
    );
    change(&place.store(), &sql);
}

/// Whether nothing but these is in a folder.
#[track_caller]
fn assert_holds(folder: &Path, expected: &[&str]) {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, expected);
}

#[test]
fn a_backup_under_load_has_each_pin_that_was_acknowledged_before_it_began() {
    let api = Simulated::start();
    let place = Place::new(&api.base_url()).start().terminate();
    fill(&place, 100_000);
    let daemon = place.start();
    let backups = tempfile::tempdir().unwrap();
    let file = backups.path().join("pinwatch.db");
    let (acked, stop) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let (before, made, during) = thread::scope(|scope| {
        let (acked, stop, socket) = (&acked, &stop, daemon.place.socket());
        scope.spawn(move || {
            let mut client = Client::connect(&socket);
            // Half of them end meanwhile. Each batch is a commit or more, so there are hundreds a second.
            for batch in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let kind = if batch % 2 == 0 { "delivered" } else { "waiting" };
                let pins: Vec<_> = (0..20).map(|n| format!("sim-{kind}-{batch}-{n}")).collect();
                client.submit_all(&pins);
                acked.lock().unwrap().extend(pins);
            }
        });
        let so_far = || acked.lock().unwrap().len();
        until_true("PINs are acknowledged", || so_far() > 1000);
        let before = acked.lock().unwrap().clone();
        let made = back_up(&daemon.place, &file);
        let during = so_far() - before.len();
        // These are not in the backup.
        let last = so_far();
        until_true("more PINs are acknowledged", || so_far() > last + 100);
        stop.store(true, Ordering::Relaxed);
        (before, made, during)
    });
    assert!(during > 100, "{during} PINs are no load");
    assert_holds(backups.path(), &["pinwatch.db"]);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(made["bytes"], fs::metadata(&file).unwrap().len());
    assert_eq!(made["pins"], count(&file, "SELECT count(*) FROM pin"));
    assert_eq!(made["outcomes"], count(&file, "SELECT count(*) FROM outcome"));

    let place = daemon.terminate();
    // With the lock file in its place, what is lost does not go unnoticed.
    fs::copy(&file, place.store()).unwrap();
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(place.path(&format!("pinwatch.db{suffix}")));
    }
    let ended = place.refusal();
    assert!(ended.stderr.contains("has lost commits"), "{}", ended.stderr);
    restore(&place, &file);
    let daemon = place.start();
    let mut client = daemon.client();
    for pin in &before {
        let shown = client.op(&json!({"op": "show", "pinId": pin}));
        assert_eq!(shown["ok"], true, "{pin} was acknowledged before the backup began: {shown}");
    }
    assert_eq!(client.submit("sim-delivered-new"), "accepted");
    client.outcome("sim-delivered-new");
    drop(client);
    daemon.terminate();
}

#[test]
fn a_backup_without_a_daemon_has_every_row_and_leaves_the_database_usable() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    let mut client = daemon.client();
    for n in 0..50 {
        client.submit(&format!("sim-waiting-{n}"));
    }
    drop(client);
    // Killed, so the last commits are in its log alone; then stopped well.
    for place in [daemon.kill9(), Place::new(&api.base_url()).start().terminate()] {
        let file = place.path("backup.db");
        let made = back_up(&place, &file);
        assert_eq!(made["pins"], count(&file, "SELECT count(*) FROM pin"));
        assert!([0, 50].contains(&made["pins"].as_u64().unwrap()), "{made}");
        for suffix in ["-wal", "-shm"] {
            let beside = place.path(&format!("pinwatch.db{suffix}"));
            if let Ok(found) = fs::metadata(beside) {
                assert_eq!(found.permissions().mode() & 0o077, 0, "others can read {suffix}");
            }
        }
        let daemon = place.start();
        assert_eq!(daemon.client().stats()["inFlight"], made["pins"]);
        daemon.terminate();
    }
}

#[test]
fn a_backup_replaces_a_file_only_with_force_and_never_the_database_or_a_link() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    daemon.client().submit("sim-waiting-1");
    let place = &daemon.place;
    let file = place.path("backup.db");
    fs::write(&file, "mine").unwrap();
    let said = refusal(command(place, &file), &[]);
    assert!(said.contains("is there already") && said.contains("--force"), "{said}");
    assert_eq!(fs::read(&file).unwrap(), b"mine");

    let (link, dangling, hard) = (place.path("link.db"), place.path("dangling.db"), place.path("hard.db"));
    symlink(&file, &link).unwrap();
    symlink(place.path("nowhere"), &dangling).unwrap();
    fs::hard_link(place.store(), &hard).unwrap();
    symlink(place.folder.path(), place.path("folder")).unwrap();
    for (target, why) in [
        (link.clone(), "symbolic link"),
        (dangling, "symbolic link"),
        (place.store(), "the database itself"),
        (place.path("folder/pinwatch.db"), "the database itself"),
        (hard, "the database itself"),
        (place.path("pinwatch.db-wal"), "the database itself"),
        (place.path("pinwatch.db-journal"), "the database itself"),
        (place.path("pinwatch.db.lock"), "the database itself"),
        (place.path("folder"), "a folder"),
        (place.path("pinwatch.sock"), "no regular file"),
        (place.path("no/such/folder.db"), "No such file"),
    ] {
        for more in [&[][..], &["--force"]] {
            let said = refusal(command(place, &target), more);
            assert!(said.contains(why), "{}: {said}", target.display());
        }
    }
    // SQLite would play a log of another database back into the backup.
    fs::write(place.path("fresh.db-wal"), "of another").unwrap();
    assert!(refusal(command(place, &place.path("fresh.db")), &["--force"]).contains("fresh.db-wal"));
    assert!(!place.path("fresh.db").exists() && !place.path("nowhere").exists());
    assert_eq!(fs::read(&file).unwrap(), b"mine", "nor is what a link leads to replaced");

    let mut forced = command(place, &file);
    forced.arg("--force");
    assert_eq!(run_to_end(forced).code, Some(0));
    assert_eq!(count(&file, "SELECT count(*) FROM pin"), 1);
    assert_eq!(daemon.client().submit("sim-waiting-2"), "accepted", "the daemon noticed nothing");
    let hidden = fs::read_dir(place.folder.path()).unwrap();
    let hidden =
        hidden.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
    assert_eq!(hidden.count(), 0, "something was left behind");
}

#[test]
fn an_interrupted_backup_leaves_no_file_and_keeps_the_previous_one() {
    let api = Simulated::start();
    let place = Place::new(&api.base_url()).start().terminate();
    fill(&place, 200_000);
    for (signal, leaves_nothing) in
        [(rustix::process::Signal::KILL, false), (rustix::process::Signal::TERM, true)]
    {
        for old in [None, Some("an older one")] {
            let backups = tempfile::tempdir().unwrap();
            let file = backups.path().join("pinwatch.db");
            old.inspect(|old| fs::write(&file, old).unwrap());
            let mut command = command(&place, &file);
            command.arg("--force").stderr(std::process::Stdio::null());
            let mut process = Child::spawn(command);
            until("something is written", || {
                let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
                let unfinished = entries(backups.path()).find(|entry| entry.file_name() != "pinwatch.db")?;
                let is_written =
                    |entry: fs::DirEntry| entry.metadata().is_ok_and(|file| file.len() > 1 << 20);
                entries(&unfinished.path()).any(is_written).then_some(())
            });
            assert!(process.ended().is_none(), "it was too fast for this test");
            process.signal(signal);
            until("its end", || process.ended());
            assert_eq!(fs::read_to_string(&file).ok().as_deref(), old);
            if leaves_nothing {
                assert_holds(backups.path(), if old.is_some() { &["pinwatch.db"] } else { &[] });
            }
        }
    }
}

#[test]
fn a_backup_saves_a_removed_database_that_the_daemon_still_has_open() {
    if !rustix::process::geteuid().is_root() {
        crate::support::not_run::not_run(
            "a removed database is saved",
            "root, to see what a daemon has open",
        );
        return;
    }
    let api = Simulated::start();
    for (what, lose) in [
        (
            "the database is removed",
            (|place| fs::remove_file(place.store())) as fn(&Place) -> std::io::Result<()>,
        ),
        ("its log too", |place| {
            fs::remove_file(place.store()).and(fs::remove_file(place.path("pinwatch.db-wal")))
        }),
        ("another file is in its place", |place| {
            fs::write(place.path("other"), "").and(fs::rename(place.path("other"), place.store()))
        }),
    ] {
        let daemon = Place::new(&api.base_url()).start();
        let mut client = daemon.client();
        for n in 0..50 {
            client.submit(&format!("sim-waiting-{n}"));
        }
        drop(client);
        let file = daemon.place.path("backup.db");
        lose(&daemon.place).unwrap();
        assert_eq!(back_up(&daemon.place, &file)["pins"], 50, "{what}");
        let place = daemon.terminate();
        restore(&place, &file);
        assert_eq!(place.start().client().stats()["inFlight"], 50, "{what}");
    }
    // Without either, that is what it says.
    let nothing = Place::new(&api.base_url());
    assert!(refusal(command(&nothing, &nothing.path("backup.db")), &[]).contains("there is no database"));
}

#[test]
fn backup_names_pg_dump_for_a_store_in_postgresql() {
    let place = Place::new("http://127.0.0.1:1");
    let mut command = command(&place, &place.path("backup.db"));
    command.args(["--set", "store.url=postgres://me:secret@localhost/pins"]);
    let Ended { code, stderr, .. } = run_to_end(command);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("pg_dump --format=custom --file=") && !stderr.contains("secret"), "{stderr}");
}
