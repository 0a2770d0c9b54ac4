//! Nodes that share a database without LISTEN and NOTIFY find everything by polling the tables.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Value, json};

use crate::cluster::nodes::{Cluster, pins};
use crate::support::postgres::Database;

/// The server's processes of this database's nodes.
fn sessions(database: &Database) -> BTreeSet<String> {
    let ours = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pinwatch'";
    database.query(ours).into_iter().flatten().collect()
}

#[test]
fn everything_works_without_notify_and_needs_no_extra_connection() {
    let Some(cluster) = Cluster::new() else { return };
    // Every notification now fails because the function does not exist.
    cluster.database.execute("ALTER FUNCTION pg_catalog.pg_notify(text, text) RENAME TO pg_notify_no_more");
    let [a, b] = cluster.nodes(["a", "b"]);
    let mut follower = b.client();
    follower.write("{\"op\":\"tail\",\"from\":1,\"follow\":true}\n");
    let before = sessions(&cluster.database);
    let ended = pins("delivered", "x", 100);
    let mut client = a.client();
    // One by one, so that each one tries to send a hint.
    ended.iter().for_each(|pin| assert_eq!(client.submit(pin), "accepted"));
    let told: HashSet<String> =
        ended.iter().map(|_| follower.answer()["pinId"].as_str().unwrap().to_owned()).collect();
    assert_eq!(told, ended.iter().cloned().collect());
    let waiting = pins("waiting", "y", 20);
    client.submit_all(&waiting);
    let mut other = b.client();
    for pin in &waiting {
        let answer: Value = other.op(&json!({"op": "cancel", "pinId": pin}));
        assert_eq!(answer["ok"], true, "{answer}");
    }
    assert!(before.is_subset(&sessions(&cluster.database)), "a hint that can't be given costs no connection");
    // Its slots are released at the stop, and found by the other node.
    let last = pins("1s", "z", 50);
    client.submit_all(&last);
    a.terminate();
    cluster.wait_until_shared_by(&["b"]);
    cluster.wait_for_one_outcome_each(&[ended, waiting, last].concat());
    cluster.wait_until_webhook_has_all();
}
