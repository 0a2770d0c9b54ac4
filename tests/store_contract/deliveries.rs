//! Sinks: their cursors, missing outcomes, delivery commands, and outcomes that need not be kept.

use std::time::Duration;

use jiff::Timestamp;
use pinwatch::clock::{Dated, Steady};
use pinwatch::store::{DeliveryCommand, Failed, PAGE_BYTES, Position, Progress, Seqs, Stretch, Transaction};

use super::place::{Node, Place, new, pin};

crate::promises! {
    a_sink_begins_at_the_requested_place_and_its_cursor_never_goes_back
    outcomes_that_a_sink_lacks_are_known_until_they_are_delivered
    dead_letters_are_listed_in_pages_and_by_selection
    a_replay_affects_only_passed_outcomes_of_a_registered_sink
    dead_letters_are_tried_again_or_given_up
    an_outcome_that_was_given_up_is_shown_so_until_it_is_delivered
    given_up_outcomes_are_removed_with_their_sink_or_their_outcome
    a_forgotten_sink_leaves_nothing
    only_old_outcomes_that_every_sink_has_are_removed
    readers_that_had_not_reached_removed_outcomes_are_told
    a_stretch_of_large_records_is_limited_in_bytes
}

pub fn cursor(sink: &str, seq: i64) -> Progress {
    Progress { sink: sink.into(), cursor: Some(seq), ..Progress::default() }
}

pub fn failed(sink: &str, failed: &[Failed]) -> Progress {
    Progress { sink: sink.into(), failed: failed.to_vec(), ..Progress::default() }
}

/// The point in steady time when it was the wall clock's time.
fn steady(wall: &str) -> Steady {
    Dated::from(wall.parse::<Timestamp>().unwrap()).steady
}

pub fn retry(seq: i64) -> Failed {
    // The wall clock was set between the two tries.
    let date = |text: &str, ahead| Dated::with_ahead(text.parse().unwrap(), ahead);
    Failed {
        seq,
        dead: false,
        tries: 2,
        first_try_at: Some(date("2026-01-02T03:06:00Z", -7_200_000)),
        last_try_at: Some(date("2026-01-02T03:06:00Z", 250)),
        error: Some("503 \0 busy".into()),
    }
}

pub fn dead(seq: i64) -> Failed {
    Failed { dead: true, ..retry(seq) }
}

fn replay(sink: &str, from: i64, to: i64) -> DeliveryCommand {
    DeliveryCommand::Replay { sink: sink.into(), seqs: Seqs::Range(from, to), only_dead: false }
}

/// When [`give_up`] does it, in milliseconds.
pub const GIVEN_UP_AT: i64 = 1_767_323_220_500;

fn give_up(sink: &str, from: i64, to: i64) -> DeliveryCommand {
    DeliveryCommand::Drop {
        sink: sink.into(),
        seqs: Seqs::Range(from, to),
        at: Timestamp::from_millisecond(GIVEN_UP_AT).unwrap(),
    }
}

/// Each sink, and when the outcome was given up for it.
pub async fn given_up(node: &Node, seq: i64) -> Vec<(String, Option<i64>)> {
    let sinks = node.store.sinks_of(seq).await.unwrap();
    sinks.into_iter().map(|at| (at.sink, at.dropped_at.map(Timestamp::as_millisecond))).collect()
}

pub async fn command(node: &mut Node, command: DeliveryCommand) -> u64 {
    node.apply(Transaction { commands: vec![command], ..Transaction::default() }).await.affected[0]
}

/// The `seq` of what a sink does not have.
pub async fn missing(node: &Node, sink: &str, dead: bool) -> Vec<i64> {
    node.store.failed(sink, dead, 0, 99).await.unwrap().iter().map(|(failed, _)| failed.seq).collect()
}

/// The seqs of the outcomes behind a position, and up to which seq any were removed there.
async fn behind_of(node: &Node, position: &Position) -> (Vec<i64>, Vec<i64>) {
    let Stretch { outcomes, removed, more } = node.store.stretch(position, 99).await.unwrap();
    assert!(!more);
    let seqs = outcomes.iter().map(|(_, outcome)| outcome.seq).collect();
    (seqs, removed.iter().map(|(_, seq)| *seq).collect())
}

async fn a_sink_begins_at_the_requested_place_and_its_cursor_never_goes_back(place: Place) {
    let mut node = place.node().await;
    let seqs = node.submit_and_finish(&["A", "B"]).await;
    assert_eq!(node.writes.register_sink("new", false).await.unwrap(), *seqs.iter().max().unwrap());
    assert_eq!(node.writes.register_sink("all", true).await.unwrap(), 0);
    let (first, last) = (*seqs.iter().min().unwrap(), *seqs.iter().max().unwrap());
    assert_eq!(node.store.outcomes_after(0, 1).await.unwrap()[0].seq, first);
    assert_eq!(node.store.outcomes_after(first, 9).await.unwrap().len(), 1);
    for (count, behind) in [(0, vec![]), (1, vec![last]), (2, vec![first, last]), (9, vec![first, last])] {
        let position = node.store.before_last(count).await.unwrap();
        assert_eq!(behind_of(&node, &position).await, (behind, vec![]), "the last {count}");
    }

    // In one transaction as in several: never back.
    node.apply(Transaction {
        progress: vec![cursor("all", last), cursor("all", first)],
        ..Transaction::default()
    })
    .await;
    node.advance(cursor("all", first)).await;
    assert_eq!(node.writes.register_sink("all", true).await.unwrap(), last);
    assert_eq!(node.store.cursors().await.unwrap(), [("all".to_owned(), last), ("new".to_owned(), last)]);
}

async fn outcomes_that_a_sink_lacks_are_known_until_they_are_delivered(place: Place) {
    let mut node = place.node().await;
    node.writes.register_sink("s", true).await.unwrap();
    let seqs = node.submit_and_finish(&["A", "B", "C"]).await;
    let last = *seqs.iter().max().unwrap();
    node.apply(Transaction {
        progress: vec![
            cursor("s", last),
            failed("s", &[retry(seqs[0]), retry(seqs[1])]),
            failed("s", &[dead(seqs[1])]),
        ],
        ..Transaction::default()
    })
    .await;
    let rows = node.store.failed("s", false, 0, 9).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].1.pin, pin("A"));
    let told = &rows[0].0;
    assert_eq!((told.tries, told.first_try_at, told.dead), (2, retry(0).first_try_at, false));
    assert!(told.error.as_ref().unwrap().starts_with("503 "));
    assert_eq!(missing(&node, "s", true).await, [seqs[1]]);
    assert_eq!(node.store.failed_counts().await.unwrap(), [("s".to_owned(), 1, 1)]);
    assert!(node.store.oldest_undelivered("s", last).await.unwrap().is_some());
    let states = node.store.sinks_of(seqs[1]).await.unwrap();
    assert_eq!((states.len(), states[0].sink.as_str(), states[0].cursor), (1, "s", last));
    assert!(states[0].failed.as_ref().unwrap().dead);
    assert_eq!(states[0].dropped_at, None);
    assert!(node.store.sinks_of(seqs[2]).await.unwrap()[0].failed.is_none());

    let delivered = Progress { sink: "s".into(), delivered: seqs.clone(), ..Progress::default() };
    node.apply(Transaction {
        progress: vec![failed("s", &[retry(seqs[2])]), delivered],
        ..Transaction::default()
    })
    .await;
    assert_eq!(node.store.failed_counts().await.unwrap(), []);
    assert_eq!(node.store.oldest_undelivered("s", last).await.unwrap(), None);
}

async fn dead_letters_are_listed_in_pages_and_by_selection(place: Place) {
    let mut node = place.node().await;
    let seqs = node.submit_and_finish(&["A", "B", "C"]).await;
    for sink in ["s", "t"] {
        node.writes.register_sink(sink, true).await.unwrap();
        node.advance(failed(sink, &[dead(seqs[0]), dead(seqs[1]), retry(seqs[2])])).await;
    }
    let all = 0..=i64::MAX;
    let start = (String::new(), 0);
    let ask = async |sink, pin, after, limit| {
        let (letters, more) = node.store.dead_letters(sink, pin, &all, after, limit).await.unwrap();
        (letters.into_iter().map(|(sink, failed, _)| (sink, failed.seq)).collect::<Vec<_>>(), more)
    };
    let mut expected: Vec<(String, i64)> = Vec::new();
    for sink in ["s", "t"] {
        let mut pair = [seqs[0], seqs[1]];
        pair.sort_unstable();
        expected.extend(pair.map(|seq| (sink.to_owned(), seq)));
    }
    let (page, more) = ask(None, None, &start, 3).await;
    assert_eq!((page.as_slice(), more), (&expected[..3], true));
    assert_eq!(ask(None, None, &page[2], 3).await, (expected[3..].to_vec(), false));
    assert_eq!(ask(Some("t"), None, &start, 9).await, (expected[2..].to_vec(), false));
    assert_eq!(ask(Some("s"), Some(&pin("B")), &start, 9).await.0, [("s".to_owned(), seqs[1])]);
}

async fn a_replay_affects_only_passed_outcomes_of_a_registered_sink(place: Place) {
    let mut node = place.node().await;
    node.writes.register_sink("s", true).await.unwrap();
    let (one, two, three) = (
        node.submit_and_finish(&["A"]).await[0],
        node.submit_and_finish(&["B"]).await[0],
        node.submit_and_finish(&["C"]).await[0],
    );
    node.advance(cursor("s", two)).await;
    node.advance(failed("s", &[dead(one)])).await;
    assert_eq!(command(&mut node, replay("none", 0, three)).await, 0);
    assert_eq!(command(&mut node, replay("s", 0, three)).await, 2);
    assert_eq!(missing(&node, "s", false).await, [one, two]);
    let rows = node.store.failed("s", false, 0, 9).await.unwrap();
    assert!(rows.iter().all(|(failed, _)| failed.tries == 0 && failed.first_try_at.is_none()));
    assert_eq!(command(&mut node, replay("s", two, two)).await, 1, "again");
}

async fn dead_letters_are_tried_again_or_given_up(place: Place) {
    let mut node = place.node().await;
    node.writes.register_sink("s", true).await.unwrap();
    let seqs = node.submit_and_finish(&["A", "B", "C"]).await;
    let last = *seqs.iter().max().unwrap();
    node.advance(cursor("s", last)).await;
    node.advance(failed("s", &[dead(seqs[0]), dead(seqs[1]), retry(seqs[2])])).await;
    let only =
        |seq| DeliveryCommand::Replay { sink: "s".into(), seqs: Seqs::Range(seq, seq), only_dead: true };
    assert_eq!(command(&mut node, only(seqs[2])).await, 0);
    assert_eq!(command(&mut node, only(seqs[0])).await, 1);
    assert_eq!(command(&mut node, give_up("s", 0, i64::MAX)).await, 1);
    assert!(missing(&node, "s", true).await.is_empty());
    let mut left = vec![seqs[0], seqs[2]];
    left.sort_unstable();
    assert_eq!(missing(&node, "s", false).await, left);
}

async fn an_outcome_that_was_given_up_is_shown_so_until_it_is_delivered(place: Place) {
    let mut node = place.node().await;
    for sink in ["s", "t"] {
        node.writes.register_sink(sink, true).await.unwrap();
    }
    let seqs = node.submit_and_finish(&["A", "B"]).await;
    let last = *seqs.iter().max().unwrap();
    for sink in ["s", "t"] {
        node.advance(cursor(sink, last)).await;
    }
    node.advance(failed("s", &[dead(seqs[0]), retry(seqs[1])])).await;
    assert_eq!(command(&mut node, give_up("s", 0, i64::MAX)).await, 1);
    assert_eq!(given_up(&node, seqs[0]).await, [("s".to_owned(), Some(GIVEN_UP_AT)), ("t".to_owned(), None)]);
    assert_eq!(given_up(&node, seqs[1]).await, [("s".to_owned(), None), ("t".to_owned(), None)]);
    // Replayed, refused again, given up again.
    assert_eq!(command(&mut node, replay("s", seqs[0], seqs[0])).await, 1);
    assert_eq!(given_up(&node, seqs[0]).await[0], ("s".to_owned(), None));
    node.advance(failed("s", &[dead(seqs[0])])).await;
    assert_eq!(command(&mut node, give_up("s", seqs[0], seqs[0])).await, 1);
    assert_eq!(given_up(&node, seqs[0]).await[0], ("s".to_owned(), Some(GIVEN_UP_AT)));
    // Replayed and delivered.
    assert_eq!(command(&mut node, replay("s", seqs[0], seqs[0])).await, 1);
    node.advance(Progress { sink: "s".into(), cursor: None, failed: vec![], delivered: vec![seqs[0]] }).await;
    assert_eq!(given_up(&node, seqs[0]).await[0], ("s".to_owned(), None));
    assert!(missing(&node, "s", false).await.contains(&seqs[1]));
}

async fn given_up_outcomes_are_removed_with_their_sink_or_their_outcome(place: Place) {
    let mut node = place.node().await;
    for sink in ["s", "t"] {
        node.writes.register_sink(sink, true).await.unwrap();
    }
    let seqs = node.submit_and_finish(&["A", "B"]).await;
    let last = *seqs.iter().max().unwrap();
    for sink in ["s", "t"] {
        node.advance(cursor(sink, last)).await;
        node.advance(failed(sink, &[dead(seqs[0])])).await;
        assert_eq!(command(&mut node, give_up(sink, 0, i64::MAX)).await, 1);
    }
    while command(&mut node, DeliveryCommand::Forget { sink: "s".into() }).await > 0 {}
    node.writes.register_sink("s", false).await.unwrap();
    let told = given_up(&node, seqs[0]).await;
    assert_eq!(told, [("s".to_owned(), None), ("t".to_owned(), Some(GIVEN_UP_AT))]);
    let prune = Transaction { prune: Some(steady("2026-01-03T00:00:00Z")), ..Transaction::default() };
    assert_eq!(node.apply(prune).await.pruned, 2);
    assert!(given_up(&node, seqs[0]).await.iter().all(|(_, at)| at.is_none()));
}

async fn a_forgotten_sink_leaves_nothing(place: Place) {
    let mut node = place.node().await;
    for sink in ["s", "t"] {
        node.writes.register_sink(sink, true).await.unwrap();
    }
    let seq = node.submit_and_finish(&["A"]).await[0];
    node.advance(failed("s", &[dead(seq)])).await;
    node.advance(failed("t", &[dead(seq)])).await;
    assert!(command(&mut node, DeliveryCommand::Forget { sink: "s".into() }).await > 0);
    assert_eq!(command(&mut node, DeliveryCommand::Forget { sink: "s".into() }).await, 0);
    assert_eq!(node.store.cursors().await.unwrap(), [("t".to_owned(), 0)]);
    assert!(missing(&node, "s", true).await.is_empty());
    assert_eq!(missing(&node, "t", true).await, [seq]);
}

async fn only_old_outcomes_that_every_sink_has_are_removed(place: Place) {
    let mut node = place.node().await;
    let (one, two, three) = (
        node.submit_and_finish(&["A"]).await[0],
        node.submit_and_finish(&["B"]).await[0],
        node.submit_and_finish(&["C"]).await[0],
    );
    let prune = |before: &str| Transaction { prune: Some(steady(before)), ..Transaction::default() };
    for sink in ["s", "t"] {
        node.writes.register_sink(sink, true).await.unwrap();
    }
    node.advance(cursor("s", three)).await;
    node.advance(cursor("t", two)).await;
    node.advance(failed("t", &[dead(one)])).await;
    assert_eq!(node.apply(prune("2026-01-02T03:05:00Z")).await.pruned, 0, "not old enough");
    assert_eq!(node.apply(prune("2026-01-02T03:05:00.001Z")).await.pruned, 1);
    let left: Vec<i64> = node.store.outcomes_after(0, 9).await.unwrap().iter().map(|o| o.seq).collect();
    assert_eq!(left, [one, three], "one is a dead letter, the other not delivered yet");
    command(&mut node, give_up("t", one, one)).await;
    node.advance(cursor("t", three)).await;
    assert_eq!(node.apply(prune("2026-01-03T00:00:00Z")).await.pruned, 2);
    assert!(node.submit_and_finish(&["D"]).await[0] > three, "a seq is never used twice");
}

async fn readers_that_had_not_reached_removed_outcomes_are_told(place: Place) {
    let mut node = place.node().await;
    let mut seqs = Vec::new();
    for pin in ["A", "B", "C", "D", "E"] {
        seqs.push(node.submit_and_finish(&[pin]).await[0]);
    }
    let prune = || Transaction { prune: Some(steady("2026-01-03T00:00:00Z")), ..Transaction::default() };
    node.writes.register_sink("s", true).await.unwrap();
    // Of all but the last, the second is a dead letter.
    node.advance(cursor("s", seqs[3])).await;
    node.advance(failed("s", &[dead(seqs[1])])).await;
    let newest = node.store.before_last(0).await.unwrap();
    let all_there_are = node.store.before_last(9).await.unwrap();
    assert_eq!(behind_of(&node, &all_there_are).await, (seqs.clone(), vec![]), "a gap alone is nothing");
    assert_eq!(node.apply(prune()).await.pruned, 3);
    assert_eq!(node.apply(prune()).await.pruned, 0);

    // Also by a later process.
    node.writes.close().await.unwrap();
    let mut node = place.node().await;
    for (after, there, removed) in [
        (0, vec![seqs[1], seqs[4]], vec![seqs[3]]),
        (seqs[0], vec![seqs[1], seqs[4]], vec![seqs[3]]),
        (seqs[2], vec![seqs[4]], vec![seqs[3]]),
        (seqs[3], vec![seqs[4]], vec![]),
        (seqs[4], vec![], vec![]),
    ] {
        let position = Position::after(after);
        assert_eq!(behind_of(&node, &position).await, (there, removed), "after {after}");
    }
    assert_eq!(behind_of(&node, &newest).await, (vec![], vec![]));
    let none = node.store.stretch(&Position::after(0), 0).await.unwrap();
    assert_eq!((none.outcomes.len(), none.removed.len()), (0, 1), "no outcome is asked for");

    // All are removed: a new reader misses nothing.
    node.advance(Progress { delivered: vec![seqs[1]], ..cursor("s", seqs[4]) }).await;
    assert_eq!(node.apply(prune()).await.pruned, 2);
    let now = node.store.before_last(0).await.unwrap();
    let next = node.submit_and_finish(&["F"]).await[0];
    assert_eq!(behind_of(&node, &now).await, (vec![next], vec![]));
}

async fn a_stretch_of_large_records_is_limited_in_bytes(place: Place) {
    let mut node = place.node().await;
    let metadata = format!("\"{}\"", "x".repeat(60_000));
    for n in 0..40 {
        let mut pin = new(&format!("P{n}"));
        pin.metadata = serde_json::from_str(&metadata).ok();
        node.apply(Transaction { submits: vec![pin], ..Transaction::default() }).await;
        node.finish(&[&format!("P{n}")]).await;
    }
    // Reopened, because recent outcomes are in memory and need no read.
    node.writes.close().await.unwrap();
    let node = place.node().await;
    let (mut position, mut seen, mut stretches) = (Position::after(0), 0, 0);
    loop {
        let stretch = node.store.stretch(&position, 256).await.unwrap();
        let bytes: usize = stretch.outcomes.iter().map(|(_, outcome)| outcome.record.len()).sum();
        assert!(bytes < PAGE_BYTES + 61_000, "{bytes}");
        stretch.outcomes.iter().for_each(|(partition, outcome)| position.advance(*partition, outcome.seq));
        (seen, stretches) = (seen + stretch.outcomes.len(), stretches + 1);
        if !stretch.more {
            break;
        }
    }
    assert!(seen == 40 && stretches >= 8, "{seen} in {stretches}");
}

/// PostgreSQL alone: nobody else can lock a table of a file of ours.
#[tokio::test]
async fn a_query_for_dead_letters_ends_even_if_the_table_is_locked() {
    let Some(place) = Place::postgres() else { return };
    let Place::Postgres(database) = &place else { unreachable!() };
    let mut node = place.node().await;
    node.submit_and_finish(&["A"]).await;
    let locker = database.clone();
    let locking = std::thread::spawn(move || {
        locker.try_execute("BEGIN; LOCK TABLE delivery IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(600)")
    });
    let locked = "SELECT count(*) FROM pg_locks WHERE relation = 'delivery'::regclass AND granted \
                  AND mode = 'AccessExclusiveLock'";
    while database.count(locked) == 0 {
        assert!(!locking.is_finished(), "it can't be locked");
    }
    let from = (String::new(), 0);
    let asked = node.store.dead_letters(None, None, &(0..=i64::MAX), &from, 10);
    let answer = tokio::time::timeout(Duration::from_secs(60), asked).await.expect("it has an end");
    assert!(answer.unwrap_err().to_string().contains("timeout"));
    // Nor does the server go on with it.
    let waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'delivery'::regclass AND NOT granted";
    assert_eq!(database.count(waiting), 0);
    database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep' \
                      AND datname = current_database()",
    );
    assert!(!locking.join().unwrap());
    node.store.dead_letters(None, None, &(0..=i64::MAX), &from, 10).await.unwrap();
}
