//! `api.rate` is the whole cluster's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use wiremock::ResponseTemplate;

use crate::cluster::nodes::{Cluster, pins};
use crate::support::{Daemon, Mock, brake, until_true};

/// Polls a second, of all nodes.
const RATE: u64 = 60;

#[test]
fn a_cluster_never_polls_faster_than_its_rate_while_nodes_come_and_go() {
    let Some(cluster) = Cluster::new() else { return };
    let place = |name| cluster.place(name).set("api.rate", &RATE.to_string());
    let over = AtomicBool::new(false);
    let (cluster, over) = (&cluster, &over);
    thread::scope(|scope| {
        let watch = scope.spawn(move || {
            let mut seen = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let before = Instant::now();
                let count = cluster.api.counts().requests;
                seen.push((before, count, Instant::now()));
                thread::sleep(Duration::from_millis(20));
            }
            seen
        });
        let a = place("a").start();
        cluster.wait_until_shared_by(&["a"]);
        a.client().submit_all(&pins("waiting", "x", 1000));
        let b = place("b").start();
        cluster.wait_until_shared_by(&["a", "b"]);
        let c = place("c").start();
        cluster.wait_until_shared_by(&["a", "b", "c"]);
        let b = b.kill9();
        cluster.wait_until_shared_by(&["a", "c"]);
        let b = b.start();
        cluster.wait_until_shared_by(&["a", "b", "c"]);
        a.terminate();
        cluster.wait_until_shared_by(&["b", "c"]);
        thread::sleep(Duration::from_secs(2));
        over.store(true, Ordering::Relaxed);
        let seen = watch.join().unwrap();
        drop((b, c));
        check(&seen);
    });
}

/// Checks that no period has more polls than its length allows, plus a small burst.
fn check(seen: &[(Instant, u64, Instant)]) {
    let mut most = (0.0_f64, Duration::ZERO);
    for (at, (begun, before, _)) in seen.iter().enumerate() {
        for (_, count, now) in &seen[at..] {
            // From before the one count to after the other: the time of all that is between them, or longer.
            let time = now.duration_since(*begun);
            let over = (count - before) as f64 - time.as_secs_f64() * RATE as f64 * 1.1;
            if over > most.0 {
                most = (over, time);
            }
        }
    }
    let (first, last) = (seen[0], seen[seen.len() - 1]);
    println!(
        "{} polls in {:?}; at most {:.1} over the rate, in {:?}",
        last.1 - first.1,
        last.0.duration_since(first.0),
        most.0,
        most.1
    );
    // The stand-in counts when it gets to it. A cluster of twice the rate would be over this after two seconds.
    assert!(most.0 <= RATE as f64 * 2.0, "{most:?}");
    assert!(last.1 - first.1 > RATE, "it polled at all");
}

#[test]
fn every_node_obeys_a_429_for_all_its_pins_also_after_deaths_and_restarts() {
    let Some(cluster) = Cluster::new() else { return };
    let api = Mock::start();
    let throttled = || ResponseTemplate::new(429).insert_header("Retry-After", "3600");
    api.answers_all(throttled());
    let start = |name| cluster.place(name).set("api.base_url", &api.base_url()).start();
    let (a, b) = (start("a"), start("b"));
    cluster.wait_until_shared_by(&["a", "b"]);
    let mut all = pins("any", "x", 100);
    a.client().submit_all(&all);
    let throttled_at = |node: &Daemon| brake(&mut node.client())["reason"] == "throttled";
    until_true("each has met a 429", || throttled_at(&a) && throttled_at(&b));
    // Those that ran when the first was answered have their answer too, for no other comes now.
    until_true("no poll runs", || [&a, &b].iter().all(|node| node.client().stats()["polling"] == 0));
    let polls = api.requests();
    assert!(polls <= all.len(), "{polls} polls of {} PINs", all.len());

    // What is acked now is durable after the pause, which was handed in before.
    assert_eq!(b.client().submit("sim-any-one-more"), "accepted");
    let b = b.kill9();
    cluster.wait_until_shared_by(&["a"]);
    until_true("all PINs are of the other node", || a.client().stats()["inFlight"] == 101);
    let b = b.start();
    cluster.wait_until_shared_by(&["a", "b"]);
    until_true("the pause is known after the restart", || throttled_at(&b));
    assert_eq!(api.requests(), polls, "nobody polls for an hour");
    all.push("sim-any-one-more".to_owned());
    let mut client = b.client();
    for pin in &all {
        assert_eq!(client.op(&json!({"op": "cancel", "pinId": pin}))["ok"], true);
    }
    cluster.wait_for_one_outcome_each(&all);
}
