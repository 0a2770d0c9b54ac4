//! Random rounds: three nodes under load, and in each round a fault of one of them, of the database
//! or of the network between. Then everything is counted.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::Signal;
use serde_json::Value;

use crate::cluster::nodes::Cluster;
use crate::cluster::proxy::Proxy;
use crate::crash::load::Clients;
use crate::support::Place;
use crate::support::postgres::Postgres;
use crate::support::{self, until};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// PINs submitted in one round, at most.
const PINS: usize = 60;

/// The longest that an accident lasts: about twice the lease, which is 1 s here.
const LONGEST: u64 = 2000;

/// The faults, and their consequences.
#[derive(Debug, Default)]
struct Counts {
    rounds: u64,
    kills: u64,
    sleeps: u64,
    cuts: u64,
    torn: u64,
    stops: u64,
    database_restarts: u64,
    quiet: u64,
    starts: u64,
    starts_that_failed: u64,
    acked: usize,
    refused: u64,
    submitted_again_for_want_of_an_answer: usize,
    outcomes: usize,
    webhooks: usize,
    webhooks_doubled: usize,
    lines_in_files: usize,
    lines_doubled: usize,
    fences: i64,
}

/// A node over its lives.
struct Node {
    place: Place,
    line: Proxy,
    process: Option<support::Daemon>,
}

impl Node {
    /// Starts the node if it does not run.
    fn keep_running(&mut self, counts: &mut Counts) {
        if let Some(status) = self.process.as_mut().and_then(support::Daemon::ended) {
            // Its database was unreachable at its start: a service manager would start it again.
            assert_eq!(status.code(), Some(1), "it ended with {status}");
            counts.starts_that_failed += 1;
            self.process = None;
        }
        if self.process.is_none() {
            self.process = Some(self.place.spawn());
            counts.starts += 1;
        }
    }
}

#[test]
fn every_acked_pin_has_exactly_one_outcome_despite_node_network_and_database_faults() {
    let Some(server) = Postgres::launch() else { return };
    let rounds = number("PINWATCH_CLUSTER_ROUNDS").unwrap_or(100);
    let seed = number("PINWATCH_CLUSTER_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("cluster test: {rounds} rounds, PINWATCH_CLUSTER_SEED={seed}");
    let begun = Instant::now();
    let mut random = Rng::with_seed(seed);
    let cluster = Cluster::on(&server);
    let mut nodes = NAMES.map(|name| {
        let line = Proxy::start(server.port());
        let place = cluster
            .place_at(name, &cluster.database.url_through(line.port()))
            .set("cluster.lease", "1s")
            .set("schedule.not_found_grace", "100ms")
            .set("schedule.deadline_grace", "1s");
        Node { place, line, process: None }
    });
    let clients = Clients::refused_only_for(&["shutting_down", "store_unavailable"]);
    let sockets = nodes.each_ref().map(|node| node.place.socket());
    let mut counts = Counts::default();
    nodes.iter_mut().for_each(|node| node.keep_running(&mut counts));
    cluster.record_leases_of_writes();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Also if this thread panics; else the others would never end.
        let _end = SetAtEnd(&over);
        for socket in &sockets {
            let random = random.fork();
            let (clients, over) = (&clients, &over);
            scope.spawn(move || clients.submit(socket, over, random));
        }
        for round in 0..rounds {
            clients.more(0, random.usize(..PINS), &mut random);
            nodes.iter_mut().for_each(|node| node.keep_running(&mut counts));
            accident(&mut nodes, &server, &mut random, &mut counts);
            counts.rounds += 1;
            if round % 10 == 9 {
                println!(
                    "  {} rounds, {:?}, {} PINs not acked",
                    round + 1,
                    begun.elapsed(),
                    clients.unacked()
                );
            }
        }
        until("every PIN is acked", || {
            nodes.iter_mut().for_each(|node| node.keep_running(&mut counts));
            (clients.unacked() == 0).then_some(())
        });
    });
    let acked: Vec<String> = clients.lock().acked.keys().cloned().collect();
    cluster.wait_for_one_outcome_each(&acked);
    delivered_everywhere(&mut nodes, &mut counts);
    compare(&cluster, &clients, &mut nodes, &mut counts);
    assert_eq!(cluster.assert_written_under_leases(), i64::try_from(counts.outcomes).unwrap());
    counts.fences = cluster.database.count("SELECT sum(fence) FROM node");
    for node in &mut nodes {
        node.process.take().expect("every node runs").terminate();
    }
    println!("{counts:#?}\nin {:?}, with PINWATCH_CLUSTER_SEED={seed}", begun.elapsed());
}

/// Causes a fault of one or two nodes or of the database, or none.
fn accident(nodes: &mut [Node; 3], server: &Postgres, random: &mut Rng, counts: &mut Counts) {
    let long = Duration::from_millis(random.u64(..LONGEST));
    let short = Duration::from_millis(random.u64(..300));
    let (one, other) = (random.usize(..3), random.usize(..3));
    let process = |node: &Node, signal| {
        if let Some(process) = &node.process {
            process.signal(signal);
        }
    };
    thread::sleep(short);
    match random.u8(..12) {
        0..=3 => {
            for node in [one, other].iter().take(random.usize(1..=2)) {
                if let Some(daemon) = nodes[*node].process.take() {
                    daemon.kill9();
                    counts.kills += 1;
                }
            }
            thread::sleep(short);
        }
        4 | 5 => {
            process(&nodes[one], Signal::STOP);
            thread::sleep(long);
            process(&nodes[one], Signal::CONT);
            counts.sleeps += 1;
        }
        6 | 7 => {
            nodes[one].line.cut();
            thread::sleep(long);
            if random.bool() {
                nodes[one].line.reset();
            }
            nodes[one].line.heal();
            counts.cuts += 1;
        }
        8 => {
            nodes.iter().for_each(|node| node.line.reset());
            counts.torn += 1;
        }
        9 => {
            // A node that is not ready yet may end with any status.
            if let Some(mut daemon) = nodes[one].process.take() {
                let ready = daemon.try_client().is_some();
                daemon.signal(Signal::TERM);
                let status = daemon.wait();
                assert!(status.success() || !ready, "it ended with {status}:\n{}", daemon.log());
                counts.stops += 1;
            }
        }
        10 => {
            server.restart_immediately();
            counts.database_restarts += 1;
        }
        _ => {
            // Long enough for a healthy cluster.
            thread::sleep(long);
            counts.quiet += 1;
        }
    }
}

/// Waits until no sink of any node is behind.
fn delivered_everywhere(nodes: &mut [Node; 3], counts: &mut Counts) {
    let mut seen = HashMap::new();
    until("every outcome is delivered", || {
        // The last accident may have met one at its start.
        nodes.iter_mut().for_each(|node| node.keep_running(counts));
        let daemons = NAMES.iter().zip(nodes.iter()).map(|(name, node)| (name, node.process.as_ref()));
        let sinks = daemons.map(|(name, daemon)| {
            let sinks = daemon?.try_client()?.stats()["sinks"].take();
            if seen.insert(name, sinks.to_string()).as_deref() != Some(&sinks.to_string()) {
                println!("  sinks of {name}: {sinks}");
            }
            Some(sinks)
        });
        let done = |sink: &Value| sink["behind"] == 0 && sink["retrying"] == 0;
        let all_done = |sinks: Value| sinks.as_object().is_some_and(|sinks| sinks.values().all(done));
        // Of each, so that a failure shows which one it was.
        let behind = sinks.filter(|sinks| !sinks.clone().is_some_and(all_done)).count();
        (behind == 0).then_some(())
    });
}

fn compare(cluster: &Cluster, clients: &Clients, nodes: &mut [Node; 3], counts: &mut Counts) {
    cluster.wait_until_webhook_has_all();
    let known = clients.lock();
    let outbox: Vec<String> = {
        let mut client = nodes[0].process.as_ref().expect("every node runs").client();
        client.outbox()
    };
    let records: HashMap<String, Value> = outbox
        .iter()
        .map(|line| support::json(line))
        .map(|record| (record["pinId"].as_str().unwrap().to_owned(), record))
        .collect();
    assert_eq!((records.len(), outbox.len()), (known.acked.len(), known.acked.len()), "a tail has each once");
    for (id, (pin, answer)) in &known.acked {
        let record = &records[id];
        assert_eq!(record["outcome"], pin.outcome, "{record}");
        assert_eq!(record["delivered"].as_bool(), pin.delivered, "{record}");
        assert_eq!(record["reference"].as_str(), pin.reference.as_deref(), "{record}");
        if answer["state"] == "finished" {
            assert_eq!(&answer["outcome"], record, "an outcome changed after it was told");
        }
        let known_before = answer["state"] != "accepted";
        assert!(!known_before || pin.unanswered > 0 || known.refused > 0, "{id}: {answer}");
        counts.submitted_again_for_want_of_an_answer += usize::from(pin.unanswered > 0);
    }
    counts.acked = known.acked.len();
    counts.refused = known.refused;
    counts.outcomes = outbox.len();

    let webhooks = cluster.hook.received();
    let of_the_outbox: HashSet<&str> = outbox.iter().map(String::as_str).collect();
    let distinct: HashSet<&str> = webhooks.iter().map(|one| one.body.as_str()).collect();
    assert!(distinct == of_the_outbox, "the webhook has what the outbox has, to the letter");
    counts.webhooks = webhooks.len();
    counts.webhooks_doubled = webhooks.len() - distinct.len();

    let files: Vec<String> =
        nodes.iter().map(|node| fs::read_to_string(node.place.results()).unwrap_or_default()).collect();
    assert!(files.iter().all(|file| file.is_empty() || file.ends_with('\n')), "torn");
    let lines: Vec<&str> = files.iter().flat_map(|file| file.lines()).collect();
    let distinct: HashSet<&str> = lines.iter().copied().collect();
    assert!(distinct == of_the_outbox, "the files together have what the outbox has, to the letter");
    counts.lines_in_files = lines.len();
    counts.lines_doubled = lines.len() - distinct.len();
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, and is {text:?}")))
}

struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
