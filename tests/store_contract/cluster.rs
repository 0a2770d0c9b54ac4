//! What nodes that share a PostgreSQL promise each other.

use std::collections::BTreeSet;
use std::time::Duration;

use pinwatch::slot::{Slots, slot_of};
use pinwatch::store::{
    ClusterWork, DeliveryCommand, Failed, Orphan, Position, Progress, Submitted, Transaction,
};
use sqlx::{Connection, Executor, PgConnection};

use super::line::Line;
use super::place::{Node, Place, claim, new, node_at, node_with_lease, pin, submits, verdicts};
use crate::support::postgres::{Database, Postgres};

fn database() -> Option<Database> {
    match Place::postgres()? {
        Place::Postgres(database) => Some(database),
        Place::Sqlite(_) => None,
    }
}

/// Two nodes with the even and the odd slots.
async fn two(database: &Database) -> (Node, Node) {
    let even: Slots = (0..=u8::MAX).filter(|slot| slot % 2 == 0).collect();
    let a = node_at(&database.url(), "a", &even).await;
    (a, node_at(&database.url(), "b", &Slots::ALL.without(&even)).await)
}

fn ids(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{name}-{n}")).collect()
}

/// PINs of even and of odd slots.
fn of_each(count: usize) -> [Vec<String>; 2] {
    let (even, odd): (Vec<String>, Vec<String>) =
        ids("P", 4 * count).into_iter().partition(|id| slot_of(&pin(id)).is_multiple_of(2));
    [even, odd].map(|ids| ids.into_iter().take(count).collect())
}

fn strs(ids: &[String]) -> Vec<&str> {
    ids.iter().map(String::as_str).collect()
}

fn die(database: &Database, name: &str) {
    database
        .execute(&format!("UPDATE node SET lease_until = now() - interval '1 second' WHERE name = '{name}'"));
}

#[tokio::test]
async fn a_node_without_a_lease_writes_nothing() {
    let Some(database) = database() else { return };
    let mut node = node_at(&database.url(), "a", &Slots::ALL).await;
    node.submit(&["A"]).await;
    die(&database, "a");
    for work in [submits(&["B"]), verdicts(&["A"])] {
        let refused = node.writes.apply(&work, 9).await.err().unwrap();
        assert!(refused.to_string().contains("lease"), "{refused}");
    }
    node.writes.register_sink("s", true).await.unwrap_err();
    assert_eq!(database.query("SELECT pin_id FROM pin"), [["A"]]);
    assert_eq!(database.count("SELECT count(*) FROM outcome"), 0);
    assert_eq!(database.count("SELECT count(*) FROM cursor"), 0);
    assert!(node.renew().await, "nobody has its name");
    assert_eq!(node.finish(&["A"]).await.len(), 1);
}

#[tokio::test]
async fn a_process_whose_node_name_was_taken_over_never_writes_again() {
    let Some(database) = database() else { return };
    let mut old = node_at(&database.url(), "a", &Slots::ALL).await;
    die(&database, "a");
    let mut new = node_at(&database.url(), "a", &Slots::ALL).await;
    assert!(!old.renew().await);
    old.writes.apply(&submits(&["A"]), 9).await.err().unwrap();
    assert_eq!(new.submit(&["A"]).await, [Submitted::Accepted]);
    assert_eq!(new.finish(&["A"]).await.len(), 1, "the slots of the name are the new one's");
}

#[tokio::test]
async fn a_pin_submitted_at_two_nodes_at_once_is_accepted_by_one_and_reaches_its_holder() {
    let Some(database) = database() else { return };
    let (mut a, mut b) = two(&database).await;
    for round in 0..5 {
        let pins = ids(&format!("R{round}"), 200);
        let (there, mut back) = (strs(&pins), strs(&pins));
        back.reverse();
        let (told_a, told_b) = tokio::join!(a.apply(submits(&there)), b.apply(submits(&back)));
        let submitted = told_a.submitted.iter().chain(&told_b.submitted);
        assert_eq!(submitted.filter(|told| **told == Submitted::Accepted).count(), 200);
        let (claimed_a, claimed_b) = (a.claim().await, b.claim().await);
        let heard = |applied: [pinwatch::store::Applied; 2]| {
            let accepted = applied.into_iter().flat_map(|applied| applied.accepted);
            accepted.map(|accepted| accepted.pin.to_string()).collect::<Vec<_>>()
        };
        let (of_a, of_b) = (heard([told_a, claimed_a]), heard([told_b, claimed_b]));
        assert!(of_a.iter().all(|id| slot_of(&pin(id)).is_multiple_of(2)));
        assert!(of_b.iter().all(|id| slot_of(&pin(id)) % 2 == 1));
        assert_eq!(of_a.len() + of_b.len(), 200);
        let distinct: BTreeSet<&String> = of_a.iter().chain(&of_b).collect();
        assert_eq!(distinct.len(), 200);
    }
    assert_eq!(database.count("SELECT count(*) FROM inbox"), 0);
}

#[tokio::test]
async fn nodes_that_submit_and_finish_each_others_pins_cause_no_errors() {
    let Some(database) = database() else { return };
    let (mut a, mut b) = two(&database).await;
    let pins = ids("X", 300);
    let mut backwards = pins.clone();
    backwards.reverse();
    let run = async |node: &mut Node, pins: &[String]| {
        for _ in 0..20 {
            let heard = node.apply(Transaction { cluster: claim(), ..submits(&strs(pins)) }).await;
            let own: Vec<String> = heard.accepted.iter().map(|accepted| accepted.pin.to_string()).collect();
            node.apply(Transaction { verdicts: verdicts(&strs(&own)).verdicts, ..submits(&strs(pins)) })
                .await;
        }
    };
    tokio::join!(run(&mut a, &pins), run(&mut b, &backwards));
    for node in [&mut a, &mut b] {
        let left = node.claim().await.accepted;
        let left: Vec<String> = left.iter().map(|left| left.pin.to_string()).collect();
        node.finish(&strs(&left)).await;
    }
    assert_eq!(database.count("SELECT count(*) FROM outcome"), 300, "each once");
    assert_eq!(database.count("SELECT count(*) FROM pin"), 0);
}

/// Another node takes its locks in another order, as another version might.
#[tokio::test]
async fn a_node_that_loses_a_deadlock_tries_again_without_an_error() {
    let Some(database) = database() else { return };
    let name = database.one("SELECT current_database()");
    database.execute(&format!("ALTER DATABASE {name} SET deadlock_timeout = '3s'"));
    let mut node = node_at(&database.url(), "a", &Slots::ALL).await;
    let mut pins = ids("P", 2);
    pins.sort_by_key(|id| slot_of(&pin(id)));
    let insert = |id: &str| {
        let slot = slot_of(&pin(id));
        sqlx::AssertSqlSafe(format!("INSERT INTO pin VALUES ({slot}, '{id}', 0, 0) ON CONFLICT DO NOTHING"))
    };
    let mut other = PgConnection::connect(&database.url()).await.unwrap();
    other.execute("SET deadlock_timeout = '60s'; BEGIN").await.unwrap();
    other.execute(insert(&pins[1])).await.unwrap();
    let meanwhile = async {
        // The node has the first, and waits for the second.
        let mut look = PgConnection::connect(&database.url()).await.unwrap();
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                     AND datname = current_database()";
        while sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut look).await.unwrap() == 0 {
            tokio::task::yield_now().await;
        }
        other.execute(insert(&pins[0])).await.unwrap();
        other.execute("COMMIT").await.unwrap();
    };
    let asked = strs(&pins);
    let (submitted, ()) = tokio::join!(node.submit(&asked), meanwhile);
    assert_eq!(submitted, [Submitted::Duplicate, Submitted::Duplicate]);
}

#[tokio::test]
async fn outcomes_that_another_node_commits_late_are_not_skipped() {
    let Some(database) = database() else { return };
    let (mut a, mut b) = two(&database).await;
    let [even, odd] = of_each(1);
    b.submit(&strs(&odd)).await;
    a.submit(&strs(&even)).await;
    let lane = database.one("SELECT id FROM node WHERE name = 'b'");
    let mut late = PgConnection::connect(&database.url()).await.unwrap();
    late.execute("BEGIN").await.unwrap();
    let sql = format!("INSERT INTO outcome VALUES (nextval('outcome_seq'), {lane}, 'LATE', 0, '{{}}')");
    late.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
    let seq = a.finish(&strs(&even)).await[0].seq;

    let seen = a.store.stretch(&Position::after(0), 9).await.unwrap();
    assert_eq!(seen.outcomes.len(), 1);
    let position = a.store.before_last(0).await.unwrap();
    assert_eq!(position.highest(), seq);
    late.execute("COMMIT").await.unwrap();
    let (node, outcome) = a.store.stretch(&position, 9).await.unwrap().outcomes.remove(0);
    assert_eq!((node.to_string(), outcome.pin, outcome.seq < seq), (lane, pin("LATE"), true));
    assert_eq!(b.store.outcomes_after(0, 9).await.unwrap()[0].seq, outcome.seq, "its sinks read its lane");
    assert_eq!(a.store.outcomes_after(0, 9).await.unwrap()[0].seq, seq);
}

#[tokio::test]
async fn only_the_slots_of_a_dead_node_can_be_taken() {
    let Some(database) = database() else { return };
    let (mut a, mut b) = two(&database).await;
    let [_, odd] = of_each(1);
    b.submit(&strs(&odd)).await;
    assert_eq!(a.membership().take(&Slots::ALL).await.unwrap().len(), 0);
    let applied = a.apply(verdicts(&strs(&odd))).await;
    assert!(applied.finished.is_empty());
    assert_eq!(applied.cluster.gone, [pin(&odd[0])], "another node's");

    die(&database, "b");
    assert_eq!(a.membership().take(&Slots::ALL).await.unwrap().len(), 128);
    let page = a.membership().questions().in_flight_of(&Slots::ALL, None).await.unwrap();
    assert_eq!(page[0].pin, pin(&odd[0]));
    assert!(
        a.membership().questions().in_flight_of(&Slots::ALL, Some(&page[0].pin)).await.unwrap().is_empty()
    );
    let ended = a.finish(&strs(&odd)).await;
    // The old holder comes back with a verdict of its own.
    assert!(b.renew().await);
    let applied = b.apply(verdicts(&strs(&odd))).await;
    assert!(applied.finished.is_empty() && applied.cluster.gone.is_empty());
    assert_eq!(applied.cluster.known, ended);
}

#[tokio::test]
async fn slots_are_not_taken_during_a_transaction_of_their_node_nor_by_a_dead_node() {
    let Some(database) = database() else { return };
    let (mut a, mut b) = two(&database).await;
    let [_, odd] = of_each(1);
    b.writes.register_sink("s", true).await.unwrap();
    b.submit_and_finish(&strs(&odd)).await;
    let mut last = PgConnection::connect(&database.url()).await.unwrap();
    last.execute("BEGIN").await.unwrap();
    // As every writing transaction begins.
    last.execute("SELECT 1 FROM node WHERE name = 'b' FOR KEY SHARE").await.unwrap();
    die(&database, "b");
    let node = database.one("SELECT id FROM node WHERE name = 'b'").parse().unwrap();
    let adopt = || ClusterWork { adopt: vec![Orphan { node, sink: "s".into() }], ..ClusterWork::default() };
    assert_eq!(a.membership().take(&Slots::ALL).await.unwrap().len(), 0);
    assert_eq!(a.apply_cluster(adopt()).await.adopted, [0]);

    last.execute("ROLLBACK").await.unwrap();
    die(&database, "a");
    assert!(a.membership().take(&Slots::ALL).await.is_err(), "it has no lease itself");
    assert!(a.renew().await);
    assert_eq!(a.membership().take(&Slots::ALL).await.unwrap().len(), 128);
    assert_eq!(a.apply_cluster(adopt()).await.adopted, [1]);
}

#[tokio::test]
async fn the_slots_of_a_node_that_stopped_reading_from_the_database_can_be_taken() {
    let Some(database) = database() else { return };
    let Some(server) = Postgres::shared() else { return };
    let line = Line::to(server.port()).await;
    let lease = Duration::from_secs(5);
    let mut a = node_with_lease(&database.url_through(line.port), "a", &Slots::ALL, lease).await;
    let mut b = node_at(&database.url(), "b", &Slots::NONE).await;
    // More than the buffers between the two hold.
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(400_000));
    let pins = ids("P", 100);
    let submit = |id: &String| {
        let mut new = new(id);
        new.metadata = Some(serde_json::from_str(&large).unwrap());
        new
    };
    // A few at a time: on a busy machine all of them take longer than the lease.
    for pins in pins.chunks(10) {
        a.apply(Transaction { submits: pins.iter().map(submit).collect(), ..Transaction::default() }).await;
        assert!(a.renew().await);
    }
    line.stop_reading();
    let mut writes = a.writes;
    let work = verdicts(&strs(&pins));
    let stopped = tokio::spawn(async move { writes.apply(&work, 9).await.map(drop) });
    let sends = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'";
    let taken = async {
        while database.count(sends) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        loop {
            let taken = b.membership().take(&Slots::ALL).await.unwrap();
            if !taken.is_empty() {
                return taken;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // Its process still runs, so its connections are open.
    let taken = tokio::time::timeout(Duration::from_secs(60), taken).await.expect("they are taken");
    assert_eq!(taken.len(), 256);
    assert_eq!(database.count("SELECT count(*) FROM outcome"), 0);
    stopped.abort();
}

#[tokio::test]
async fn released_slots_can_be_taken_and_the_taker_learns_of_their_new_pins() {
    let Some(database) = database() else { return };
    let (mut a, mut b) = two(&database).await;
    let [even, odd] = of_each(1);
    a.apply_cluster(ClusterWork { release: Slots::ALL, ..ClusterWork::default() }).await;
    assert!(a.apply(submits(&strs(&even))).await.accepted.is_empty(), "nobody holds it");
    assert_eq!(b.membership().take(&Slots::ALL).await.unwrap().len(), 128);
    let heard = b.claim().await.accepted;
    assert_eq!(heard[0].pin, pin(&even[0]));

    a.submit(&strs(&odd)).await;
    a.apply_cluster(ClusterWork { cancels: vec![pin(&odd[0])], ..ClusterWork::default() }).await;
    let heard = b.claim().await;
    assert_eq!((heard.accepted.len(), heard.cluster.cancels), (1, vec![pin(&odd[0])]));
    assert!(b.claim().await.accepted.is_empty(), "told once");
}

#[tokio::test]
async fn a_sink_missing_at_one_node_loses_no_outcome_of_a_dead_node() {
    let Some(database) = database() else { return };
    let (mut a, mut b) = two(&database).await;
    let [_, odd] = of_each(1);
    b.writes.register_sink("s", true).await.unwrap();
    b.submit_and_finish(&strs(&odd)).await;
    die(&database, "b");
    let id =
        |name: &str| database.one(&format!("SELECT id FROM node WHERE name = '{name}'")).parse().unwrap();
    let orphan = Orphan { node: id("b"), sink: "s".into() };

    a.writes.register_sink("s", true).await.unwrap();
    let unregister = DeliveryCommand::Unregister { sink: "s".into() };
    a.apply(Transaction { commands: vec![unregister], ..Transaction::default() }).await;
    assert!(a.store.cursors().await.unwrap().is_empty());
    assert_eq!(a.membership().orphans(&["s".to_owned()]).await.unwrap(), [orphan]);
}

#[tokio::test]
async fn undelivered_outcomes_of_a_dead_node_can_be_adopted_by_another() {
    let Some(database) = database() else { return };
    let (mut a, mut b) = two(&database).await;
    for node in [&mut a, &mut b] {
        node.writes.register_sink("s", true).await.unwrap();
    }
    b.writes.register_sink("other", true).await.unwrap();
    let [_, odd] = of_each(3);
    let mut seqs = b.submit_and_finish(&strs(&odd)).await;
    seqs.sort_unstable();
    let retry =
        Failed { seq: seqs[0], dead: false, tries: 1, first_try_at: None, last_try_at: None, error: None };
    b.advance(Progress { sink: "s".into(), cursor: Some(seqs[0]), failed: vec![retry], delivered: vec![] })
        .await;
    let sinks = ["s".to_owned()];
    assert_eq!(a.membership().orphans(&sinks).await.unwrap(), []);
    let node = database.one("SELECT id FROM node WHERE name = 'b'").parse().unwrap();
    let orphan = Orphan { node, sink: "s".into() };
    let adopt = || ClusterWork { adopt: vec![orphan.clone()], ..ClusterWork::default() };
    assert_eq!(a.apply_cluster(adopt()).await.adopted, [0], "it lives");

    die(&database, "b");
    assert_eq!(a.membership().orphans(&sinks).await.unwrap(), std::slice::from_ref(&orphan));
    assert_eq!(a.apply_cluster(adopt()).await.adopted, [3]);
    assert_eq!(a.apply_cluster(adopt()).await.adopted, [0]);
    assert_eq!(a.membership().orphans(&sinks).await.unwrap(), []);
    let left: Vec<i64> =
        a.store.failed("s", false, 0, 9).await.unwrap().iter().map(|(failed, _)| failed.seq).collect();
    assert_eq!(left, seqs);
    // It comes back, and goes on behind that.
    let mut b = node_at(&database.url(), "b", &Slots::NONE).await;
    assert_eq!(b.writes.register_sink("s", true).await.unwrap(), seqs[2]);
    assert!(b.store.failed("s", false, 0, 9).await.unwrap().is_empty());
    assert_eq!(b.writes.register_sink("other", true).await.unwrap(), 0, "nobody else has that sink");
}
