//! The primary database dies, and a standby takes over its address.

use std::collections::HashMap;
use std::thread;

use crate::cluster::nodes::{Cluster, pins, submit_anywhere};
use crate::cluster::proxy::Proxy;
use crate::support::postgres::{Database, Postgres};
use crate::support::until_true;

/// Waits until every standby has everything written so far.
fn followed(database: &Database) {
    let behind = "SELECT count(*) FILTER (WHERE replay_lsn IS DISTINCT FROM pg_current_wal_lsn()) + \
                  (count(*) = 0)::int FROM pg_stat_replication";
    until_true("the standby has it all", || database.count(behind) == 0);
}

/// The `id` of each PIN's outcome.
fn ids(database: &Database) -> HashMap<String, String> {
    let rows = database.query("SELECT pin_id, record::json ->> 'id' FROM outcome");
    let count = rows.len();
    let ids: HashMap<String, String> =
        rows.into_iter().map(|mut row| (row.remove(0), row.remove(0))).collect();
    assert_eq!(ids.len(), count, "a PIN has two outcomes");
    ids
}

#[test]
fn a_failover_with_synchronous_replication_costs_time_but_no_pin() {
    let Some(server) = Postgres::launch() else { return };
    let mut cluster = Cluster::on(&server);
    let line = Proxy::start(server.port());
    let url = cluster.database.url_through(line.port());
    let nodes = ["a", "b", "c"].map(|name| cluster.place_at(name, &url).start());
    cluster.wait_until_shared_by(&["a", "b", "c"]);
    let standby = server.standby();
    cluster.database.execute("ALTER SYSTEM SET synchronous_standby_names = '*'");
    cluster.database.execute("SELECT pg_reload_conf()");
    let synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
    until_true("it is synchronous", || cluster.database.count(synchronous) == 1);

    let nodes: Vec<_> = nodes.iter().collect();
    let long = pins("4s", "long", 300);
    nodes[0].client().submit_all(&long);
    let all: Vec<String> = (0..8).flat_map(|round| pins("300ms", &format!("r{round}n"), 300)).collect();
    thread::scope(|scope| {
        for (part, node) in all.chunks(800).zip(&nodes) {
            scope.spawn(move || part.chunks(50).for_each(|pins| submit_anywhere(&[node], pins)));
        }
        until_true("the first have ended", || cluster.database.count("SELECT count(*) FROM outcome") > 100);
        server.stop();
        standby.promote();
        line.move_to(standby.port());
    });
    cluster.database = standby.same(&cluster.database);
    cluster.wait_for_one_outcome_each(&[all, long].concat());
    cluster.wait_until_webhook_has_all();
    cluster.wait_until_shared_by(&["a", "b", "c"]);
}

#[test]
fn a_failover_to_a_standby_that_lacks_the_last_commits_loses_only_those() {
    let Some(server) = Postgres::launch() else { return };
    let mut cluster = Cluster::on(&server);
    let line = Proxy::start(server.port());
    let standby = server.standby();
    let a = cluster.place_at("a", &cluster.database.url_through(line.port())).start();
    cluster.wait_until_shared_by(&["a"]);
    let early = pins("delivered", "early", 20);
    a.client().submit_all(&early);
    cluster.wait_for_one_outcome_each(&early);
    cluster.wait_until_webhook_has_all();
    let before = ids(&cluster.database);
    let back = pins("10s", "back", 30);
    a.client().submit_all(&back);
    followed(&cluster.database);
    standby.stop();
    // So many that the standby lacks even the sequence numbers of their outcomes.
    let lost = pins("delivered", "lost", 300);
    a.client().submit_all(&lost);
    cluster.wait_for_one_outcome_each(&[&early[..], &back, &lost].concat());
    cluster.wait_until_webhook_has_all();
    let told = ids(&cluster.database);

    server.stop();
    standby.start();
    standby.promote();
    line.move_to(standby.port());
    cluster.database = standby.same(&cluster.database);
    // The node knew that they had ended; in this database they have not.
    cluster.wait_for_one_outcome_each(&[&early[..], &back].concat());
    let again = ids(&cluster.database);
    assert!(early.iter().all(|pin| again[pin] == before[pin]));
    assert!(back.iter().all(|pin| again[pin] != told[pin]), "found again");
    // No outcome is skipped: no new one has a seq that a sink has already passed.
    let more = pins("delivered", "more", 100);
    submit_anywhere(&[&a], &more);
    cluster.wait_for_one_outcome_each(&[&early[..], &back, &more].concat());
    let ids = ids(&cluster.database);
    until_true("the webhook has every outcome of the new primary", || {
        let received = cluster.hook.received();
        ids.values().all(|id| received.iter().any(|one| one.id == *id))
    });
    until_true("the file too", || {
        let records = a.records();
        ids.values().all(|id| records.iter().any(|record| record["id"] == **id))
    });
    cluster.wait_until_shared_by(&["a"]);
}
