//! Whatever PINs come and go and whatever fails, memory and file have the same PINs in flight.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jiff::Timestamp;

use super::super::Reader;
use super::super::open::open as open_file;
use super::super::write::WriteConnection;
use super::*;
use crate::clock::Clock;
use crate::outcome::Ending;
use crate::pin::PinId;
use crate::store::{Reads, SavedSchedule, Transaction, Wanted, Writes};

const PINS: u64 = 40;
const ROOM: usize = 25;

/// Also returns what was loaded: each ID with its time of submission.
async fn open(path: &Path) -> (Reader, WriteConnection, BTreeMap<String, i64>) {
    let mut loaded = Vec::new();
    let both = open_file(path, &Clock::system()).await.unwrap().load_both(|pin| loaded.push(pin)).await;
    let (reader, writer) = both.unwrap_or_else(|error| panic!("{error}"));
    let all = loaded.iter().map(|pin| (pin.pin.to_string(), pin.submitted_at.wall.as_millisecond()));
    let all: BTreeMap<String, i64> = all.collect();
    assert_eq!(all.len(), loaded.len(), "each once");
    (reader, writer, all)
}

/// Two IDs with the same hash, found by trying sixty million.
const SAME_HASH: [&str; 2] = ["PIN-303133", "PIN-38555127"];

fn id(n: u64) -> PinId {
    let same = n.checked_sub(PINS - 2).and_then(|n| SAME_HASH.get(n as usize));
    same.map_or_else(|| format!("PIN-{n}"), |same| (*same).to_owned()).parse().unwrap()
}

fn new(n: u64, at: i64) -> NewPin {
    let submitted_at = Timestamp::from_millisecond(at).unwrap();
    let reference = Some(format!("{n} at {at}"));
    NewPin {
        pin: id(n),
        reference,
        metadata: None,
        submitted_at: submitted_at.into(),
        deadline_at: submitted_at,
        submitter: None,
        again: true,
    }
}

fn verdict(n: u64) -> Verdict {
    let finished_at = Timestamp::UNIX_EPOCH.into();
    Verdict { pin: id(n), ending: Ending::Cancelled, deliveries: None, error: None, polls: 0, finished_at }
}

/// The PINs of all pages of `limit` PINs.
async fn paged(reader: &Reader, limit: u32) -> Vec<String> {
    let (mut all, mut after): (Vec<String>, _) = (Vec::new(), String::new());
    loop {
        let page = reader.in_flight_matching(&after, &Wanted::default(), limit).await.unwrap().unwrap();
        all.extend(page.pins.iter().map(|pin| pin.stored.pin.to_string()));
        let Some(next) = page.next else { return all };
        after = next;
    }
}

#[tokio::test]
async fn the_pins_in_flight_are_the_same_in_memory_and_in_the_file_after_any_changes() {
    let seed = fastrand::u64(..1_000_000);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pinwatch.db");
    let (mut reader, mut writer, loaded) = open(&path).await;
    assert!(loaded.is_empty());
    let mut model: BTreeMap<String, i64> = BTreeMap::new();
    for step in 0..400 {
        // With duplicates, and with PINs that are not in flight.
        let verdicts: Vec<u64> = (0..random.usize(..6)).map(|_| random.u64(..PINS)).collect();
        let submits: Vec<u64> = (0..random.usize(..8)).map(|_| random.u64(..PINS)).collect();
        let work = Transaction {
            verdicts: verdicts.iter().map(|n| verdict(*n)).collect(),
            submits: submits.iter().map(|n| new(*n, step)).collect(),
            schedule: Some(SavedSchedule::default()),
            ..Transaction::default()
        };
        if random.u8(..5) == 0 {
            // The brake is written last: everything before it is done and must be rolled back.
            execute(&mut writer, "ALTER TABLE brake RENAME TO gone").await;
            writer.apply(&work, ROOM).await.map(|_| ()).unwrap_err();
            execute(&mut writer, "ALTER TABLE gone RENAME TO brake").await;
        } else {
            let applied = writer.apply(&work, ROOM).await.unwrap();
            let left: BTreeSet<String> = verdicts.iter().map(|n| id(*n).to_string()).collect();
            let left: Vec<&String> = left.iter().filter(|pin| model.remove(*pin).is_some()).collect();
            assert_eq!(applied.finished.len(), left.len(), "seed {seed}, step {step}");
            for (n, submitted) in submits.iter().zip(applied.submitted) {
                let full = model.len() == ROOM;
                let expected = match model.entry(id(*n).to_string()) {
                    std::collections::btree_map::Entry::Occupied(_) => Submitted::Duplicate,
                    std::collections::btree_map::Entry::Vacant(_) if full => Submitted::AtCapacity,
                    std::collections::btree_map::Entry::Vacant(place) => {
                        place.insert(step);
                        Submitted::Accepted
                    }
                };
                assert_eq!(submitted, expected, "seed {seed}, step {step}");
            }
        }
        if random.u8(..20) == 0 {
            // A crash closes nothing.
            drop((reader, writer));
            let loaded;
            (reader, writer, loaded) = open(&path).await;
            assert_eq!(loaded, model, "seed {seed}, step {step}");
        }
        assert_eq!(writer.in_flight(), model.len(), "seed {seed}, step {step}");
        let listed: BTreeSet<String> = paged(&reader, random.u32(1..9)).await.into_iter().collect();
        assert!(listed.iter().eq(model.keys()), "seed {seed}, step {step}");
        for n in 0..PINS {
            let submission = reader.submission(&id(n)).await.unwrap();
            let reference = submission.and_then(|(submission, _)| submission.reference);
            let expected = model.get(id(n).as_str()).map(|at| format!("{n} at {at}"));
            assert_eq!(reference, expected, "seed {seed}, step {step}");
            if let Some(reference) = reference {
                let found = reader.pins_with_reference(&reference, 9).await.unwrap();
                assert_eq!(found, [id(n)], "seed {seed}, step {step}");
            }
        }
        assert_eq!(writer.pins.references.len(), model.len(), "seed {seed}, step {step}");
    }
}

async fn execute(writer: &mut WriteConnection, sql: &'static str) {
    sqlx::query(sql).execute(&mut writer.connection).await.unwrap();
}

#[tokio::test]
async fn two_pins_with_the_same_hash_are_distinguished() {
    assert_eq!(hash(SAME_HASH[0]), hash(SAME_HASH[1]));
    let folder = tempfile::tempdir().unwrap();
    let (reader, mut writer, _) = open(&folder.path().join("pinwatch.db")).await;
    let [one, other] = [PINS - 2, PINS - 1];
    let submits = vec![new(one, 1), new(other, 2), new(one, 3)];
    let applied = writer.apply(&Transaction { submits, ..Transaction::default() }, 9).await.unwrap();
    assert_eq!(applied.submitted, [Submitted::Accepted, Submitted::Accepted, Submitted::Duplicate]);
    assert_eq!(paged(&reader, 1).await, SAME_HASH);
    for (pin, at) in [(one, 1), (other, 2)] {
        let (submission, _) = reader.submission(&id(pin)).await.unwrap().unwrap();
        assert_eq!(submission.reference, Some(format!("{pin} at {at}")));
    }
    let work = Transaction { verdicts: vec![verdict(one)], ..Transaction::default() };
    writer.apply(&work, 9).await.unwrap();
    assert_eq!(paged(&reader, 1).await, [SAME_HASH[1]]);
    assert!(reader.outcome_of(&id(one)).await.unwrap().is_some());
    assert_eq!(reader.outcome_of(&id(other)).await.unwrap(), None);
}

#[tokio::test]
async fn references_of_the_same_hash_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (reader, mut writer, _) = open(&folder.path().join("pinwatch.db")).await;
    let submits = SAME_HASH
        .iter()
        .zip(1..)
        .map(|(reference, n)| NewPin { reference: Some((*reference).to_owned()), ..new(n, 0) });
    writer.apply(&Transaction { submits: submits.collect(), ..Transaction::default() }, ROOM).await.unwrap();
    let each_has_its_own = async |when: &str| {
        for (reference, n) in SAME_HASH.iter().zip(1..) {
            assert_eq!(reader.pins_with_reference(reference, 9).await.unwrap(), [id(n)], "{when}");
            let wanted = Wanted { reference: Some((*reference).to_owned()), ..Wanted::default() };
            let found = reader.in_flight_matching("", &wanted, 9).await.unwrap().unwrap();
            assert!(found.pins.iter().all(|pin| pin.stored.pin == id(n)), "{when}: {found:?}");
        }
    };
    each_has_its_own("in flight").await;
    writer.index.target = 0;
    writer.apply(&Transaction { verdicts: vec![verdict(1)], ..Transaction::default() }, ROOM).await.unwrap();
    each_has_its_own("one has finished").await;
    writer.apply(&Transaction { verdicts: vec![verdict(2)], ..Transaction::default() }, ROOM).await.unwrap();
    each_has_its_own("both have finished").await;
}
