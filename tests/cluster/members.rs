//! Which processes may be nodes of the cluster.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::cluster::nodes::{Cluster, get, pins};
use crate::support::postgres::PASSWORD;
use crate::support::{Place, program, run_to_end, until_true};

#[test]
fn slots_are_shared_evenly_when_nodes_come_and_go() {
    let Some(cluster) = Cluster::new() else { return };
    let [a, b, c] = cluster.nodes(["a", "b", "c"]);
    a.terminate();
    cluster.wait_until_shared_by(&["b", "c"]);
    let b = b.kill9();
    cluster.wait_until_shared_by(&["c"]);
    let b = b.start();
    cluster.wait_until_shared_by(&["b", "c"]);
    b.terminate();
    c.terminate();
    assert!(cluster.holders().is_empty());
}

#[test]
fn nodes_started_at_once_on_an_empty_database_agree_on_its_tables() {
    let Some(cluster) = Cluster::new() else { return };
    let names = ["a", "b", "c", "d", "e"];
    thread::scope(|scope| {
        let places = names.map(|name| cluster.place(name));
        let nodes = places.map(|place| scope.spawn(move || place.start()));
        let mut nodes: Vec<_> = nodes.into_iter().map(|node| node.join().unwrap()).collect();
        cluster.wait_until_shared_by(&names);
        let pins = pins("delivered", "x", 100);
        nodes.pop().unwrap().client().submit_all(&pins);
        cluster.wait_for_one_outcome_each(&pins);
    });
    assert_eq!(cluster.database.count("SELECT count(*) FROM slot"), 256);
}

#[test]
fn a_second_node_with_the_same_name_is_refused_and_the_first_is_not_disturbed() {
    let Some(cluster) = Cluster::new() else { return };
    let first = cluster.place("twin").set("cluster.lease", "5s").start();
    cluster.wait_until_shared_by(&["twin"]);
    let fence = "SELECT fence FROM node WHERE name = 'twin'";
    let before = cluster.database.one(fence);
    let second = cluster.place("twin").set("cluster.lease", "5s").refusal();
    assert_eq!(second.code, Some(1), "{}", second.stderr);
    assert!(second.stderr.contains("cluster.node") && second.stderr.contains("twin"), "{}", second.stderr);
    assert_eq!(cluster.database.one(fence), before);
    let pins = pins("delivered", "x", 20);
    first.client().submit_all(&pins);
    cluster.wait_for_one_outcome_each(&pins);
}

#[test]
fn a_node_that_was_killed_a_moment_ago_is_started_again_under_its_name() {
    let Some(cluster) = Cluster::new() else { return };
    let [node] = cluster.nodes(["a"]);
    let pins = pins("1s", "x", 50);
    node.client().submit_all(&pins);
    let node = node.kill9().start();
    cluster.wait_for_one_outcome_each(&pins);
    cluster.wait_until_webhook_has_all();
    assert_eq!(cluster.database.count("SELECT count(*) FROM node"), 1);
    drop(node);
}

#[test]
fn a_node_older_than_the_database_refuses_to_start_and_changes_nothing() {
    let Some(cluster) = Cluster::new() else { return };
    cluster.node("a").terminate();
    let migrations = cluster
        .database
        .one("SELECT oid::regclass FROM pg_class WHERE relname LIKE '%migrations' AND relkind = 'r'");
    cluster.database.execute(&format!(
        "INSERT INTO {migrations} SELECT 9999, 'of tomorrow', now(), true, checksum, 0 FROM {migrations} LIMIT 1"
    ));
    let nodes = "SELECT string_agg(node::text, ' ' ORDER BY id) FROM node";
    let before = cluster.database.one(nodes);
    let refused = cluster.place("b").refusal();
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("newer"), "{}", refused.stderr);
    assert_eq!(cluster.database.one(nodes), before);
}

#[test]
fn a_newer_node_migrates_the_tables_while_an_older_one_works() {
    let Some(cluster) = Cluster::new() else { return };
    let a = cluster.node("a");
    let all = pins("1h", "old", 50);
    a.client().submit_all(&all);
    // The first schema, of which `a` is a node then: none of its statements in daily work names what came later, but for
    // columns that stay, since it is not that old in truth.
    cluster.database.execute(
        "DROP TABLE dropped; DROP TABLE pruned; DROP TABLE steady_begin; \
             DROP INDEX pin_by_reference; DROP INDEX outcome_by_reference; \
             DELETE FROM _sqlx_migrations WHERE version > 1",
    );
    let b = cluster.node("b");
    cluster.wait_until_shared_by(&["a", "b"]);
    assert_eq!(cluster.database.count("SELECT max(version) FROM _sqlx_migrations"), 7);
    let more = pins("delivered", "new", 50);
    a.client().submit_all(&more[..25]);
    b.client().submit_all(&more[25..]);
    let mut client = b.client();
    for pin in &more {
        client.outcome(pin);
    }
    assert_eq!(cluster.database.count("SELECT count(*) FROM pin"), 50);
}

#[test]
fn a_database_that_can_not_be_used_is_named_without_its_password() {
    let Some(cluster) = Cluster::new() else { return };
    let wrong = cluster.database.url().replace(PASSWORD, "another-secret");
    let nowhere = cluster.database.url_through(1);
    for (url, secret) in [(wrong.as_str(), "another-secret"), (nowhere.as_str(), PASSWORD)] {
        let refused = cluster.place_at("a", url).refusal();
        assert_eq!(refused.code, Some(1), "{}", refused.stderr);
        assert!(refused.stderr.contains("127.0.0.1"), "{}", refused.stderr);
        assert!(!refused.stderr.contains(secret), "{}", refused.stderr);
    }
}

#[test]
fn the_password_of_the_database_appears_in_no_log_or_answer() {
    let Some(cluster) = Cluster::new() else { return };
    let node = cluster.place("a").set("log.level", "trace").start();
    cluster.wait_until_shared_by(&["a"]);
    let stats = node.client().op(&json!({"op": "stats"})).to_string();
    let mut check = program();
    check.arg("--config").arg(node.place.path("pinwatch.toml")).arg("check-config");
    let checked = run_to_end(check);
    let place: Place = node.terminate();
    for text in [stats, checked.stdout, checked.stderr, place.stderr()] {
        assert!(!text.contains(PASSWORD), "{text}");
    }
}

#[test]
fn a_node_that_is_stopped_during_its_start_releases_its_slots() {
    let Some(cluster) = Cluster::new() else { return };
    let mut place = cluster.place("a");
    for _ in 0..10 {
        // It accepts connections before its slots are loaded.
        place = place.start().terminate();
        let alive = "SELECT count(*) FROM node WHERE lease_until > clock_timestamp()";
        assert_eq!(cluster.database.count(alive), 0);
    }
}

#[test]
fn a_node_that_waits_for_the_lease_of_its_name_can_be_stopped_at_once() {
    let Some(cluster) = Cluster::new() else { return };
    let place = cluster.place("a").set("cluster.lease", "60s").start().kill9();
    let mut waiting = place.spawn();
    let asked =
        "SELECT count(*) FROM pg_stat_activity WHERE query = 'ROLLBACK' AND datname = current_database()";
    until_true("it has asked for its name", || cluster.database.count(asked) == 1);
    let told = Instant::now();
    waiting.signal(Signal::TERM);
    assert!(waiting.wait().success());
    // It has no slots to release, for which a stopped start would have 20 s.
    assert!(told.elapsed() < Duration::from_secs(15), "{:?}", told.elapsed());
}

#[test]
fn metrics_tell_how_many_slots_a_node_holds_and_how_often_it_lost_its_lease() {
    let Some(cluster) = Cluster::new() else { return };
    let a = cluster.place("a").set("http.listen", "127.0.0.1:0").start();
    let b = cluster.node("b");
    cluster.wait_until_shared_by(&["a", "b"]);
    let numbers = || {
        let text = get(&a, "/metrics");
        ["slots_held", "nodes", "leases_lost_total"].map(|name| {
            let name = format!("pinwatch_cluster_{name} ");
            let value = text.lines().find_map(|line| line.strip_prefix(&name));
            value.unwrap_or_else(|| panic!("no {name}: {text}")).parse::<f64>().unwrap()
        })
    };
    until_true("it has its half", || numbers() == [128.0, 2.0, 0.0]);
    drop(b);
    until_true("it has all", || numbers() == [256.0, 1.0, 0.0]);
    a.signal(Signal::STOP);
    until_true("its lease is over", || cluster.holders().is_empty());
    a.signal(Signal::CONT);
    until_true("it has lost one lease, and has another", || numbers() == [256.0, 1.0, 1.0]);
}

#[test]
fn the_nodes_command_shows_how_many_slots_each_node_holds() {
    let Some(cluster) = Cluster::new() else { return };
    let [a, b] = cluster.nodes(["a", "b"]);
    let b = b.kill9();
    until_true("the dead one is told as dead", || {
        let answer = a.client().op(&json!({"op": "nodes"}));
        let Some(nodes) = answer["nodes"].as_array() else { panic!("{answer}") };
        let told = |name: &str| nodes.iter().find(|node| node["name"] == name).unwrap().clone();
        nodes.len() == 2
            && told("a")["alive"] == true
            && told("a")["slots"] == 256
            && told("b")["alive"] == false
    });
    drop(b);
}
