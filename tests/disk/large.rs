//! A store with far more outcomes than PINs in flight, as `store.retention` leaves it: a start reads only what it needs,
//! and checks what it reads.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::support::{Client, Daemon, Place, Simulated, all_delivered, sim_pins, submit, until};
use crate::support::{change, column};
use serde_json::json;

/// Larger than the files that a start reads completely.
const LARGE: u64 = 256 * 1024 * 1024;

/// Outcomes of some 1,600 bytes each, which the file sink has, behind those that there are.
const KEPT: &str = "
    WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 180000)
    INSERT INTO outcome (pin_id, finished_at, record)
        SELECT 'KEPT-' || n, unixepoch() * 1000,
               '{\"pinId\":\"KEPT-' || n || '\",\"outcome\":\"final\",\"padding\":\"' || hex(zeroblob(780)) || '\"}' FROM n;
    UPDATE history SET indexed = (SELECT max(seq) FROM outcome);
    UPDATE sink SET cursor = (SELECT max(seq) FROM outcome);
";

const WAITING: usize = 500;

/// The folder of a daemon with PINs in flight, which kept outcomes and was stopped.
fn large(api: &Simulated) -> Place {
    let place = Place::in_folders(&api.base_url());
    let daemon = place.start();
    submit(&mut daemon.client(), &sim_pins("waiting", WAITING));
    daemon.terminate();
    change(&place.store(), KEPT);
    assert!(fs::metadata(place.store()).unwrap().len() > LARGE);
    place
}

const PAGE: u64 = 4096;

/// The page in which this stands, the first being 0.
#[track_caller]
fn page_of(database: &Path, text: &str) -> u64 {
    let bytes = fs::read(database).unwrap();
    let place = memchr::memmem::find(&bytes, text.as_bytes()).expect("it is in the file");
    place as u64 / PAGE
}

/// Overwrites the beginning of a page, by which SQLite knows what it is.
fn damage(database: &Path, page: u64) {
    let file = File::options().write(true).open(database).unwrap();
    file.write_all_at(&[0xaa; 16], page * PAGE).unwrap();
}

fn cut(database: &Path, bytes: u64) {
    let file = File::options().write(true).open(database).unwrap();
    file.set_len(file.metadata().unwrap().len() - bytes).unwrap();
}

#[track_caller]
fn refused(place: &Place) -> String {
    let mut daemon = place.spawn();
    let ended = until("it refuses or serves", || match daemon.ended() {
        Some(status) => Some(Some(status)),
        None => daemon.try_client().map(|_| None),
    });
    assert_eq!(ended.and_then(|status| status.code()), Some(1), "{}", daemon.log());
    daemon.log()
}

/// The bytes that the daemon read from files, cached or not.
fn read_by(daemon: &Daemon) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", daemon.pid())).unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.expect("Linux counts it").parse().unwrap()
}

fn first_of_tail(client: &mut Client, from: i64) -> serde_json::Value {
    client.ask(json!({"op": "tail", "from": from}).to_string())
}

#[test]
fn a_start_does_not_read_the_outcomes_that_are_kept() {
    let api = Simulated::start();
    let place = large(&api);
    let daemon = place.start();
    let read = read_by(&daemon);
    assert!(read < LARGE / 16, "{read} bytes were read");
    let mut client = daemon.client();
    assert_eq!(client.stats()["inFlight"], WAITING);
    submit(&mut client, &sim_pins("delivered", 50));
    all_delivered(&mut client);
    assert_eq!(first_of_tail(&mut client, 90_000)["pinId"], "KEPT-90000");
}

#[test]
fn a_start_checks_the_pages_that_it_reads_of_a_large_file() {
    let api = Simulated::start();
    let place = large(&api);
    let file = place.store();
    let whole = fs::read(&file).unwrap();
    let refused = |what: &str| {
        let before = fs::read(&file).unwrap();
        let said = refused(&place);
        assert!(said.contains("is damaged") && said.contains("were not changed"), "{what}: {said}");
        assert!(!said.contains("; ok"), "{what}: {said}");
        assert!(fs::read(&file).unwrap() == before, "{what}");
        fs::write(&file, &whole).unwrap();
    };
    damage(&file, page_of(&file, "sim-waiting-"));
    refused("PINs in flight");
    let roots = "SELECT name || ' ' || (rootpage - 1) FROM sqlite_schema \
                 WHERE tbl_name NOT IN ('outcome', 'outcome_by_pin', 'outcome_by_reference') AND rootpage > 0";
    let roots = column(&file, roots);
    assert!(roots.len() > 7, "{roots:?}");
    for root in roots {
        let (name, page) = root.split_once(' ').unwrap();
        damage(&file, page.parse().unwrap());
        refused(name);
    }
    cut(&file, 2 * PAGE);
    refused("pages cut off");
    cut(&file, 100);
    refused("a part of a page cut off");
}

#[test]
fn a_damaged_page_of_old_outcomes_is_reported_to_its_readers_and_affects_no_other() {
    let api = Simulated::start();
    let place = large(&api);
    damage(&place.store(), page_of(&place.store(), "KEPT-90000\""));
    let daemon = place.start();
    let mut client = daemon.client();
    submit(&mut client, &sim_pins("delivered", 50));
    all_delivered(&mut client);
    let answer = first_of_tail(&mut client, 90_000);
    assert_eq!(answer["error"]["code"], "store_unavailable", "{answer}");
    assert_eq!(first_of_tail(&mut daemon.client(), 170_000)["pinId"], "KEPT-170000");
    assert!(client.stats()["store"]["trouble"].is_null());
}
