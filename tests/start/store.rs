//! A database that can't be used (foreign, newer, damaged) is refused and not changed.

use std::fs;

use super::{NOWHERE, assert_refused, contents};
use crate::support::{Place, change, change_as_if_killed, count, flip_a_byte};

/// As [`assert_refused`]; checks that no byte of the database was changed, and only the lock file was added.
#[track_caller]
fn assert_untouched(place: &Place, says: &[&str]) {
    let mut before = contents(place.folder.path());
    let store = place.store();
    let mut says = says.to_vec();
    says.push(store.to_str().unwrap());
    assert_refused(place, 1, &says);
    // A second start gets the same result.
    assert_refused(place, 1, &says);
    let after = contents(place.folder.path());
    let names =
        |files: &std::collections::BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&after), names(&before));
    // An index of the log, which whoever opens it works out anew.
    before.remove("pinwatch.db-shm");
    for (name, bytes) in &before {
        assert!(after[name] == *bytes, "{name} was changed");
    }
}

/// A place whose daemon has accepted some PINs and was stopped.
fn used() -> Place {
    let daemon = Place::new(NOWHERE).never_due().start();
    let pins: Vec<String> = (0..3000).map(|n| format!("PIN-{n}")).collect();
    daemon.client().submit_all(&pins);
    daemon.terminate()
}

#[test]
fn a_file_that_is_not_a_database_is_left_unchanged() {
    for text in ["my notes\n".repeat(1000), "x".into(), "SQLite format 3\0".into(), "\0".repeat(8192)] {
        let place = Place::new(NOWHERE);
        fs::write(place.store(), &text).unwrap();
        assert_untouched(&place, &["is not a pinwatch database"]);
    }
}

#[test]
fn the_database_of_another_program_is_left_unchanged() {
    let place = Place::new(NOWHERE);
    change(&place.store(), "CREATE TABLE song (title TEXT); INSERT INTO song VALUES ('x')");
    assert_untouched(&place, &["the SQLite database of another program"]);
    change(&place.store(), "PRAGMA journal_mode = WAL");
    assert_untouched(&place, &["the SQLite database of another program"]);
    change_as_if_killed(&place.store(), "INSERT INTO song VALUES ('y')");
    assert_untouched(&place, &["the SQLite database of another program"]);
    // One that has our tables' names, and says that it is not ours.
    let place = Place::new(NOWHERE);
    change(&place.store(), "PRAGMA application_id = 7; CREATE TABLE pin (pin_id TEXT)");
    assert_untouched(&place, &["the SQLite database of another program"]);
}

#[test]
fn a_database_of_a_newer_version_is_left_unchanged() {
    let newer = "INSERT INTO _sqlx_migrations \
                 SELECT 9999, description, installed_on, success, checksum, execution_time \
                 FROM _sqlx_migrations LIMIT 1";
    let place = used();
    change(&place.store(), newer);
    assert_untouched(&place, &["written by a newer pinwatch", "9999"]);
    // And one whose daemon was killed: half of it is in its log.
    let place = used();
    change_as_if_killed(&place.store(), newer);
    assert_untouched(&place, &["written by a newer pinwatch", "9999"]);
}

/// Turns a database into one of the first schema, where PINs stood in the order of their IDs.
const FIRST_SCHEMA: &str = "
    CREATE TABLE before (pin_id TEXT NOT NULL PRIMARY KEY, submitted_at INTEGER NOT NULL, deadline_at INTEGER NOT NULL,
                         reference TEXT, metadata TEXT) STRICT, WITHOUT ROWID;
    INSERT INTO before SELECT pin_id, submitted_at, deadline_at, 'order of ' || pin_id, '{}' FROM pin;
    DROP TABLE pin;
    ALTER TABLE before RENAME TO pin;
    DROP TABLE dropped;
    DROP TABLE outcome_by_reference;
    ALTER TABLE history DROP COLUMN unreferenced_to;
    ALTER TABLE history DROP COLUMN pruned_to;
    ALTER TABLE history DROP COLUMN steady;
    ALTER TABLE history DROP COLUMN boot_id;
    ALTER TABLE brake DROP COLUMN learned;
    ALTER TABLE outcome DROP COLUMN submitter;
    ALTER TABLE history DROP COLUMN boot_time;
    ALTER TABLE delivery DROP COLUMN first_ahead;
    ALTER TABLE delivery DROP COLUMN last_ahead;
    DELETE FROM _sqlx_migrations WHERE version > 1;
    VACUUM";

#[test]
fn a_database_of_an_earlier_version_is_migrated_with_every_pin() {
    for change in [change, change_as_if_killed] {
        let mut place = used();
        change(&place.store(), FIRST_SCHEMA);
        for _ in 0..2 {
            let daemon = place.start();
            let mut client = daemon.client();
            assert_eq!(client.stats()["inFlight"], 3000);
            assert_eq!(client.submit("PIN-7"), "duplicate");
            let pin = &client.ask(r#"{"op":"show","pinId":"PIN-2999"}"#)["pin"];
            assert_eq!(
                (&pin["state"], &pin["reference"]),
                (&"in_flight".into(), &"order of PIN-2999".into())
            );
            drop(client);
            place = daemon.terminate();
        }
        // The oldest first, as they will be from now on.
        let order = "SELECT count(*) FROM pin JOIN pin AS next ON next.number = pin.number + 1 \
                     WHERE next.submitted_at < pin.submitted_at";
        assert_eq!(count(&place.store(), order), 0);
        assert_eq!(count(&place.store(), "SELECT count(*) FROM pin"), 3000);
    }
}

#[test]
fn a_damaged_database_of_an_earlier_version_is_not_migrated() {
    // Another ID, which its place in the order tells; and none at all, at its place.
    for wrong in ["PIN-9500", "PIN-150/"] {
        let place = used();
        change(&place.store(), FIRST_SCHEMA);
        let mut bytes = fs::read(place.store()).unwrap();
        let mut found = memchr::memmem::find_iter(&bytes, "PIN-1500");
        let at = found.find(|at| !bytes[..*at].ends_with(b"of ")).unwrap();
        bytes[at..at + wrong.len()].copy_from_slice(wrong.as_bytes());
        fs::write(place.store(), bytes).unwrap();
        assert_untouched(&place, &["is damaged"]);
    }
}

#[test]
fn a_first_start_that_was_killed_before_its_migration_does_not_block_the_next() {
    // What sqlx makes before the first migration, in a transaction of its own.
    let list = "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, \
                installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, \
                checksum BLOB NOT NULL, execution_time BIGINT NOT NULL)";
    for begun in ["", "PRAGMA journal_mode = WAL", &format!("PRAGMA journal_mode = WAL; {list}")] {
        let place = Place::new(NOWHERE).never_due();
        change(&place.store(), begun);
        assert_eq!(place.start().client().submit("A"), "accepted");
    }
}

#[test]
fn a_damaged_database_is_left_unchanged() {
    let place = used();
    let whole = fs::read(place.store()).unwrap();
    let page = usize::from(u16::from_be_bytes([whole[16], whole[17]]));
    let pages = whole.len() / page;
    assert!(pages > 20, "{pages} pages");
    // The first byte of a page says what it is.
    for n in (1..pages).step_by(5) {
        fs::write(place.store(), &whole).unwrap();
        flip_a_byte(&place.store(), (n * page) as u64);
        assert_untouched(&place, &["is damaged"]);
    }
    fs::write(place.store(), &whole[..whole.len() / 2]).unwrap();
    assert_untouched(&place, &["is damaged"]);
    fs::write(place.store(), &whole[..whole.len() - 100]).unwrap();
    assert_untouched(&place, &["is damaged"]);
    // The first page: nobody can tell whose it was.
    fs::write(place.store(), &whole).unwrap();
    flip_a_byte(&place.store(), 3);
    assert_untouched(&place, &["its first page is damaged"]);

    fs::write(place.store(), &whole).unwrap();
    assert_eq!(place.start().client().stats()["inFlight"], 3000, "whole again");
}
