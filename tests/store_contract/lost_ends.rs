//! Commits whose end nobody heard, on PostgreSQL; and what a transaction costs the line.

use pinwatch::slot::Slots;
use pinwatch::store::{Submitted, Transaction};

use super::line::{Cut, Line};
use super::place::{Node, Place, new, node_at, pin, submits, verdict, verdicts};
use super::postgres::{Database, Postgres};

/// A node on a line of its own, with PIN A in flight.
async fn on_a_line() -> Option<(Node, Line, Database)> {
    let server = Postgres::shared()?;
    let Some(Place::Postgres(database)) = Place::postgres() else { return None };
    let line = Line::to(server.port()).await;
    let mut node = node_at(&database.url_through(line.port), "a", &Slots::ALL).await;
    assert_eq!(node.submit(&["A"]).await, [Submitted::Accepted]);
    Some((node, line, database))
}

fn a_ends_and_b_comes() -> Transaction {
    Transaction { verdicts: vec![verdict("A")], submits: vec![new("B")], ..Transaction::default() }
}

#[tokio::test]
async fn what_was_committed_is_told_although_its_end_was_lost_and_nothing_is_done_twice() {
    let Some((mut node, line, database)) = on_a_line().await else { return };
    line.cut(Cut::AfterCommit);
    node.writes.apply(&a_ends_and_b_comes(), 9).await.err().unwrap();

    // As the writer does: submits were refused, verdicts are kept.
    let applied = node.apply(verdicts(&["A"])).await;
    let ended: Vec<&str> = applied.finished.iter().map(|outcome| outcome.pin.as_str()).collect();
    let came: Vec<&str> = applied.accepted.iter().map(|accepted| accepted.pin.as_str()).collect();
    assert_eq!((ended, came), (vec!["A"], vec!["B"]));
    assert!(applied.cluster.gone.is_empty() && applied.cluster.known.is_empty());
    assert_eq!(database.count("SELECT count(*) FROM outcome"), 1);
    assert_eq!(node.writes.last_seq(), applied.finished[0].seq);
    let next = node.apply(submits(&["B"])).await;
    assert_eq!(next.submitted, [Submitted::Duplicate]);
    assert!(next.finished.is_empty() && next.accepted.is_empty(), "told once");
}

#[tokio::test]
async fn what_was_not_committed_is_done_anew_and_only_what_is_asked_again() {
    let Some((mut node, line, database)) = on_a_line().await else { return };
    line.cut(Cut::BeforeCommit);
    node.writes.apply(&a_ends_and_b_comes(), 9).await.err().unwrap();

    let applied = node.apply(verdicts(&["A"])).await;
    assert_eq!((applied.finished.len(), applied.accepted.len()), (1, 0));
    assert_eq!(database.count("SELECT count(*) FROM outcome"), 1);
    assert!(node.store.submission(&pin("B")).await.unwrap().is_none());
    assert_eq!(node.submit(&["B"]).await, [Submitted::Accepted]);
}

#[tokio::test]
async fn a_batch_takes_as_many_statements_for_thousands_of_pins_as_for_one() {
    let Some((mut node, line, _)) = on_a_line().await else { return };
    let many: Vec<String> = (0..4000).map(|n| format!("PIN-{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    node.writes.register_sink("s", true).await.unwrap();
    let mut costs = Vec::new();
    for pins in [&["A2"][..], &many] {
        line.asked();
        node.submit(pins).await;
        let taking = line.asked();
        let finished = node.finish(pins).await;
        assert_eq!(finished.len(), pins.len());
        costs.push((taking, line.asked()));
    }
    // BEGIN, fence, insert, look for outcomes, COMMIT; BEGIN, fence, delete, insert, COMMIT, hint.
    assert_eq!(costs, [(5, 6); 2]);
    println!("statements of a batch: {costs:?}");
}
