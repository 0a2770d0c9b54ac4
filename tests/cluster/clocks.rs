//! Nodes with wrong clocks: only the clock of the database decides about leases.

use crate::cluster::nodes::{Cluster, pins};
use crate::support::wrong_clock::WrongClock;
use crate::support::{Daemon, Place};

/// Starts a node whose wall clock is off by this much; `None` if faketime is not installed.
fn start_off_by(place: Place, offset: &str) -> Option<Daemon> {
    let clock = WrongClock::new("nodes whose clocks are wrong", place.folder.path(), offset)?;
    let command = clock.on(place.command());
    Some(place.start_by(command))
}

#[test]
fn nodes_with_wrong_clocks_use_the_clock_of_the_database() {
    let Some(cluster) = Cluster::new() else { return };
    let Some(early) = start_off_by(cluster.place("early"), "-1h") else { return };
    let Some(late) = start_off_by(cluster.place("late"), "+1h") else { return };
    let right = cluster.node("right");
    cluster.wait_until_shared_by(&["early", "late", "right"]);
    cluster.record_leases_of_writes();
    let mut all = Vec::new();
    for (node, name) in [(&early, "early"), (&late, "late"), (&right, "right")] {
        let pins = pins("1s", name, 60);
        node.client().submit_all(&pins);
        all.extend(pins);
    }
    cluster.wait_for_one_outcome_each(&all);
    // The clocks really are wrong; else this test would show nothing.
    let off = |name: &str| {
        cluster.database.count(&format!(
            "SELECT round(avg(extract(epoch FROM (record::json ->> 'finishedAt')::timestamptz - now())) / 3600) \
             FROM outcome JOIN node ON node.id = lane WHERE name = '{name}'"
        ))
    };
    assert_eq!((off("early"), off("late"), off("right")), (-1, 1, 0));

    // A lease by its own clock would run for another hour, or would never have run.
    let more = pins("2s", "more", 100);
    late.client().submit_all(&more);
    all.extend(more);
    let late = late.kill9();
    cluster.wait_until_shared_by(&["early", "right"]);
    let early = early.kill9();
    cluster.wait_until_shared_by(&["right"]);
    let Some(late) = start_off_by(late, "+1h") else { return };
    cluster.wait_until_shared_by(&["late", "right"]);
    cluster.wait_for_one_outcome_each(&all);
    cluster.wait_until_webhook_has_all();
    assert_eq!(usize::try_from(cluster.assert_written_under_leases()), Ok(all.len()));
    drop((early, late));
}
