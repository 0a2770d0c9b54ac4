//! Lost answers to COMMIT and unreachable servers of PostgreSQL; and how many statements a transaction needs.

use std::time::Duration;

use pinwatch::slot::Slots;
use pinwatch::store::{Submitted, Transaction};

use super::line::{Cut, Line};
use super::place::{Node, Place, new, node_at, pin, submits, verdict, verdicts};
use crate::support::postgres::{Database, Postgres};

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
async fn a_commit_whose_answer_was_lost_is_recognised_and_not_repeated() {
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
async fn a_transaction_that_was_not_committed_is_repeated_only_on_request() {
    let Some((mut node, line, database)) = on_a_line().await else { return };
    line.cut(Cut::BeforeCommit);
    node.writes.apply(&a_ends_and_b_comes(), 9).await.err().unwrap();

    let applied = node.apply(verdicts(&["A"])).await;
    assert_eq!((applied.finished.len(), applied.accepted.len()), (1, 0));
    assert_eq!(database.count("SELECT count(*) FROM outcome"), 1);
    assert!(node.store.submission(&pin("B")).await.unwrap().is_none());
    assert_eq!(node.submit(&["B"]).await, [Submitted::Accepted]);
}

/// Waits until this query counts something.
async fn until_some(database: &Database, what: &str) {
    let seen = async {
        while database.count(what) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), seen).await.unwrap_or_else(|_| panic!("not seen: {what}"));
}

#[tokio::test]
async fn the_writer_waits_for_a_late_commit_so_that_no_sink_skips_its_outcomes() {
    let Some((mut node, line, database)) = on_a_line().await else { return };
    node.submit(&["B"]).await;
    line.cut(Cut::CommitHeld);
    node.writes.apply(&verdicts(&["A"]), 9).await.err().unwrap();
    let mut writes = node.writes;
    let next = tokio::spawn(async move { writes.apply(&verdicts(&["B"]), 9).await });
    let waits = "SELECT count(*) FROM pg_stat_activity \
                 WHERE wait_event_type = 'Lock' AND datname = current_database()";
    until_some(&database, waits).await;
    assert_eq!(database.count("SELECT count(*) FROM outcome"), 0);
    line.release();
    let finished = next.await.unwrap().unwrap().finished;
    let told: Vec<&str> = finished.iter().map(|outcome| outcome.pin.as_str()).collect();
    assert_eq!(told, ["A", "B"]);
    assert_eq!(database.query("SELECT pin_id FROM outcome ORDER BY seq"), [["A"], ["B"]]);
}

/// A node whose last commit is only on a server that has died, and the standby that has taken its place; PIN A is in
/// flight there.
async fn on_a_standby() -> Option<(Node, Line, Postgres, Database)> {
    let server = Postgres::launch()?;
    let database = server.database();
    let line = Line::to(server.port()).await;
    let mut node = node_at(&database.url_through(line.port), "a", &Slots::ALL).await;
    node.submit(&["A"]).await;
    let standby = server.standby();
    let has_it_all = "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()";
    until_some(&database, has_it_all).await;
    standby.stop();
    line.cut(Cut::AfterCommit);
    node.writes.apply(&a_ends_and_b_comes(), 9).await.err().unwrap();
    server.stop();
    standby.start();
    standby.promote();
    line.move_to(standby.port());
    let database = standby.same(&database);
    assert_eq!(database.count("SELECT count(*) FROM pin"), 1);
    Some((node, line, standby, database))
}

#[tokio::test]
async fn a_commit_that_a_standby_lacks_is_repeated() {
    let Some((mut node, _line, _standby, database)) = on_a_standby().await else { return };
    let applied = node.apply(verdicts(&["A"])).await;
    assert_eq!((applied.finished.len(), applied.accepted.len()), (1, 0));
    assert_eq!(database.count("SELECT count(*) FROM outcome"), 1);
}

#[tokio::test]
async fn a_commit_whose_transaction_id_a_standby_reused_is_repeated() {
    let Some((mut node, _line, _standby, database)) = on_a_standby().await else { return };
    let others = "DO $$ BEGIN FOR n IN 1..50 LOOP PERFORM txid_current(); COMMIT; END LOOP; END $$";
    database.execute(others);
    let applied = node.apply(verdicts(&["A"])).await;
    assert_eq!((applied.finished.len(), applied.accepted.len()), (1, 0));
    assert_eq!(database.count("SELECT count(*) FROM outcome"), 1);
}

#[tokio::test]
async fn a_standby_does_not_reuse_a_seq_that_a_sink_may_have_seen() {
    let Some(server) = Postgres::launch() else { return };
    let database = server.database();
    let line = Line::to(server.port()).await;
    let mut node = node_at(&database.url_through(line.port), "a", &Slots::ALL).await;
    let standby = server.standby();
    let has_it_all = "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()";
    until_some(&database, has_it_all).await;
    standby.stop();
    let pins: Vec<String> = (0..100).map(|n| format!("P{n}")).collect();
    let seqs = node.submit_and_finish(&pins.iter().map(String::as_str).collect::<Vec<_>>()).await;
    server.stop();
    standby.start();
    standby.promote();
    line.move_to(standby.port());
    node.writes.apply(&submits(&["A"]), 9).await.err().unwrap();
    node.submit(&["A"]).await;
    let after = node.finish(&["A"]).await.remove(0).seq;
    assert!(after > *seqs.iter().max().unwrap(), "{after}");
}

#[tokio::test]
async fn the_writer_does_not_reconnect_for_every_submit_while_the_database_is_gone() {
    let Some((mut node, line, _)) = on_a_line().await else { return };
    line.close();
    line.cut(Cut::BeforeCommit);
    line.opened();
    for _ in 0..1000 {
        node.writes.apply(&submits(&["B"]), 9).await.err().unwrap();
    }
    let opened = line.opened();
    println!("{opened} connections for 1,000 submits");
    assert!((1..100).contains(&opened), "{opened}");
    line.move_to(Postgres::shared().unwrap().port());
    let back = async {
        while node.writes.apply(&submits(&["B"]), 9).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), back).await.expect("it connects again");
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
