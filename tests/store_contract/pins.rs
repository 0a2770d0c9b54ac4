//! PINs are accepted once and end once, with the data of their submitters.

use std::collections::BTreeSet;

use pinwatch::clock::Steady;
use pinwatch::store::{NewPin, Outcome, PAGE_BYTES, SavedSchedule, Submitted, Transaction, Wanted};

use super::place::{Node, Place, new, pin, submits};

crate::promises! {
    a_pin_is_accepted_once
    a_finished_pin_gets_its_outcome_and_is_polled_again_only_on_request
    no_more_pins_are_accepted_than_may_be_in_flight
    a_verdict_of_a_pin_that_is_not_in_flight_changes_nothing
    the_reference_metadata_and_deadline_of_a_submit_are_kept
    pages_have_every_pin_once_even_if_pins_end_meanwhile
    the_next_page_starts_after_any_given_pin_even_if_that_pin_ended
    pins_are_found_by_reference_prefix_and_time_and_no_character_is_special
    reads_of_outcomes_are_limited_in_bytes_and_large_records_are_read_separately
    everything_is_kept_over_a_restart
    a_brake_is_kept_over_a_restart
}

/// The IDs of the first few.
async fn in_flight(node: &Node) -> Vec<String> {
    let page = node.store.in_flight_matching("", &Wanted::default(), 9).await.unwrap().unwrap();
    page.pins.iter().map(|pin| pin.stored.pin.to_string()).collect()
}

async fn a_pin_is_accepted_once(place: Place) {
    let mut node = place.node().await;
    let applied = node.apply(submits(&["A", "B", "A"])).await;
    assert_eq!(applied.submitted, [Submitted::Accepted, Submitted::Accepted, Submitted::Duplicate]);
    let told: Vec<&str> = applied.accepted.iter().map(|accepted| accepted.pin.as_str()).collect();
    assert_eq!(told, ["A", "B"]);
    assert_eq!(applied.accepted[0].submitted_at, new("A").submitted_at);
    assert_eq!(applied.accepted[0].deadline_at, new("A").deadline_at);
    assert_eq!(node.submit(&["B", "C"]).await, [Submitted::Duplicate, Submitted::Accepted]);
    let mut again = new("A");
    again.again = true;
    let work = Transaction { submits: vec![again], ..Transaction::default() };
    assert_eq!(node.apply(work).await.submitted, [Submitted::Duplicate], "it is polled already");
}

async fn a_finished_pin_gets_its_outcome_and_is_polled_again_only_on_request(place: Place) {
    let mut node = place.node().await;
    node.submit(&["A"]).await;
    let first = node.finish(&["A"]).await.remove(0);
    assert_eq!(
        node.submit(&["A", "A"]).await,
        [(); 2].map(|()| Submitted::Finished(Some(first.record.clone())))
    );
    assert_eq!(in_flight(&node).await, [""; 0]);

    let mut again = new("A");
    again.again = true;
    let work = Transaction { submits: vec![new("A"), again, new("A")], ..Transaction::default() };
    let expected =
        [Submitted::Finished(Some(first.record.clone())), Submitted::Accepted, Submitted::Duplicate];
    assert_eq!(node.apply(work).await.submitted, expected);
    let second = node.finish(&["A"]).await.remove(0);
    assert!(second.seq > first.seq);
    assert_eq!(node.store.outcome_of(&pin("A")).await.unwrap(), Some(second.clone()));
    assert_eq!(node.store.outcomes_after(0, 9).await.unwrap(), [first, second]);
}

async fn no_more_pins_are_accepted_than_may_be_in_flight(place: Place) {
    use Submitted::{Accepted, AtCapacity, Duplicate, Finished};
    let mut node = place.node().await;
    let ended = {
        node.submit(&["OLD"]).await;
        node.finish(&["OLD"]).await.remove(0).record
    };
    let mut ask = async |pins: &[&str]| node.writes.apply(&submits(pins), 2).await.unwrap().submitted;
    assert_eq!(ask(&["A", "OLD", "B", "C"]).await, [Accepted, Finished(Some(ended)), Accepted, AtCapacity]);
    assert_eq!(ask(&["C", "A"]).await, [AtCapacity, Duplicate]);
    node.finish(&["B"]).await;
    let mut ask = async |pins: &[&str]| node.writes.apply(&submits(pins), 2).await.unwrap().submitted;
    assert_eq!(ask(&["A"]).await, [Duplicate]);
    assert_eq!(ask(&["C", "D", "A"]).await, [Accepted, AtCapacity, Duplicate]);
    assert_eq!(in_flight(&node).await.len(), 2);
}

async fn a_verdict_of_a_pin_that_is_not_in_flight_changes_nothing(place: Place) {
    let mut node = place.node().await;
    node.submit(&["A"]).await;
    assert_eq!(node.finish(&["A", "B", "A"]).await.len(), 1);
    assert_eq!(node.finish(&["A"]).await, []);
    assert_eq!(node.store.outcomes_after(0, 9).await.unwrap().len(), 1);
    assert_eq!(node.store.outcome_of(&pin("B")).await.unwrap(), None);
}

async fn the_reference_metadata_and_deadline_of_a_submit_are_kept(place: Place) {
    let mut node = place.node().await;
    let mut full = new("A");
    full.reference = Some("o'rder \"42\" \\ é".into());
    full.metadata = Some(serde_json::from_str("{\"a\":[1,\"\\u0000\"]}").unwrap());
    let work = Transaction { submits: vec![full.clone(), new("B")], ..Transaction::default() };
    node.apply(work).await;
    let (kept, deadline) = node.store.submission(&pin("A")).await.unwrap().unwrap();
    assert_eq!((kept.submitted_at, deadline), (full.submitted_at.wall, full.deadline_at));
    assert_eq!(kept.reference, full.reference);
    assert_eq!(kept.metadata.unwrap().get(), full.metadata.unwrap().get());
    let (bare, _) = node.store.submission(&pin("B")).await.unwrap().unwrap();
    assert!(bare.reference.is_none() && bare.metadata.is_none());
    assert!(node.store.submission(&pin("C")).await.unwrap().is_none());

    let outcome = node.finish(&["A"]).await.remove(0);
    let record: serde_json::Value = serde_json::from_str(&outcome.record).unwrap();
    assert_eq!(record["reference"], "o'rder \"42\" \\ é");
    assert_eq!(record["metadata"]["a"][1], "\0");
    assert_eq!((record["seq"].as_i64(), record["pinId"].as_str()), (Some(outcome.seq), Some("A")));
    assert_eq!(record["submittedAt"], "2026-01-02T03:04:05.006Z");
    assert!(node.store.submission(&pin("A")).await.unwrap().is_none());
}

async fn pages_have_every_pin_once_even_if_pins_end_meanwhile(place: Place) {
    let mut node = place.node().await;
    let ids: Vec<String> = (0..300).map(|n| format!("PIN-{n}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    node.submit(&ids).await;
    let (mut paged, mut after) = (Vec::new(), String::new());
    loop {
        let page = node.store.in_flight_matching(&after, &Wanted::default(), 70).await.unwrap().unwrap();
        assert!(page.pins.len() <= 70);
        // A PIN that ends does not end the list.
        let left = page.pins.last().unwrap().stored.pin.to_string();
        assert_eq!(node.finish(&[&left]).await.len(), 1);
        paged.extend(page.pins.into_iter().map(|pin| pin.stored.pin.to_string()));
        let Some(next) = page.next else { break };
        after = next;
    }
    assert_eq!(paged.len(), 300);
    let all: BTreeSet<&str> = ids.into_iter().collect();
    assert_eq!(paged.iter().map(String::as_str).collect::<BTreeSet<_>>(), all);
    assert_eq!(node.store.in_flight_matching("no PIN", &Wanted::default(), 70).await.unwrap(), None);
}

async fn the_next_page_starts_after_any_given_pin_even_if_that_pin_ended(place: Place) {
    let mut node = place.node().await;
    let ids: Vec<String> = (0..20).map(|n| format!("PIN-{n}")).collect();
    node.submit(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let page = node.store.in_flight_matching("", &Wanted::default(), 20).await.unwrap().unwrap();
    for (at, left) in page.pins.iter().enumerate() {
        assert_eq!(node.finish(&[left.stored.pin.as_str()]).await.len(), 1);
        let rest = node.store.in_flight_matching(&left.token, &Wanted::default(), 20).await.unwrap().unwrap();
        assert_eq!(rest.pins, page.pins[at + 1..]);
    }
}

async fn reads_of_outcomes_are_limited_in_bytes_and_large_records_are_read_separately(place: Place) {
    let mut node = place.node().await;
    // Of different lengths, so that no page ends where it would by chance.
    let ids: Vec<String> = (0..40).map(|n| format!("PIN-{n}")).collect();
    let large = |n: usize| NewPin {
        metadata: serde_json::from_str(&format!("{:?}", "x".repeat(20_000 + 1000 * n))).unwrap(),
        ..new(&ids[n])
    };
    let submits = (0..40).map(large).collect();
    node.apply(Transaction { submits, ..Transaction::default() }).await;
    let mut outcomes = node.finish(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    outcomes.sort_by_key(|outcome| outcome.seq);
    assert_eq!(read_all(&node).await, outcomes, "from memory, where they are kept");
    node.store.close().await;
    node.writes.close().await.unwrap();
    let mut node = place.node().await;
    assert_eq!(read_all(&node).await, outcomes);

    node.submit(&["SMALL"]).await;
    let small = node.finish(&["SMALL"]).await.remove(0);
    let expected = [Submitted::Finished(None), Submitted::Finished(Some(small.record))];
    assert_eq!(node.submit(&["PIN-7", "SMALL"]).await, expected);
}

/// All outcomes, in pages that have few bytes each.
async fn read_all(node: &Node) -> Vec<Outcome> {
    let mut read: Vec<Outcome> = Vec::new();
    loop {
        let page = node.store.outcomes_after(read.last().map_or(0, |last| last.seq), 1000).await.unwrap();
        let Some((_, before)) = page.split_last() else { return read };
        let bytes: usize = before.iter().map(|outcome| outcome.record.len()).sum();
        assert!(bytes < PAGE_BYTES, "a page has {bytes} bytes before its last");
        read.extend(page);
    }
}

async fn everything_is_kept_over_a_restart(place: Place) {
    let mut node = place.node().await;
    node.writes.register_sink("s", false).await.unwrap();
    node.submit(&["A", "B"]).await;
    let seq = node.finish(&["A"]).await[0].seq;
    node.store.close().await;
    node.writes.close().await.unwrap();

    let mut node = place.node().await;
    assert_eq!((node.writes.in_flight(), node.writes.last_seq()), (1, seq));
    assert_eq!(in_flight(&node).await, ["B"]);
    assert_eq!(node.store.cursors().await.unwrap(), [("s".to_owned(), 0)]);
    assert!(node.finish(&["B"]).await[0].seq > seq);
}

async fn a_brake_is_kept_over_a_restart(place: Place) {
    let mut node = place.node().await;
    assert_eq!(node.store.schedule().await.unwrap(), SavedSchedule::default());
    let until = Some(Steady::from_millis(1_767_323_045_678));
    let brake = SavedSchedule {
        reason: Some("throttled".into()),
        until,
        rate: Some(0.25),
        learned: Some(vec![7; 3000]),
    };
    node.apply(Transaction { schedule: Some(brake.clone()), ..Transaction::default() }).await;
    assert_eq!(node.store.schedule().await.unwrap(), brake);
    node.apply(Transaction { schedule: Some(SavedSchedule::default()), ..Transaction::default() }).await;
    // What was learned is kept while nothing is learned.
    let learned = brake.learned;
    assert_eq!(node.store.schedule().await.unwrap(), SavedSchedule { learned, ..SavedSchedule::default() });
    // More than a schedule ever writes is not read.
    let learned = Some(vec![7; 70_000]);
    let brake = SavedSchedule { learned, ..SavedSchedule::default() };
    node.apply(Transaction { schedule: Some(brake), ..Transaction::default() }).await;
    assert_eq!(node.store.schedule().await.unwrap(), SavedSchedule::default());
}

async fn pins_are_found_by_reference_prefix_and_time_and_no_character_is_special(place: Place) {
    let mut node = place.node().await;
    let with =
        |id: &str, reference: Option<&str>| NewPin { reference: reference.map(str::to_owned), ..new(id) };
    let submits = vec![
        with("A", Some("order-4")),
        with("B", Some("order-42")),
        with("C", Some("Order-42")),
        with("D", None),
        with("E", Some("100%_\\é'")),
        with("F", Some("")),
    ];
    node.apply(Transaction { submits, ..Transaction::default() }).await;
    let found = async |wanted: Wanted| -> BTreeSet<String> {
        let found = node.store.in_flight_matching("", &wanted, 9).await.unwrap().unwrap();
        assert_eq!(found.next, None);
        found.pins.iter().map(|pin| pin.stored.pin.to_string()).collect()
    };
    let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
    let exactly = |text: &str| Wanted { reference: Some(text.into()), ..Wanted::default() };
    let begins = |text: &str| Wanted { reference_prefix: Some(text.into()), ..Wanted::default() };
    assert_eq!(found(exactly("order-4")).await, set(&["A"]));
    assert_eq!(found(exactly("order-%")).await, set(&[]));
    assert_eq!(found(begins("order-4")).await, set(&["A", "B"]));
    assert_eq!(found(begins("order_4")).await, set(&[]));
    assert_eq!(found(begins("100%_\\é'")).await, set(&["E"]));
    assert_eq!(found(begins("%")).await, set(&[]));
    assert_eq!(found(begins("")).await, set(&["A", "B", "C", "E", "F"]));
    let submitted = new("A").submitted_at.steady;
    let millisecond = std::time::Duration::from_millis(1);
    assert_eq!(found(Wanted { steady_until: Some(submitted), ..begins("order") }).await, set(&["A", "B"]));
    assert_eq!(
        found(Wanted { steady_until: Some(submitted.before(millisecond)), ..Wanted::default() }).await,
        set(&[])
    );
    assert_eq!(found(Wanted { steady_after: Some(submitted), ..Wanted::default() }).await, set(&[]));
    assert_eq!(
        found(Wanted { steady_after: Some(submitted.before(millisecond)), ..exactly("order-4") }).await,
        set(&["A"])
    );
    let at = new("A").submitted_at.wall;
    let (before, since) = (
        |at| Wanted { wall_before: Some(at), ..begins("order") },
        |at| Wanted { wall_since: Some(at), ..begins("order") },
    );
    let later = at + std::time::Duration::from_nanos(1);
    for (wanted, expected) in [
        (before(at), &[][..]),
        (before(later), &["A", "B"]),
        (since(at), &["A", "B"]),
        (since(later), &[]),
        (before("9999-01-01T00:00:00Z".parse().unwrap()), &["A", "B"]),
        (since("-000001-01-01T00:00:00Z".parse().unwrap()), &["A", "B"]),
    ] {
        assert_eq!(found(wanted.clone()).await, set(expected), "{wanted:?}");
    }
    // Page by page, and whichever was left last.
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = node.store.in_flight_matching(&after, &begins("order"), 1).await.unwrap().unwrap();
        all.extend(page.pins.iter().map(|pin| pin.stored.pin.to_string()));
        let Some(next) = page.next else { break };
        after = next;
    }
    all.sort();
    assert_eq!(all, ["A", "B"]);
}
