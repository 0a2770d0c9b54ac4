//! Nodes whose clocks are wrong: of leases the database's clock decides, and no other.

use std::path::PathBuf;

use crate::common::not_run::not_run;
use crate::common::{Daemon, Place};
use crate::nodes::{Cluster, pins};

/// What makes a program see another time: Debian's package `faketime`. CI must have it.
fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let found =
        folders.map(|folder| folder.path().join("faketime/libfaketime.so.1")).find(|path| path.exists());
    if found.is_none() {
        not_run("nodes whose clocks are wrong", "the package faketime");
    }
    found
}

/// Starts a node by a wall clock that is off by so much.
fn start_off_by(place: Place, library: &std::path::Path, offset: &str) -> Daemon {
    let mut command = place.command();
    command.env("LD_PRELOAD", library).env("FAKETIME", offset).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    place.start_by(command)
}

#[test]
fn nodes_whose_clocks_are_an_hour_off_share_take_over_and_write_by_the_databases_clock() {
    let Some(cluster) = Cluster::new() else { return };
    let Some(library) = library() else { return };
    let early = start_off_by(cluster.place("early"), &library, "-1h");
    let late = start_off_by(cluster.place("late"), &library, "+1h");
    let right = cluster.node("right");
    cluster.shared_by(&["early", "late", "right"]);
    cluster.watch_rights();
    let mut all = Vec::new();
    for (node, name) in [(&early, "early"), (&late, "late"), (&right, "right")] {
        let pins = pins("1s", name, 60);
        node.client().submit_all(&pins);
        all.extend(pins);
    }
    cluster.each_once(&all);
    // The clocks were really off, or this would show nothing.
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
    cluster.shared_by(&["early", "right"]);
    let early = early.kill9();
    cluster.shared_by(&["right"]);
    let late = start_off_by(late, &library, "+1h");
    cluster.shared_by(&["late", "right"]);
    cluster.each_once(&all);
    cluster.all_at_the_webhook();
    assert_eq!(usize::try_from(cluster.all_by_right()), Ok(all.len()));
    drop((early, late));
}
