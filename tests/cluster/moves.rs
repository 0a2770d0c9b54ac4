//! A store moved from SQLite to PostgreSQL, and back: nothing is lost, nothing is doubled, nobody disturbs it.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::common::postgres::PASSWORD;
use crate::common::{Ended, Place, program, run_to_end, until_true};
use crate::nodes::{Cluster, pins};

fn migrate(from: &str, to: &str) -> Ended {
    let mut command = program();
    command.args(["migrate-store", "--json", "--from", from, "--to", to]);
    run_to_end(command)
}

/// Checks that it did it; gives what it moved.
#[track_caller]
fn moved(from: &str, to: &str) -> Value {
    let Ended { code, stdout, stderr } = migrate(from, to);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(!stderr.contains(PASSWORD), "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// Checks that it did not; gives why.
#[track_caller]
fn refused(from: &str, to: &str) -> String {
    let Ended { code, stdout, stderr } = migrate(from, to);
    assert_eq!(code, Some(1), "{stderr}");
    assert_eq!(stdout, "");
    assert!(!stderr.contains(PASSWORD), "{stderr}");
    stderr
}

fn sqlite(place: &Place) -> String {
    format!("sqlite:{}", place.store().display())
}

/// As [`Cluster::place`], for one daemon with SQLite.
fn alone(cluster: &Cluster) -> Place {
    let place = cluster.place("alone");
    let store = sqlite(&place);
    place.set("store.url", &store)
}

/// PINs in flight, outcomes that the webhook has and has not, and one that is a dead letter there.
struct Full {
    delivered: Vec<String>,
    undelivered: Vec<String>,
    in_flight: Vec<String>,
}

impl Full {
    fn all(&self) -> Vec<String> {
        [&self.delivered[..], &self.undelivered[..], &self.in_flight[..]].concat()
    }
}

/// Fills a store by a daemon or node, which is stopped then.
fn fill(cluster: &Cluster, place: Place) -> (Place, Full, Vec<Value>) {
    let node = place.start();
    let delivered = pins("delivered", "early", 40);
    node.client().submit_all(&delivered);
    until_true("the webhook has the first", || {
        let ids: HashSet<String> = cluster.hook.received().into_iter().map(|one| one.id).collect();
        ids.len() == delivered.len()
    });
    node.all_records(delivered.len());
    let stats = |node: &crate::common::Daemon| node.client().stats();
    until_true("all is noted", || {
        let sinks = stats(&node)["sinks"].take();
        sinks.as_object().unwrap().values().all(|sink| sink["behind"] == 0 && sink["retrying"] == 0)
    });
    cluster.hook.refuse(true);
    let undelivered = pins("failed", "late", 30);
    node.client().submit_all(&undelivered);
    until_true("the others have ended", || node.records().len() == delivered.len() + undelivered.len());
    let in_flight = pins("10s", "flying", 25);
    let mut client = node.client();
    client.submit_all(&in_flight[1..]);
    let request = json!({"op": "submit", "pinId": in_flight[0], "reference": "ref", "metadata": {"n": 1}});
    assert_eq!(client.op(&request)["state"], "accepted");
    drop(client);
    let before = outbox(&node);
    (node.terminate(), Full { delivered, undelivered, in_flight }, before)
}

/// What the store's own outcomes are, by its `tail`.
fn outbox(node: &crate::common::Daemon) -> Vec<Value> {
    let mut client = node.client();
    client.write("{\"op\":\"tail\",\"from\":1}\n");
    let mut records = Vec::new();
    loop {
        let line = client.answer();
        if line["end"] == true {
            return records;
        }
        records.push(line);
    }
}

/// Every PIN has one outcome, those from before as they were, and the webhook has every one by one id.
#[track_caller]
fn all_well(cluster: &Cluster, node: &crate::common::Daemon, full: &Full, before: &[Value]) {
    let mut client = node.client();
    for pin in full.all() {
        client.outcome(&pin);
    }
    let after = outbox(node);
    assert_eq!(&after[..before.len()], before);
    let told: HashSet<String> =
        after.iter().map(|record| record["pinId"].as_str().unwrap().to_owned()).collect();
    assert_eq!((told.len(), after.len()), (full.all().len(), full.all().len()));
    let with_more = after.iter().find(|record| record["pinId"] == *full.in_flight[0]).unwrap();
    assert_eq!((&with_more["reference"], &with_more["metadata"]), (&json!("ref"), &json!({"n": 1})));
    cluster.hook.refuse(false);
    let ids: HashSet<&str> = after.iter().map(|record| record["id"].as_str().unwrap()).collect();
    until_true("the webhook has every outcome", || {
        cluster.hook.received().iter().map(|one| one.id.clone()).collect::<HashSet<_>>().len() == ids.len()
    });
    assert!(cluster.hook.received().iter().all(|one| ids.contains(one.id.as_str())));
}

#[test]
fn a_store_moves_from_sqlite_to_postgresql_with_all_that_is_in_it() {
    let Some(cluster) = Cluster::new() else { return };
    let (place, full, before) = fill(&cluster, alone(&cluster));
    let told = moved(&sqlite(&place), &cluster.database.url());
    assert_eq!(told["pins"], 25);
    assert_eq!((&told["outcomes"], &told["sinks"]), (&json!(before.len()), &json!(2)));
    let count = |table: &str| cluster.database.count(&format!("SELECT count(*) FROM {table}"));
    assert_eq!((count("pin"), count("outcome")), (25, 70));
    // Again is refused: it is not empty any more.
    assert!(refused(&sqlite(&place), &cluster.database.url()).contains("already"));
    let delivered = cluster.hook.received().len();
    let node = cluster.node("a");
    all_well(&cluster, &node, &full, &before);
    // Every webhook is of an id that was not delivered before, or was not answered.
    println!("{} webhooks, {delivered} of them before the move", cluster.hook.received().len());
}

#[test]
fn a_store_moves_from_postgresql_to_sqlite_with_what_every_lane_has_still_to_deliver() {
    let Some(cluster) = Cluster::new() else { return };
    // Two nodes, one after the other: two lanes.
    let (first, mut full, _) = fill(&cluster, cluster.place("a"));
    let node = cluster.node("b");
    let more = pins("delivered", "second", 20);
    node.client().submit_all(&more);
    node.client().outcome(&more[19]);
    until_true("they have ended", || cluster.database.count("SELECT count(*) FROM outcome") >= 90);
    let before = outbox(&node);
    node.kill9();
    full.undelivered.extend(more);
    drop(first);
    let place = alone(&cluster);
    until_true("the dead one's lease is over", || cluster.holders().is_empty());
    let told = moved(&cluster.database.url(), &sqlite(&place));
    assert_eq!(told["outcomes"], cluster.database.count("SELECT count(*) FROM outcome"));
    assert!(refused(&cluster.database.url(), &sqlite(&place)).contains("there already"));
    let count = |sql| crate::common::count(&place.store(), sql);
    let (outcomes, newest) = (count("SELECT count(*) FROM outcome"), count("SELECT max(seq) FROM outcome"));
    assert_eq!(count("SELECT count(*) FROM outcome_by_pin"), outcomes, "a start has nothing to put in order");
    assert!(count("SELECT indexed FROM history") >= newest);
    let node = place.start();
    all_well(&cluster, &node, &full, &before);
}

#[test]
fn there_and_back_again_is_the_same_store() {
    let Some(cluster) = Cluster::new() else { return };
    let (place, full, before) = fill(&cluster, alone(&cluster));
    let there = moved(&sqlite(&place), &cluster.database.url());
    let home = alone(&cluster);
    let back = moved(&cluster.database.url(), &sqlite(&home));
    assert_eq!(
        (&there["pins"], &there["outcomes"], &there["sinks"]),
        (&back["pins"], &back["outcomes"], &back["sinks"])
    );
    let node = home.start();
    all_well(&cluster, &node, &full, &before);
}

#[test]
fn a_store_in_use_is_not_moved_and_not_moved_onto() {
    let Some(cluster) = Cluster::new() else { return };
    let daemon = alone(&cluster).start();
    let said = refused(&sqlite(&daemon.place), &cluster.database.url());
    assert!(said.contains("another pinwatch uses"), "{said}");
    let node = cluster.node("a");
    let elsewhere = daemon.place.path("elsewhere.db");
    let said = refused(&cluster.database.url(), &format!("sqlite:{}", elsewhere.display()));
    assert!(said.contains("nodes use") && said.contains(": a."), "{said}");
    assert!(!elsewhere.exists());
    let place = daemon.terminate();
    let said = refused(&sqlite(&place), &cluster.database.url());
    assert!(said.contains("nodes use"), "{said}");
    drop(node);
}

#[test]
fn a_move_that_was_broken_off_is_begun_again_from_the_start() {
    let Some(cluster) = Cluster::new() else { return };
    let [node] = cluster.nodes(["a"]);
    node.terminate();
    let place = alone(&cluster);
    // What a killed one leaves.
    std::fs::write(place.path("pinwatch.db.unfinished"), "half").unwrap();
    moved(&cluster.database.url(), &sqlite(&place));
    assert!(!place.path("pinwatch.db.unfinished").exists());
    place.start().terminate();
}

#[test]
fn what_can_not_be_moved_is_told() {
    let Some(cluster) = Cluster::new() else { return };
    let place = alone(&cluster);
    assert!(refused(&sqlite(&place), &cluster.database.url()).contains("there is no database"));
    assert!(refused(&sqlite(&place), &sqlite(&place)).contains("the other way round"));
    let Ended { code, stderr, .. } = migrate("mysql:x", &cluster.database.url());
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("--from must be"), "{stderr}");
}
