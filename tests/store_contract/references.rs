//! References: PINs are found by them, in flight and finished, however many share one and whatever it contains.

use std::time::Duration;

use pinwatch::clock::Steady;
use pinwatch::store::{NewPin, Transaction, Wanted};

use super::place::{Node, Place, new};

crate::promises! {
    pins_with_one_reference_are_found_in_flight_before_finished_and_the_newest_first
    a_pin_that_is_polled_anew_is_named_once
    no_character_of_a_reference_is_special_and_none_is_taken_for_another
    metadata_that_looks_like_a_reference_is_none
    many_pins_with_one_reference_are_read_page_by_page
    a_removed_outcome_is_no_longer_found_by_its_reference
    pins_are_found_by_reference_after_a_restart
}

/// A PIN with this reference, submitted at this second.
fn with(id: &str, reference: &str, second: i64) -> NewPin {
    let submitted_at = jiff::Timestamp::from_second(1_767_323_045 + second).unwrap().into();
    NewPin { reference: Some(reference.to_owned()), submitted_at, ..new(id) }
}

async fn take(node: &mut Node, submits: Vec<NewPin>) {
    node.apply(Transaction { submits, ..Transaction::default() }).await;
}

async fn found(node: &Node, reference: &str) -> Vec<String> {
    let pins = node.store.pins_with_reference(reference, 9).await.unwrap();
    pins.iter().map(ToString::to_string).collect()
}

/// The PINs in flight that a search by reference finds.
async fn in_flight(node: &Node, reference: &str) -> Vec<String> {
    let wanted = Wanted { reference: Some(reference.to_owned()), ..Wanted::default() };
    let found = node.store.in_flight_matching("", &wanted, 9).await.unwrap().unwrap();
    assert_eq!(found.next, None);
    let mut pins: Vec<String> = found.pins.iter().map(|pin| pin.stored.pin.to_string()).collect();
    pins.sort();
    pins
}

/// The PINs whose outcomes a search by reference finds.
async fn finished(node: &Node, reference: &str) -> Vec<String> {
    let stretch = node.store.outcomes_with_reference(reference, 0, 9).await.unwrap();
    assert!(!stretch.more);
    stretch.outcomes.iter().map(|(_, outcome)| outcome.pin.to_string()).collect()
}

async fn pins_with_one_reference_are_found_in_flight_before_finished_and_the_newest_first(place: Place) {
    let mut node = place.node().await;
    take(&mut node, ["A", "B", "C", "D"].iter().zip(0..).map(|(id, n)| with(id, "order", n)).collect()).await;
    take(&mut node, vec![with("E", "other", 9), new("F")]).await;
    assert_eq!(found(&node, "order").await, ["D", "C", "B", "A"]);
    node.finish(&["A", "E", "F"]).await;
    node.finish(&["D"]).await;
    assert_eq!(found(&node, "order").await, ["C", "B", "D", "A"]);
    assert_eq!(in_flight(&node, "order").await, ["B", "C"]);
    assert_eq!(finished(&node, "order").await, ["A", "D"]);
    assert_eq!((found(&node, "other").await, found(&node, "nothing").await), (vec!["E".to_owned()], vec![]));
    let few = node.store.pins_with_reference("order", 3).await.unwrap();
    assert_eq!(few.iter().map(ToString::to_string).collect::<Vec<_>>(), ["C", "B", "D"]);
}

async fn a_pin_that_is_polled_anew_is_named_once(place: Place) {
    let mut node = place.node().await;
    for round in 0..3 {
        take(&mut node, vec![NewPin { again: true, ..with("A", "order", round) }]).await;
        assert_eq!(found(&node, "order").await, ["A"]);
        node.finish(&["A"]).await;
        assert_eq!(found(&node, "order").await, ["A"]);
    }
    take(&mut node, vec![NewPin { again: true, ..with("A", "another", 3) }]).await;
    assert_eq!(
        (in_flight(&node, "order").await, in_flight(&node, "another").await),
        (vec![], vec!["A".into()])
    );
}

async fn no_character_of_a_reference_is_special_and_none_is_taken_for_another(place: Place) {
    let mut node = place.node().await;
    let long = "x".repeat(40_000);
    // The first two have the same key in PostgreSQL's index.
    let hostile = [
        "a\",b",
        "a\",c",
        "a\"",
        "a",
        "",
        "100%_\\",
        "'; DROP TABLE pin; --",
        "\u{2028}\u{202e}\u{85}é\n\t",
        "\\u0041",
        r#"","metadata":{"reference":"a"}"#,
        r#""reference":"a""#,
        "*",
        "null",
        "A",
        &long,
    ];
    let submits = hostile.iter().zip(0..).map(|(reference, n)| with(&format!("P{n}"), reference, n));
    take(&mut node, submits.collect()).await;
    for (reference, n) in hostile.iter().zip(0..) {
        let id = format!("P{n}");
        assert_eq!(in_flight(&node, reference).await, [&*id], "{reference}");
        assert_eq!(found(&node, reference).await, [&*id], "{reference}");
        node.finish(&[&id]).await;
        assert_eq!(in_flight(&node, reference).await, [""; 0], "{reference}");
        assert_eq!(found(&node, reference).await, [&*id], "{reference}");
        assert_eq!(finished(&node, reference).await, [&*id], "{reference}");
    }
    for none in ["b", "%", "a%", "A ", "order"] {
        assert_eq!(found(&node, none).await, [""; 0], "{none}");
    }
}

async fn metadata_that_looks_like_a_reference_is_none(place: Place) {
    let mut node = place.node().await;
    let metadata = |json: &str| Some(serde_json::from_str(json).unwrap());
    let looks = r#"{"reference":"order","metadata":{"reference":"order"},"nul":"\u0000"}"#;
    take(
        &mut node,
        vec![
            NewPin { metadata: metadata(looks), ..new("A") },
            NewPin { metadata: metadata(looks), ..with("B", "order", 1) },
        ],
    )
    .await;
    assert_eq!(found(&node, "order").await, ["B"]);
    node.finish(&["A", "B"]).await;
    assert_eq!(found(&node, "order").await, ["B"]);
}

async fn many_pins_with_one_reference_are_read_page_by_page(place: Place) {
    let mut node = place.node().await;
    let ids: Vec<String> = (0..25).map(|n| format!("P{n:02}")).collect();
    take(&mut node, ids.iter().zip(0..).map(|(id, n)| with(id, "order", n)).collect()).await;
    take(&mut node, (0..25).map(|n| new(&format!("Q{n}"))).collect()).await;
    let wanted = Wanted { reference: Some("order".into()), ..Wanted::default() };
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = node.store.in_flight_matching(&after, &wanted, 4).await.unwrap().unwrap();
        assert!(page.pins.len() <= 4);
        all.extend(page.pins.iter().map(|pin| pin.stored.pin.to_string()));
        let Some(next) = page.next else { break };
        after = next;
    }
    all.sort();
    assert_eq!(all, ids);
    let old = Wanted { steady_until: Some(Steady::from_millis(0)), ..wanted };
    assert_eq!(node.store.in_flight_matching("", &old, 4).await.unwrap().unwrap().pins, []);
    let prefixed = Wanted { reference_prefix: Some("p".into()), steady_until: None, ..old };
    assert_eq!(node.store.in_flight_matching("", &prefixed, 4).await.unwrap().unwrap().pins, []);

    for ids in ids.chunks(7) {
        node.finish(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    let (mut read, mut seq) = (Vec::new(), 0);
    loop {
        let stretch = node.store.outcomes_with_reference("order", seq, 4).await.unwrap();
        read.extend(stretch.outcomes.iter().map(|(_, outcome)| outcome.pin.to_string()));
        seq = stretch.outcomes.last().map_or(seq, |(_, outcome)| outcome.seq);
        if !stretch.more {
            break;
        }
    }
    assert!(node.store.outcomes_with_reference("order", seq, 4).await.unwrap().outcomes.is_empty());
    assert_eq!(read.len(), ids.len());
    read.sort();
    assert_eq!(read, ids);
}

async fn a_removed_outcome_is_no_longer_found_by_its_reference(place: Place) {
    let mut node = place.node().await;
    take(&mut node, vec![with("A", "order", 0), with("B", "order", 1)]).await;
    node.finish(&["A"]).await;
    // All of them ended in the past.
    let before = Steady::from_millis(i64::MAX / 2).before(Duration::from_secs(1));
    let prune = Transaction { prune: Some(before), ..Transaction::default() };
    assert_eq!(node.apply(prune).await.pruned, 1);
    assert_eq!((found(&node, "order").await, finished(&node, "order").await), (vec!["B".into()], vec![]));
}

async fn pins_are_found_by_reference_after_a_restart(place: Place) {
    let mut node = place.node().await;
    take(&mut node, vec![with("A", "order", 0), with("B", "order", 1), new("C")]).await;
    node.finish(&["A", "C"]).await;
    node.store.close().await;
    node.writes.close().await.unwrap();
    let mut node = place.node().await;
    assert_eq!(found(&node, "order").await, ["B", "A"]);
    node.finish(&["B"]).await;
    assert_eq!(found(&node, "order").await, ["B", "A"]);
    assert_eq!(in_flight(&node, "order").await, [""; 0]);
}
