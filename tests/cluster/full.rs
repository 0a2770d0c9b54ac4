//! The disk of the database is full.

use std::os::unix::fs::chown;
use std::thread;
use std::time::Duration;

use pinwatch::simulate::Settings;

use crate::cluster::nodes::{Cluster, pins, submit_anywhere};
use crate::support::postgres::Postgres;
use crate::support::until_true;
use crate::support::{self, disk::SmallDisk};

/// Room for a database and some more.
const ROOM: u64 = 24 * 1024 * 1024;

#[test]
fn submits_are_refused_while_the_database_disk_is_full_and_accepted_afterwards() {
    let mut disk = None;
    let Some(server) = Postgres::launch_within(|folder, owner| {
        let at = folder.join("small");
        std::fs::create_dir(&at).unwrap();
        let small = disk.insert(SmallDisk::mount(&at, ROOM)?);
        let space = small.path(&at).join("space");
        std::fs::create_dir(&space).unwrap();
        chown(&space, Some(owner.0), Some(owner.1)).unwrap();
        Some(small.entrance())
    }) else {
        return;
    };
    let disk = disk.expect("the server is within");
    let cluster = Cluster::of(server.database_in("small/space"), Settings::default());
    let [a, b] = cluster.nodes(["a", "b"]);
    let mut all = pins("1s", "x", 200);
    a.client().submit_all(&all);
    disk.fill();
    // First the free pages fill up.
    let mut refused = Vec::new();
    until_true("submits are refused", || {
        let fresh = pins("delivered", &format!("n{}n", all.len()), 100);
        let answers = support::submit(&mut support::Client::connect(&a.place.socket()), &fresh);
        let (taken, not): (Vec<_>, Vec<_>) =
            fresh.into_iter().zip(&answers).partition(|(_, answer)| answer["ok"] == true);
        let full = not
            .iter()
            .any(|(_, answer)| answer["error"]["message"].as_str().unwrap().contains("No space left"));
        assert!(not.iter().all(|(_, answer)| answer["error"]["code"] == "store_unavailable"), "{answers:?}");
        all.extend(taken.into_iter().map(|(pin, _)| pin));
        refused.extend(not.into_iter().map(|(pin, _)| pin));
        full
    });
    thread::sleep(Duration::from_secs(5));
    disk.free();
    submit_anywhere(&[&a, &b], &refused);
    all.extend(refused);
    cluster.wait_for_one_outcome_each(&all);
    cluster.wait_until_webhook_has_all();
    cluster.wait_until_shared_by(&["a", "b"]);
    until_true("both are well", || {
        [&a, &b].iter().all(|node| node.client().stats()["store"]["trouble"].is_null())
    });
}
