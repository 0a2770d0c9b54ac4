//! A database that has lost acknowledged PINs is noticed and left unchanged.

use std::fs;
use std::path::Path;

use super::{NOWHERE, assert_refused, contents};
use crate::support::Place;

const PINS: usize = 200;

/// A place whose daemon has accepted PINs, each in a commit of its own, and was killed.
fn killed() -> Place {
    let daemon = Place::new(NOWHERE).never_due().start();
    let mut client = daemon.client();
    for n in 0..PINS {
        assert_eq!(client.submit(&format!("PIN-{n}")), "accepted");
    }
    daemon.kill9()
}

fn wal(place: &Place) -> std::path::PathBuf {
    place.path("pinwatch.db-wal")
}

#[track_caller]
fn assert_noticed(place: &Place) {
    let bytes = |path: &Path| fs::read(path).ok();
    let before = (bytes(&place.store()), bytes(&wal(place)));
    for _ in 0..2 {
        assert_refused(place, 1, &["has lost commits", "were acknowledged", "pinwatch.db.lock"]);
    }
    assert!(before == (bytes(&place.store()), bytes(&wal(place))), "the database or its log was changed");
}

/// Follows the advice of the message.
fn goes_on_without_the_lock(place: Place, expected: impl Fn(u64) -> bool) {
    fs::remove_file(place.path("pinwatch.db.lock")).unwrap();
    let daemon = place.start();
    let in_flight = daemon.client().stats()["inFlight"].as_u64().unwrap();
    assert!(expected(in_flight), "{in_flight}");
    assert_eq!(daemon.client().submit("PIN-new"), "accepted");
    let daemon = daemon.kill9().start();
    assert_eq!(daemon.client().stats()["inFlight"].as_u64(), Some(in_flight + 1));
}

#[test]
fn a_start_after_a_kill_recovers_every_pin_from_the_wal() {
    let place = killed();
    assert!(fs::metadata(wal(&place)).unwrap().len() > 0, "or these tests would show nothing");
    assert_eq!(place.start().client().stats()["inFlight"], PINS);
}

#[test]
fn a_removed_wal_is_noticed() {
    let place = killed();
    fs::remove_file(wal(&place)).unwrap();
    assert_noticed(&place);
    goes_on_without_the_lock(place, |in_flight| in_flight < PINS as u64);
}

#[test]
fn a_truncated_wal_is_noticed() {
    let place = killed();
    let whole = fs::read(wal(&place)).unwrap();
    for keep in [0, 20, whole.len() / 2, whole.len() - 5000] {
        fs::write(wal(&place), &whole[..keep]).unwrap();
        assert_noticed(&place);
    }
    goes_on_without_the_lock(place, |in_flight| in_flight < PINS as u64);
}

#[test]
fn a_database_that_was_removed_or_emptied_is_noticed() {
    let place = killed().start().terminate();
    fs::write(place.store(), "").unwrap();
    assert_refused(&place, 1, &["has lost commits"]);
    fs::remove_file(place.store()).unwrap();
    assert_refused(&place, 1, &["has lost commits"]);
    goes_on_without_the_lock(place, |in_flight| in_flight == 0);
}

#[test]
fn an_older_copy_of_the_database_is_noticed() {
    let place = killed().start().terminate();
    let backup = fs::read(place.store()).unwrap();
    let daemon = place.start();
    assert_eq!(daemon.client().submit("PIN-later"), "accepted");
    let place = daemon.terminate();
    fs::write(place.store(), &backup).unwrap();
    assert_noticed(&place);
    goes_on_without_the_lock(place, |in_flight| in_flight == PINS as u64);
}

#[test]
fn a_clean_stop_leaves_the_database_and_its_lock_file() {
    let place = killed().start().terminate();
    let names: Vec<String> =
        contents(place.folder.path()).into_keys().filter(|name| name.starts_with("pinwatch.db")).collect();
    assert_eq!(names, ["pinwatch.db", "pinwatch.db.lock"]);
}
