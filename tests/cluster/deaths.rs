//! A node dies, is suspended or stopped; another one takes over its PINs and outcomes.

use std::panic::{self, AssertUnwindSafe};
use std::thread;
use std::time::Duration;

use pinwatch::simulate::Settings;
use rustix::process::Signal;
use serde_json::json;

use crate::cluster::nodes::{Cluster, pins, submit_anywhere};
use crate::support;
use crate::support::postgres::Postgres;
use crate::support::until_true;

#[test]
fn the_pins_of_a_killed_node_are_taken_over_and_each_has_one_outcome() {
    let Some(cluster) = Cluster::new() else { return };
    let [a, b, c] = cluster.nodes(["a", "b", "c"]);
    let all: Vec<Vec<String>> = ["a", "b", "c"].iter().map(|name| pins("2s", name, 200)).collect();
    for (node, pins) in [&a, &b, &c].into_iter().zip(&all) {
        node.client().submit_all(pins);
    }
    cluster.record_takeovers();
    let a = a.kill9();
    cluster.wait_until_shared_by(&["b", "c"]);
    let latest = cluster.database.one("SELECT max(late) FROM took");
    println!("taken over {latest} after the lease's end");
    assert!(cluster.database.count("SELECT count(*) FROM took") >= 85);
    // Nodes look every third of a lease and do not wait for another lease.
    assert_eq!(cluster.database.one("SELECT max(late) < interval '3 seconds' FROM took"), "t", "{latest}");
    cluster.wait_for_one_outcome_each(&all.concat());
    cluster.wait_until_webhook_has_all();
    // It starts again, and is a node like the others.
    let a = a.start();
    cluster.wait_until_shared_by(&["a", "b", "c"]);
    let more = pins("delivered", "more", 50);
    a.client().submit_all(&more);
    cluster.wait_for_one_outcome_each(&[all.concat(), more].concat());
    cluster.wait_until_webhook_has_all();
}

#[test]
fn another_node_delivers_the_outcomes_that_a_dead_node_did_not() {
    let Some(cluster) = Cluster::new() else { return };
    let [a, b] = cluster.nodes(["a", "b"]);
    cluster.hook.refuse(true);
    let pins = pins("delivered", "x", 300);
    a.client().submit_all(&pins);
    cluster.wait_for_one_outcome_each(&pins);
    assert!(cluster.hook.received().is_empty());
    let a = a.kill9();
    cluster.wait_until_shared_by(&["b"]);
    cluster.hook.refuse(false);
    cluster.wait_until_webhook_has_all();
    // Both have a file, and every outcome is in one of them.
    until_true("every outcome is in a file", || {
        let mut written: Vec<String> =
            a.records().iter().chain(&b.records()).map(|record| record["pinId"].to_string()).collect();
        written.sort();
        written.dedup();
        written.len() == pins.len()
    });
}

#[test]
fn a_node_suspended_for_longer_than_its_lease_writes_nothing_when_it_continues() {
    let Some(server) = Postgres::shared() else { return };
    // Polls are slow, so that the node is suspended during many, and continues with their answers.
    let slow = Settings { latency: Duration::from_millis(500), ..Settings::default() };
    let cluster = Cluster::with(server, slow);
    let a = cluster.node("a");
    // Slow, so that many PINs that it takes over are still in flight when the other node continues.
    let b = cluster.place("b").set("api.rate", "5").start();
    cluster.wait_until_shared_by(&["a", "b"]);
    cluster.record_leases_of_writes();
    let mut all = pins("delivered", "slept", 80);
    let mut client = a.client();
    client.submit_all(&all);
    until_true("it polls", || cluster.api.counts().requests > 20);
    a.signal(Signal::STOP);
    // Sent while it is suspended.
    let late = pins("delivered", "late", 20);
    client.write(late.iter().map(|pin| format!("{pin}\n")).collect::<String>());
    cluster.wait_until_shared_by(&["b"]);
    let by_a = "SELECT outcome.xmin, outcome.* FROM outcome JOIN node ON node.id = lane WHERE name = 'a' ORDER BY seq";
    let before = cluster.database.query(by_a);
    a.signal(Signal::CONT);
    cluster.wait_until_shared_by(&["a", "b"]);
    let answers: Vec<_> = late.iter().map(|_| client.answer()).collect();
    // It may have been suspended within a transaction, which the server then ended: it refuses those PINs.
    let refused = answers.iter().filter(|answer| answer["ok"] == false);
    refused.for_each(|answer| {
        assert_eq!(answer["error"]["code"], "store_unavailable", "{answer}");
        // With our own message.
        assert!(!answer.to_string().contains("terminating connection"), "{answer}");
    });
    submit_anywhere(&[&a], &late);
    all.extend(late);
    cluster.wait_for_one_outcome_each(&all);
    cluster.wait_until_webhook_has_all();
    cluster.assert_written_under_leases();
    assert_eq!(cluster.database.query(by_a)[..before.len()], before);
    drop(b);
}

#[test]
fn a_lone_suspended_node_writes_nothing_before_it_has_a_new_lease() {
    let Some(server) = Postgres::shared() else { return };
    let slow = Settings { latency: Duration::from_millis(500), ..Settings::default() };
    let cluster = Cluster::with(server, slow);
    let a = cluster.node("a");
    cluster.wait_until_shared_by(&["a"]);
    cluster.record_leases_of_writes();
    let all = pins("delivered", "slept", 100);
    let mut client = a.client();
    client.submit_all(&all);
    until_true("it polls", || cluster.api.counts().requests > 20);
    a.signal(Signal::STOP);
    // No other node takes anything from it: only its lease forbids it to write.
    until_true("its lease is over", || cluster.holders().is_empty());
    let written = || cluster.database.count("SELECT count(*) FROM outcome");
    let before = written();
    while_no_lease_is_renewed(&cluster, || {
        a.signal(Signal::CONT);
        // It continues with the answers of polls, and tries to write the outcomes.
        until_true("it was refused", || !a.client().stats()["store"]["trouble"].is_null());
        assert_eq!(written(), before);
    });
    cluster.wait_for_one_outcome_each(&all);
    cluster.wait_until_webhook_has_all();
    cluster.assert_written_under_leases();
}

/// Runs `work` while a lock blocks renewals of the lease but not the writer.
fn while_no_lease_is_renewed(cluster: &Cluster, doing: impl FnOnce()) {
    let database = &cluster.database;
    database.execute("CREATE TABLE gate ()");
    thread::scope(|scope| {
        let lock = scope.spawn(|| {
            database.execute(
                "SELECT FROM node FOR NO KEY UPDATE; \
                 DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM gate) LOOP PERFORM pg_sleep(0.02); END LOOP; END $$",
            );
        });
        until_true("no lease runs", || cluster.holders().is_empty());
        let locks = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT FROM node FOR NO KEY%' \
                     AND datname = current_database() AND wait_event = 'PgSleep'";
        until_true("it is locked", || database.count(locks) == 1);
        let done = panic::catch_unwind(AssertUnwindSafe(doing));
        // Also after a failure; else the lock would stay.
        database.execute("INSERT INTO gate DEFAULT VALUES");
        lock.join().unwrap();
        if let Err(failure) = done {
            panic::resume_unwind(failure);
        }
    });
}

#[test]
fn a_node_that_can_not_renew_its_lease_refuses_submits_until_it_can() {
    let Some(cluster) = Cluster::new() else { return };
    let [a] = cluster.nodes(["a"]);
    let pins = pins("delivered", "x", 10);
    while_no_lease_is_renewed(&cluster, || {
        let answers = support::submit(&mut support::Client::connect(&a.place.socket()), &pins);
        assert!(answers.iter().all(|answer| answer["error"]["code"] == "store_unavailable"), "{answers:?}");
        assert_eq!(cluster.database.count("SELECT count(*) FROM pin"), 0);
    });
    submit_anywhere(&[&a], &pins);
    cluster.wait_for_one_outcome_each(&pins);
}

#[test]
fn a_stopped_node_hands_over_without_waiting_for_its_lease() {
    let Some(cluster) = Cluster::new() else { return };
    let lease = |name| cluster.place(name).set("cluster.lease", "60s");
    let (a, b) = (lease("a").start(), lease("b").start());
    cluster.wait_until_shared_by(&["a", "b"]);
    let pins = pins("1s", "x", 100);
    a.client().submit_all(&pins);
    a.terminate();
    assert_eq!(cluster.holders().keys().collect::<Vec<_>>(), ["b"]);
    // With a wait for the lease of a minute, this would time out.
    cluster.wait_until_shared_by(&["b"]);
    cluster.wait_for_one_outcome_each(&pins);
    cluster.wait_until_webhook_has_all();
    drop(b);
}

#[test]
fn pins_accepted_by_a_dying_node_for_another_node_are_polled_by_that_node() {
    let Some(cluster) = Cluster::new() else { return };
    let [a, b] = cluster.nodes(["a", "b"]);
    let pins = pins("delivered", "x", 100);
    let mut client = a.client();
    let answers = support::submit(&mut support::Client::connect(&a.place.socket()), &pins);
    assert!(answers.iter().all(|answer| answer["state"] == "accepted"));
    drop(a);
    assert!(client.whole_line().is_none());
    cluster.wait_for_one_outcome_each(&pins);
    cluster.wait_until_webhook_has_all();
    // Every node knows of them: none is polled twice.
    let answer = b.client().op(&json!({"op": "submit", "pinId": pins[0]}));
    assert_eq!(answer["state"], "finished");
    submit_anywhere(&[&b], &pins);
    cluster.wait_for_one_outcome_each(&pins);
}

/// The id of an outcome that is committed late.
const LATE: &str = "01936b5e-0000-7000-8000-000000000001";

#[test]
fn an_outcome_that_another_node_commits_late_is_delivered() {
    let Some(cluster) = Cluster::new() else { return };
    // So seldom does it look who there is: it would give slots to the other one, which is none.
    let a = cluster.place("a").set("cluster.lease", "60s").start();
    cluster.wait_until_shared_by(&["a"]);
    let database = &cluster.database;
    // Another node, whose transaction has its seq and is not committed yet.
    database.execute(
        "CREATE TABLE gate (); \
         INSERT INTO node (name, fence, lease_until, started_at, version) \
         VALUES ('slow', 1, now() + interval '1 hour', 0, '0'); \
         INSERT INTO cursor (lane, sink, cursor) SELECT id, 'webhook', 0 FROM node WHERE name = 'slow'",
    );
    let last_seq =
        || database.count("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM outcome_seq");
    thread::scope(|scope| {
        let late = scope.spawn(|| {
            let record = json!({
                "seq": 1, "id": LATE, "pinId": "LATE", "outcome": "final", "status": "MESSAGE_DELIVERED",
                "description": "", "delivered": true, "deliveries": [], "submittedAt": "2026-01-01T00:00:00.000Z",
                "finishedAt": "2026-01-01T00:00:01.000Z", "polls": 1,
            });
            database.execute(&format!(
                "SELECT FROM node WHERE name = 'slow' FOR KEY SHARE; \
                 INSERT INTO outcome (lane, seq, pin_id, finished_at, record) \
                 SELECT id, nextval('outcome_seq'), 'LATE', 0, '{record}' FROM node WHERE name = 'slow'; \
                 DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM gate) LOOP PERFORM pg_sleep(0.02); END LOOP; END $$"
            ));
        });
        until_true("its seq is given away", || last_seq() == 1);
        let pins = pins("delivered", "x", 50);
        a.client().submit_all(&pins);
        // Later outcomes are delivered while that one is not visible yet.
        cluster.wait_for_one_outcome_each(&pins);
        cluster.wait_until_webhook_has_all();
        database.execute("INSERT INTO gate DEFAULT VALUES");
        late.join().unwrap();
    });
    assert!(cluster.hook.received().iter().all(|one| one.id != LATE), "a living node's lane is its own");
    database.execute("UPDATE node SET lease_until = clock_timestamp() WHERE name = 'slow'");
    cluster.wait_until_webhook_has_all();
    assert!(cluster.hook.received().iter().any(|one| one.id == LATE));
}
