//! A database that is damaged, foreign or truncated: the daemon refuses to start, says what is wrong,
//! where, and what to do, and changes no byte.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::support::{Place, Simulated, all_delivered, sim_pins, submit, until};

/// The files of a stopped or killed daemon, with their bytes.
type Files = Vec<(&'static str, Vec<u8>)>;

/// The files of a database and its lock file, which counts its commits. `-shm` has no data.
const SUFFIXES: [&str; 3] = ["", "-wal", ".lock"];

const IN_FLIGHT_WHEN_KILLED: usize = 150;
const IN_FLIGHT_WHEN_STOPPED: usize = 1500;

fn files(place: &Place) -> Files {
    SUFFIXES.iter().filter_map(|suffix| Some((*suffix, fs::read(place.beside(suffix)).ok()?))).collect()
}

/// The files of a daemon with PINs in flight and outcomes; killed, so that its last commits are in the WAL
/// alone, or stopped, so that there is none.
fn left_behind(api: &Simulated, killed: bool) -> Files {
    let place = Place::in_folders(&api.base_url());
    let daemon = place.start();
    let mut client = daemon.client();
    // Killed: so few that the WAL was never checkpointed. Stopped: so many that tables have several levels.
    let count = if killed { IN_FLIGHT_WHEN_KILLED } else { IN_FLIGHT_WHEN_STOPPED };
    submit(&mut client, &sim_pins("delivered", count));
    submit(&mut client, &sim_pins("waiting", count - 1));
    until("some have their outcome", || (client.stats()["inFlight"] == count - 1).then_some(()));
    all_delivered(&mut client);
    // The last acknowledged commit is in the lock file: a kill between the two loses nothing acknowledged.
    submit(&mut client, &sim_pins("none", 1));
    drop(client);
    if killed {
        daemon.kill9();
    } else {
        daemon.terminate();
    }
    files(&place)
}

/// A place with these files, as if its daemon had left them.
fn place_with(files: &Files) -> Place {
    let place = Place::in_folders("http://127.0.0.1:1");
    for (suffix, bytes) in files {
        fs::write(place.beside(suffix), bytes).expect("a file can be written");
    }
    place
}

/// Starts the daemon, which must refuse; returns its message.
#[track_caller]
fn refusal(place: &Place, title: &str) -> String {
    let before = files(place);
    let mut daemon = place.spawn();
    let ended = until("it refuses or serves", || match daemon.ended() {
        Some(status) => Some(Some(status)),
        None => daemon.try_client().map(|_| None),
    });
    let status = ended.unwrap_or_else(|| panic!("{title}: it was started:\n{}", daemon.log()));
    let said = daemon.log();
    assert_eq!(status.code(), Some(1), "{title}: {said}");
    assert!(said.contains(place.store().to_str().unwrap()), "{title}: {said}");
    let content = |files: &Files| -> Files {
        // A missing file beside the database may be created, empty.
        files.iter().filter(|(suffix, bytes)| suffix.is_empty() || !bytes.is_empty()).cloned().collect()
    };
    let same = content(&files(place)) == content(&before);
    assert!(same, "{title}: it changed files that it refused: {said}");
    said
}

fn cut(path: &Path, length: u64) {
    fs::File::options().write(true).open(path).and_then(|file| file.set_len(length)).expect("it can be cut");
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).expect("it is there").len()
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let file = fs::File::options().write(true).open(path).expect("it is there");
    file.write_all_at(bytes, at).expect("it can be written");
}

/// A title, a change of the files, and what the refusal must contain.
type Case = (&'static str, fn(&Place), &'static [&'static str]);

const LOST: &[&str] = &["has lost commits", "were acknowledged", "remove ", ".lock"];
const DAMAGED: &[&str] = &["is damaged", "were not changed", "Restore a backup", ".recover"];
const FOREIGN: &[&str] = &["is not a pinwatch database", "was left as it is", "store.url"];

const AFTER_A_KILL: &[Case] = &[
    ("a WAL cut to half", |place| cut(&place.beside("-wal"), length(&place.beside("-wal")) / 2), LOST),
    (
        "a WAL cut in its last frame",
        |place| cut(&place.beside("-wal"), length(&place.beside("-wal")) - 100),
        LOST,
    ),
    ("a WAL cut to nothing", |place| cut(&place.beside("-wal"), 0), LOST),
    ("a removed WAL", |place| fs::remove_file(place.beside("-wal")).unwrap(), LOST),
    (
        "a flipped byte in the WAL's first frame",
        |place| overwrite(&place.beside("-wal"), 100, b"\xaa\x55"),
        LOST,
    ),
    (
        "a main file cut to nothing beside its WAL",
        |place| cut(&place.store(), 0),
        &["is damaged", "empty", "-wal", "were not changed"],
    ),
    (
        "a removed main file whose WAL is there",
        |place| fs::remove_file(place.store()).unwrap(),
        &["is damaged", "missing", "-wal", "were not changed"],
    ),
];

const AFTER_A_STOP: &[Case] = &[
    ("a main file cut in the middle of a page", |place| cut(&place.store(), 10_000), DAMAGED),
    (
        "a main file cut between two pages",
        |place| cut(&place.store(), length(&place.store()) / 8192 * 4096),
        DAMAGED,
    ),
    ("a main file cut to its first page", |place| cut(&place.store(), 4096), DAMAGED),
    ("a main file cut within its header", |place| cut(&place.store(), 50), DAMAGED),
    ("a main file cut to nothing", |place| cut(&place.store(), 0), LOST),
    ("a removed main file", |place| fs::remove_file(place.store()).unwrap(), LOST),
    ("a damaged header", |place| overwrite(&place.store(), 0, b"SQLito"), FOREIGN),
    ("a text file", |place| fs::write(place.store(), "These are my notes.\n".repeat(1000)).unwrap(), FOREIGN),
    ("a short text file", |place| fs::write(place.store(), "notes\n").unwrap(), FOREIGN),
    ("zeros", |place| fs::write(place.store(), [0; 16384]).unwrap(), FOREIGN),
    ("the database of another program", another_programs_database, FOREIGN),
    (
        "a database of a newer pinwatch",
        a_newer_database,
        &["newer pinwatch", "schema 9999", "install that version"],
    ),
    (
        "a flipped bit in a PIN ID",
        a_flipped_bit_in_a_pin_id,
        &["is damaged", "a PIN in flight is damaged", "Restore a backup"],
    ),
    (
        "a row whose number none of ours can have",
        |place| sql(place, "UPDATE pin SET number = -1 WHERE number = (SELECT max(number) FROM pin)"),
        &["is damaged", "a PIN in flight is damaged: \"-1\""],
    ),
    (
        "a row whose number is too large",
        |place| sql(place, "UPDATE pin SET number = 1 << 48 WHERE number = (SELECT max(number) FROM pin)"),
        &["is damaged", "a PIN in flight is damaged: \"281474976710656\""],
    ),
    (
        "a PIN in flight that stands there twice",
        |place| {
            sql(
                place,
                "INSERT INTO pin SELECT NULL, pin_id, pin_hash, 0, 0, NULL, NULL, 0, NULL FROM pin LIMIT 1",
            )
        },
        &["is damaged", "the index has 1500 PINs in flight, the table has 1501"],
    ),
    ("a backup of before the last commits", an_older_copy, LOST),
];

fn another_programs_database(place: &Place) {
    fs::remove_file(place.store()).unwrap();
    sql(place, "CREATE TABLE shopping (what TEXT)");
}

fn a_newer_database(place: &Place) {
    sql(
        place,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'later', 1, x'00', 0)",
    );
}

fn an_older_copy(place: &Place) {
    sql(place, "UPDATE history SET commits = commits - 1");
}

/// Into another valid one.
fn a_flipped_bit_in_a_pin_id(place: &Place) {
    let bytes = fs::read(place.store()).unwrap();
    let at = memchr::memmem::rfind(&bytes, b"sim-waiting-7").expect("a PIN in flight is in the file");
    overwrite(&place.store(), at as u64 + 12, b"6");
}

/// Runs SQL on the database, and leaves no WAL.
fn sql(place: &Place, statement: &'static str) {
    use sqlx::{ConnectOptions, Connection};
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(place.store()).create_if_missing(true);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = options.connect().await.unwrap();
        sqlx::query(statement).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
}

#[test]
fn a_damaged_or_foreign_database_is_refused_with_advice_and_not_changed() {
    let api = Simulated::start();
    for (killed, cases) in [(true, AFTER_A_KILL), (false, AFTER_A_STOP)] {
        let files = left_behind(&api, killed);
        assert_eq!(
            files.iter().any(|(suffix, _)| *suffix == "-wal"),
            killed,
            "a WAL is left by a kill alone"
        );
        for (title, damage, says) in cases {
            let place = place_with(&files);
            damage(&place);
            let said = refusal(&place, title);
            for part in *says {
                assert!(said.contains(part), "{title}: {part:?} is not said: {said}");
            }
            println!("{title}:\n  {}", said.trim_end().lines().last().unwrap_or_default());
        }
    }
}

#[test]
fn a_database_with_any_overwritten_page_is_refused_and_not_changed() {
    let api = Simulated::start();
    let files = left_behind(&api, false);
    let pages = files[0].1.len() / 4096;
    let mut random = fastrand::Rng::with_seed(1);
    for page in 1..pages {
        let place = place_with(&files);
        let garbage: Vec<u8> = (0..4096).map(|_| random.u8(..)).collect();
        overwrite(&place.store(), page as u64 * 4096, &garbage);
        let said = refusal(&place, &format!("page {page} of {pages} overwritten"));
        assert!(said.contains("is damaged"), "page {page}: {said}");
    }
    println!("{pages} pages, each overwritten once, each noticed");
}

#[test]
fn an_undamaged_database_is_used_after_a_kill_and_after_a_stop() {
    let api = Simulated::start();
    for (killed, count) in [(true, IN_FLIGHT_WHEN_KILLED), (false, IN_FLIGHT_WHEN_STOPPED)] {
        let place = place_with(&left_behind(&api, killed));
        let daemon = place.start();
        assert_eq!(daemon.client().stats()["inFlight"], count);
        daemon.terminate();
    }
}
