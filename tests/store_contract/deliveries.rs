//! Sinks: their cursors, what they do not have, what is asked of them, and what need not be kept any more.

use jiff::Timestamp;
use pinwatch::store::{Failed, Order, Progress, Transaction};

use super::place::{Node, Place, pin};

crate::promises! {
    a_sink_begins_where_it_is_told_and_its_cursor_only_goes_on
    what_a_sink_does_not_have_is_known_until_it_has_it
    dead_letters_are_paged_and_chosen
    a_replay_is_of_what_is_past_the_cursor_and_of_a_sink_that_there_is
    dead_letters_are_tried_again_or_given_up
    a_forgotten_sink_leaves_nothing
    only_what_is_old_and_delivered_everywhere_is_removed
}

fn cursor(sink: &str, seq: i64) -> Progress {
    Progress { sink: sink.into(), cursor: Some(seq), ..Progress::default() }
}

fn failed(sink: &str, failed: &[Failed]) -> Progress {
    Progress { sink: sink.into(), failed: failed.to_vec(), ..Progress::default() }
}

fn retry(seq: i64) -> Failed {
    let at = "2026-01-02T03:06:00Z".parse::<Timestamp>().ok();
    Failed {
        seq,
        dead: false,
        tries: 2,
        first_try_at: at,
        last_try_at: at,
        error: Some("503 \0 busy".into()),
    }
}

fn dead(seq: i64) -> Failed {
    Failed { dead: true, ..retry(seq) }
}

async fn order(node: &mut Node, order: Order) -> u64 {
    node.apply(Transaction { orders: vec![order], ..Transaction::default() }).await.ordered[0]
}

/// The `seq` of what a sink does not have.
async fn missing(node: &Node, sink: &str, dead: bool) -> Vec<i64> {
    node.store.failed(sink, dead, 0, 99).await.unwrap().iter().map(|(failed, _)| failed.seq).collect()
}

async fn a_sink_begins_where_it_is_told_and_its_cursor_only_goes_on(place: Place) {
    let mut node = place.node().await;
    let seqs = node.live(&["A", "B"]).await;
    assert_eq!(node.writes.register_sink("new", false).await.unwrap(), *seqs.iter().max().unwrap());
    assert_eq!(node.writes.register_sink("all", true).await.unwrap(), 0);
    let (first, last) = (*seqs.iter().min().unwrap(), *seqs.iter().max().unwrap());
    assert_eq!(node.store.outcomes_after(0, 1).await.unwrap()[0].seq, first);
    assert_eq!(node.store.outcomes_after(first, 9).await.unwrap().len(), 1);
    assert_eq!(node.store.seq_before_last(1).await.unwrap(), first);
    assert_eq!(node.store.seq_before_last(2).await.unwrap(), 0);

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

async fn what_a_sink_does_not_have_is_known_until_it_has_it(place: Place) {
    let mut node = place.node().await;
    node.writes.register_sink("s", true).await.unwrap();
    let seqs = node.live(&["A", "B", "C"]).await;
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
    assert_eq!((states.len(), states[0].0.as_str(), states[0].1), (1, "s", last));
    assert!(states[0].2.as_ref().unwrap().dead);
    assert!(node.store.sinks_of(seqs[2]).await.unwrap()[0].2.is_none());

    let delivered = Progress { sink: "s".into(), delivered: seqs.clone(), ..Progress::default() };
    node.apply(Transaction {
        progress: vec![failed("s", &[retry(seqs[2])]), delivered],
        ..Transaction::default()
    })
    .await;
    assert_eq!(node.store.failed_counts().await.unwrap(), []);
    assert_eq!(node.store.oldest_undelivered("s", last).await.unwrap(), None);
}

async fn dead_letters_are_paged_and_chosen(place: Place) {
    let mut node = place.node().await;
    let seqs = node.live(&["A", "B", "C"]).await;
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

async fn a_replay_is_of_what_is_past_the_cursor_and_of_a_sink_that_there_is(place: Place) {
    let mut node = place.node().await;
    node.writes.register_sink("s", true).await.unwrap();
    let (one, two, three) =
        (node.live(&["A"]).await[0], node.live(&["B"]).await[0], node.live(&["C"]).await[0]);
    node.advance(cursor("s", two)).await;
    node.advance(failed("s", &[dead(one)])).await;
    let replay = |sink: &str, from, to| Order::Replay { sink: sink.into(), from, to, only_dead: false };
    assert_eq!(order(&mut node, replay("none", 0, three)).await, 0);
    assert_eq!(order(&mut node, replay("s", 0, three)).await, 2);
    assert_eq!(missing(&node, "s", false).await, [one, two]);
    let rows = node.store.failed("s", false, 0, 9).await.unwrap();
    assert!(rows.iter().all(|(failed, _)| failed.tries == 0 && failed.first_try_at.is_none()));
    assert_eq!(order(&mut node, replay("s", two, two)).await, 1, "again");
}

async fn dead_letters_are_tried_again_or_given_up(place: Place) {
    let mut node = place.node().await;
    node.writes.register_sink("s", true).await.unwrap();
    let seqs = node.live(&["A", "B", "C"]).await;
    let last = *seqs.iter().max().unwrap();
    node.advance(cursor("s", last)).await;
    node.advance(failed("s", &[dead(seqs[0]), dead(seqs[1]), retry(seqs[2])])).await;
    let only = |seq| Order::Replay { sink: "s".into(), from: seq, to: seq, only_dead: true };
    assert_eq!(order(&mut node, only(seqs[2])).await, 0);
    assert_eq!(order(&mut node, only(seqs[0])).await, 1);
    let drop = Order::Drop { sink: "s".into(), from: 0, to: i64::MAX };
    assert_eq!(order(&mut node, drop).await, 1);
    assert!(missing(&node, "s", true).await.is_empty());
    let mut left = vec![seqs[0], seqs[2]];
    left.sort_unstable();
    assert_eq!(missing(&node, "s", false).await, left);
}

async fn a_forgotten_sink_leaves_nothing(place: Place) {
    let mut node = place.node().await;
    for sink in ["s", "t"] {
        node.writes.register_sink(sink, true).await.unwrap();
    }
    let seq = node.live(&["A"]).await[0];
    node.advance(failed("s", &[dead(seq)])).await;
    node.advance(failed("t", &[dead(seq)])).await;
    assert!(order(&mut node, Order::Forget { sink: "s".into() }).await > 0);
    assert_eq!(order(&mut node, Order::Forget { sink: "s".into() }).await, 0);
    assert_eq!(node.store.cursors().await.unwrap(), [("t".to_owned(), 0)]);
    assert!(missing(&node, "s", true).await.is_empty());
    assert_eq!(missing(&node, "t", true).await, [seq]);
}

async fn only_what_is_old_and_delivered_everywhere_is_removed(place: Place) {
    let mut node = place.node().await;
    let (one, two, three) =
        (node.live(&["A"]).await[0], node.live(&["B"]).await[0], node.live(&["C"]).await[0]);
    let prune = |before: &str| Transaction { prune: before.parse().ok(), ..Transaction::default() };
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
    order(&mut node, Order::Drop { sink: "t".into(), from: one, to: one }).await;
    node.advance(cursor("t", three)).await;
    assert_eq!(node.apply(prune("2026-01-03T00:00:00Z")).await.pruned, 2);
    assert!(node.live(&["D"]).await[0] > three, "a seq is never used twice");
}
