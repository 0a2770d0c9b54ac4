//! A database of version 0.1.0 is brought up to date by this version, and nothing in it is lost: no PIN in flight, no
//! outcome, no dead letter, no sink's place, nothing that the schedule learned.
//!
//! The files in `fixtures/` were written by that version (SQLite's schema 7, PostgreSQL's 6; the second one by `pg_dump
//! --inserts`). It had 35 PINs that ended, one of which the sink `hook` refused, and was stopped with three in flight.
//! Never write them anew with a later version: then they would test nothing.

use std::fs;
use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::Value;

use crate::support::postgres::Postgres;
use crate::support::{Daemon, Place, Simulated, count, until_true};

const SQLITE: &[u8] = include_bytes!("fixtures/0.1.0.db.gz");
const POSTGRES: &[u8] = include_bytes!("fixtures/0.1.0.sql.gz");

/// How many PINs had ended.
const ENDED: usize = 35;

const IN_FLIGHT: [&str; 3] = ["sim-delivered-open-1", "sim-300ms-open-2", "sim-failed-open-3"];

fn unpacked(file: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    bytes
}

/// A place with that version's sinks, of which `hook` is no longer configured.
fn place(api: &Simulated) -> Place {
    // However old the files are when this machine still runs.
    let place = Place::new(&api.base_url()).file_sinks(&["results"]).set("store.retention", "10years");
    place.set("schedule.adapt", "fewer").set("cluster.node", "old")
}

/// Checks that everything is kept, and that the PINs in flight end normally.
fn assert_everything_continues(daemon: &Daemon) {
    let place = &daemon.place;
    let first = &place.ask(&["show", "sim-delivered-1"])[0];
    let outcome = &first["outcome"];
    assert_eq!(
        (&outcome["seq"], &outcome["reference"], &outcome["metadata"]["shop"]),
        (&1.into(), &"order-1".into(), &7.into())
    );
    assert_eq!(place.ask(&["show", "order-1"])[0]["pinId"], "sim-delivered-1", "found by its reference");
    assert_eq!(place.ask(&["show", "order-open"])[0]["pinId"], IN_FLIGHT[0]);
    let listed = place.ask(&["list", "--state", "finished", "--reference", "order-1"]);
    assert_eq!(listed[0]["pinId"], "sim-delivered-1");
    assert_eq!(daemon.client().submit("sim-failed-1"), "finished");
    assert_eq!(place.ask(&["show", "sim-waiting-1"])[0]["outcome"]["outcome"], "cancelled");

    let letters = place.ask(&["dead-letters", "list"]);
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(
        (&letters[0]["sink"], &letters[0]["pinId"]),
        (&"hook".into(), &"sim-delivered-refused".into())
    );

    // The sink goes on where it was: it had the others already.
    let lines: Vec<Value> =
        place.lines("results", IN_FLIGHT.len()).iter().map(|line| crate::support::json(line)).collect();
    let mut pins: Vec<_> = lines.iter().map(|record| record["pinId"].as_str().unwrap()).collect();
    pins.sort_unstable();
    let mut expected = IN_FLIGHT;
    expected.sort_unstable();
    assert_eq!(pins, expected);
    let open = lines.iter().find(|record| record["pinId"] == IN_FLIGHT[0]).unwrap();
    assert_eq!(
        (&open["outcome"], &open["reference"], &open["metadata"]["shop"]),
        (&"final".into(), &"order-open".into(), &8.into())
    );

    let all = place.ask(&["tail", "-n", "1000"]);
    let by_pin = super::by_pin(&all);
    assert_eq!(by_pin.len(), ENDED + IN_FLIGHT.len());
    assert!(by_pin.values().all(|count| *count == 1), "{by_pin:?}");
    until_true("no PIN is left", || daemon.client().stats()["inFlight"] == 0);
}

#[test]
fn a_sqlite_file_of_0_1_is_migrated_and_continued() {
    let api = Simulated::start();
    let place = place(&api);
    fs::write(place.store(), unpacked(SQLITE)).unwrap();
    let before = count(&place.store(), "SELECT max(version) FROM _sqlx_migrations");
    assert_eq!(before, 7, "the file is no longer 0.1.0's");

    let daemon = place.start();
    assert_everything_continues(&daemon);
    let learned = daemon.client().stats()["learned"]["endings"].as_u64().unwrap();
    assert!(learned as usize >= ENDED, "what was learned from {ENDED} PINs is lost: {learned}");

    // What this version wrote, it reads again.
    let daemon = daemon.terminate().start();
    assert_eq!(daemon.place.ask(&["tail", "-n", "1000"]).len(), ENDED + IN_FLIGHT.len());
    daemon.terminate();
    let newest =
        fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/sqlite/migrations")).unwrap().count();
    assert_eq!(count(&place.store(), "SELECT max(version) FROM _sqlx_migrations"), newest as i64);
}

#[test]
fn a_postgresql_database_of_0_1_is_migrated_and_continued() {
    let Some(server) = Postgres::shared() else { return };
    let database = server.database();
    database.execute(&String::from_utf8(unpacked(POSTGRES)).unwrap());
    let api = Simulated::start();
    let place = place(&api);
    let config = fs::read_to_string(place.config()).unwrap();
    let sqlite = format!("sqlite:{}", place.store().display());
    // In the file, where a password belongs; every user can read a command line.
    fs::write(place.config(), config.replace(&sqlite, &database.url())).unwrap();

    let daemon = place.start();
    assert_everything_continues(&daemon);
    daemon.terminate();
    let newest =
        fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/postgres/migrations")).unwrap().count();
    assert_eq!(database.count("SELECT max(version) FROM pinwatch._sqlx_migrations"), newest as i64);
}
