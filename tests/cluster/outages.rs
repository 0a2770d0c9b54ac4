//! The database, or the network to it, fails for a while.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::cluster::nodes::{Cluster, get, pins, submit_anywhere};
use crate::cluster::proxy::Proxy;
use crate::support::postgres::Postgres;
use crate::support::until_true;

#[test]
fn a_node_cut_off_from_the_database_is_replaced_and_comes_back() {
    let Some(server) = Postgres::shared() else { return };
    let cluster = Cluster::on(server);
    let line = Proxy::start(server.port());
    let a = cluster.place_at("a", &cluster.database.url_through(line.port()));
    let a = a.set("http.listen", "127.0.0.1:0").start();
    let _b = cluster.node("b");
    cluster.wait_until_shared_by(&["a", "b"]);
    cluster.record_leases_of_writes();
    let all = pins("3s", "x", 200);
    a.client().submit_all(&all);
    assert!(get(&a, "/readyz").starts_with("HTTP/1.0 200"));
    line.cut();
    cluster.wait_until_shared_by(&["b"]);
    let ready = get(&a, "/readyz");
    assert!(ready.starts_with("HTTP/1.0 503") && ready.contains("lease_lost"), "{ready}");
    let answer = a.client().op(&json!({"op": "submit", "pinId": "sim-delivered-refused"}));
    assert_eq!(answer["error"]["code"], "store_unavailable", "{answer}");
    cluster.wait_for_one_outcome_each(&all);
    line.heal();
    cluster.wait_until_shared_by(&["a", "b"]);
    until_true("it says that it is well", || get(&a, "/readyz").starts_with("HTTP/1.0 200"));
    // Its late messages changed nothing.
    cluster.wait_for_one_outcome_each(&all);
    let more = pins("delivered", "more", 50);
    a.client().submit_all(&more);
    cluster.wait_for_one_outcome_each(&[all, more].concat());
    cluster.wait_until_webhook_has_all();
    cluster.assert_written_under_leases();
}

#[test]
fn a_network_failure_during_work_loses_and_duplicates_no_acknowledged_pin() {
    let Some(server) = Postgres::shared() else { return };
    let cluster = Cluster::on(server);
    let line = Proxy::start(server.port());
    let a = cluster.place_at("a", &cluster.database.url_through(line.port())).start();
    let b = cluster.node("b");
    cluster.wait_until_shared_by(&["a", "b"]);
    let mut all = Vec::new();
    for round in 0..5_u64 {
        let fresh = pins("100ms", &format!("r{round}n"), 200);
        thread::scope(|scope| {
            scope.spawn(|| submit_anywhere(&[&a, &b], &fresh));
            thread::sleep(Duration::from_millis(20 * round));
            line.cut();
            thread::sleep(Duration::from_millis(700 * round));
            line.heal();
            line.reset();
        });
        all.extend(fresh);
    }
    cluster.wait_for_one_outcome_each(&all);
    cluster.wait_until_webhook_has_all();
}

#[test]
fn an_immediate_restart_of_the_database_costs_time_but_no_pin() {
    let Some(server) = Postgres::launch() else { return };
    let cluster = Cluster::on(&server);
    let nodes = cluster.nodes(["a", "b", "c"]);
    let nodes: Vec<_> = nodes.iter().collect();
    let mut all = Vec::new();
    for round in 0..3 {
        let fresh = pins("300ms", &format!("r{round}n"), 300);
        thread::scope(|scope| {
            scope.spawn(|| submit_anywhere(&nodes, &fresh));
            server.restart_immediately();
        });
        all.extend(fresh);
    }
    cluster.wait_for_one_outcome_each(&all);
    cluster.wait_until_webhook_has_all();
    cluster.wait_until_shared_by(&["a", "b", "c"]);
}

#[test]
fn nodes_continue_after_a_database_outage_longer_than_the_lease() {
    let Some(server) = Postgres::launch() else { return };
    let cluster = Cluster::on(&server);
    let [a, b] = cluster.nodes(["a", "b"]);
    let all = pins("2s", "x", 200);
    a.client().submit_all(&all);
    server.stop();
    thread::sleep(Duration::from_secs(5));
    server.start();
    cluster.wait_for_one_outcome_each(&all);
    cluster.wait_until_webhook_has_all();
    cluster.wait_until_shared_by(&["a", "b"]);
    until_true("both are well", || {
        [&a, &b].iter().all(|node| node.client().stats()["store"]["trouble"].is_null())
    });
}
