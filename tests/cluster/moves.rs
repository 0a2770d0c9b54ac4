//! A store moved from SQLite to PostgreSQL and back: nothing is lost or duplicated.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use pinwatch::config::StoreUrl;
use pinwatch::store::migrate::{self, Amount};
use serde_json::{Value, json};

use crate::cluster::nodes::{Cluster, pins};
use crate::support::postgres::{Database, PASSWORD};
use crate::support::wrong_clock::WrongClock;
use crate::support::{Child, Ended, Place, program, run_to_end, until_true};

fn migrate_store(from: &str, to: &str) -> Ended {
    let mut command = program();
    command.args(["migrate-store", "--json", "--from", from, "--to", to]);
    run_to_end(command)
}

/// Moves a store; checks that it succeeds, and returns what it moved.
#[track_caller]
fn moved(from: &str, to: &str) -> Value {
    let Ended { code, stdout, stderr } = migrate_store(from, to);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(!stderr.contains(PASSWORD), "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// Checks that a move is refused; returns the reason.
#[track_caller]
fn refused(from: &str, to: &str) -> String {
    let Ended { code, stdout, stderr } = migrate_store(from, to);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stdout.starts_with(r#"{"ok":false,"error":"#) && stdout.lines().count() == 1, "{stdout}");
    assert!(!stderr.contains(PASSWORD), "{stderr}");
    stderr
}

fn sqlite(place: &Place) -> String {
    format!("sqlite:{}", place.store().display())
}

/// As [`Cluster::place`], for one daemon with SQLite.
fn single_node(cluster: &Cluster) -> Place {
    let place = cluster.place("alone");
    let store = sqlite(&place);
    place.set("store.url", &store)
}

/// PINs in flight, delivered and undelivered outcomes of the webhook, and one dead letter.
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

/// Fills a store with a daemon or node, which is then stopped.
fn fill(cluster: &Cluster, place: Place) -> (Place, Full, Vec<Value>) {
    let node = place.start();
    let delivered = pins("delivered", "early", 40);
    let request = json!({"op": "submit", "pinId": delivered[0], "reference": "done"});
    assert_eq!(node.client().op(&request)["state"], "accepted");
    node.client().submit_all(&delivered[1..]);
    until_true("the webhook has the first", || {
        let ids: HashSet<String> = cluster.hook.received().into_iter().map(|one| one.id).collect();
        ids.len() == delivered.len()
    });
    node.all_records(delivered.len());
    let stats = |node: &crate::support::Daemon| node.client().stats();
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

/// The outcomes that `tail` prints.
fn outbox(node: &crate::support::Daemon) -> Vec<Value> {
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
fn assert_nothing_lost(cluster: &Cluster, node: &crate::support::Daemon, full: &Full, before: &[Value]) {
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
    for (reference, pin) in [("ref", &full.in_flight[0]), ("done", &full.delivered[0])] {
        assert_eq!(client.op(&json!({"op": "show", "reference": reference}))["pin"]["pinId"], **pin);
    }
    cluster.hook.refuse(false);
    let ids: HashSet<&str> = after.iter().map(|record| record["id"].as_str().unwrap()).collect();
    until_true("the webhook has every outcome", || {
        cluster.hook.received().iter().map(|one| one.id.clone()).collect::<HashSet<_>>().len() == ids.len()
    });
    assert!(cluster.hook.received().iter().all(|one| ids.contains(one.id.as_str())));
}

#[test]
fn a_store_moves_from_sqlite_to_postgresql_completely() {
    let Some(cluster) = Cluster::new() else { return };
    let (place, full, before) = fill(&cluster, single_node(&cluster));
    let told = moved(&sqlite(&place), &cluster.database.url());
    assert_eq!(told["pins"], 25);
    assert_eq!((&told["outcomes"], &told["sinks"]), (&json!(before.len()), &json!(2)));
    let count = |table: &str| cluster.database.count(&format!("SELECT count(*) FROM {table}"));
    assert_eq!((count("pin"), count("outcome")), (25, 70));
    // A second move is refused, because the target is no longer empty.
    assert!(refused(&sqlite(&place), &cluster.database.url()).contains("already"));
    let delivered = cluster.hook.received().len();
    let node = cluster.node("a");
    assert_nothing_lost(&cluster, &node, &full, &before);
    // Every webhook is of an id that was not delivered before, or was not answered.
    println!("{} webhooks, {delivered} of them before the move", cluster.hook.received().len());
}

#[test]
fn a_store_moves_to_sqlite_with_the_undelivered_outcomes_of_every_partition() {
    let Some(cluster) = Cluster::new() else { return };
    // Two nodes, one after the other: two partitions.
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
    let place = single_node(&cluster);
    until_true("the dead one's lease is over", || cluster.holders().is_empty());
    let told = moved(&cluster.database.url(), &sqlite(&place));
    assert_eq!(told["outcomes"], cluster.database.count("SELECT count(*) FROM outcome"));
    assert!(refused(&cluster.database.url(), &sqlite(&place)).contains("exists already"));
    let count = |sql| crate::support::count(&place.store(), sql);
    let (outcomes, newest) = (count("SELECT count(*) FROM outcome"), count("SELECT max(seq) FROM outcome"));
    assert_eq!(count("SELECT count(*) FROM outcome_by_pin"), outcomes, "a start has nothing to put in order");
    assert!(count("SELECT indexed FROM history") >= newest);
    let referring = "SELECT count(*) FROM outcome WHERE record ->> '$.reference' IS NOT NULL";
    let referring = count(referring);
    assert!(referring > 0);
    assert_eq!(count("SELECT count(*) FROM outcome_by_reference"), referring);
    let node = place.start();
    assert_nothing_lost(&cluster, &node, &full, &before);
}

#[test]
fn a_store_moved_to_postgresql_and_back_is_the_same() {
    let Some(cluster) = Cluster::new() else { return };
    let (place, full, before) = fill(&cluster, single_node(&cluster));
    let there = moved(&sqlite(&place), &cluster.database.url());
    let home = single_node(&cluster);
    let back = moved(&cluster.database.url(), &sqlite(&home));
    assert_eq!(
        (&there["pins"], &there["outcomes"], &there["sinks"]),
        (&back["pins"], &back["outcomes"], &back["sinks"])
    );
    let node = home.start();
    assert_nothing_lost(&cluster, &node, &full, &before);
}

#[test]
fn a_moved_pin_keeps_its_age_even_if_the_clock_was_set() {
    let Some(cluster) = Cluster::new() else { return };
    let place = single_node(&cluster);
    let clock = WrongClock::new("a move after a clock was set", place.folder.path(), "-3d");
    let Some(clock) = clock else { return };
    let command = clock.on(place.command());
    let node = place.start_by(command);
    let all = pins("1h", "young", 10);
    node.client().submit_all(&all);
    let place = node.terminate();
    let is_well = |node: &crate::support::Daemon| {
        let polled = |pin: &String| {
            let shown = node.client().op(&json!({"op": "show", "pinId": pin}));
            shown["pin"]["polls"].as_u64().is_some_and(|polls| polls > 1)
        };
        until_true("each is polled", || all.iter().all(polled));
        assert_eq!(node.client().stats()["inFlight"], 10);
    };
    moved(&sqlite(&place), &cluster.database.url());
    let node = cluster.node("a");
    cluster.wait_until_shared_by(&["a"]);
    is_well(&node);
    node.terminate();
    let home = single_node(&cluster);
    moved(&cluster.database.url(), &sqlite(&home));
    is_well(&home.start());
}

#[test]
fn a_pin_id_that_was_damaged_in_the_store_is_not_moved() {
    let Some(cluster) = Cluster::new() else { return };
    let (place, ..) = fill(&cluster, single_node(&cluster));
    crate::support::change(
        &place.store(),
        "UPDATE pin SET pin_id = pin_id || '0' WHERE number = (SELECT max(number) FROM pin)",
    );
    let said = refused(&sqlite(&place), &cluster.database.url());
    assert!(said.contains("is damaged") && said.contains("is not the one that was submitted"), "{said}");
    assert_eq!(
        cluster.database.count("SELECT (SELECT count(*) FROM pin) + (SELECT count(*) FROM outcome)"),
        0
    );
}

#[test]
fn a_store_in_use_is_neither_source_nor_target_of_a_move() {
    let Some(cluster) = Cluster::new() else { return };
    let daemon = single_node(&cluster).start();
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

/// More than a move does in a moment: PINs, outcomes, and of these some that a sink has not got, has given up, or was given up for.
const MANY: &str = "
    WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 30000)
    INSERT INTO pin (pin_id, submitted_at, clock_ahead, deadline_at, reference, metadata)
        SELECT 'P' || n, 1767225600000 + n, n % 7, 4102444800000 + n, 'ref' || n, json_object('n', n) FROM n;
    WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 60000)
    INSERT INTO outcome (pin_id, finished_at, record) SELECT 'E' || n, 1767225600000 + n, json_object('id', n) FROM n;
    INSERT INTO delivery
        SELECT 'webhook', seq, seq % 3 = 0, 2, 1767225600000, 1767225600000 + seq, 'error ' || seq, -seq, seq % 5 FROM outcome WHERE seq % 2 = 0;
    INSERT INTO dropped SELECT seq, 'webhook', 1767225600000 + seq FROM outcome WHERE seq % 12 = 1;
    UPDATE sink SET cursor = 60000;
";

/// Everything that must be the same in both stores, as queries of both.
const ALL: [&str; 5] = [
    "SELECT pin_id || ' ' || submitted_at || ' ' || clock_ahead || ' ' || deadline_at || ' ' || reference || ' ' || metadata FROM pin \
     ORDER BY length(pin_id), pin_id",
    "SELECT seq || ' ' || pin_id || ' ' || finished_at || ' ' || record FROM outcome ORDER BY seq",
    "SELECT sink || ' ' || seq || CASE WHEN dead THEN ' dead ' ELSE ' ' END || tries || ' ' || first_try_at || ' ' || \
     last_try_at || ' ' || error || ' ' || first_ahead || ' ' || last_ahead FROM delivery ORDER BY seq",
    "SELECT seq || ' ' || sink || ' ' || dropped_at FROM dropped ORDER BY seq",
    "SELECT name || ' ' || cursor FROM sink ORDER BY name",
];

fn all_of_sqlite(file: &Path) -> Vec<String> {
    ALL.iter().flat_map(|sql| crate::support::column(file, sql)).collect()
}

fn all_of_postgres(database: &Database) -> Vec<String> {
    let rows = |sql: &&str| {
        database.query(
            &sql.replace("name || ' ' || cursor FROM sink", "sink || ' ' || cursor FROM cursor")
                .replace("ORDER BY name", "ORDER BY sink"),
        )
    };
    ALL.iter().flat_map(rows).flatten().collect()
}

/// Starts a move, and kills it once `has_come` holds.
#[track_caller]
fn kill_a_move(from: &str, to: &str, has_come: impl Fn() -> bool) {
    let mut command = program();
    command.args(["migrate-store", "--from", from, "--to", to]);
    let said = tempfile::NamedTempFile::new().unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said.reopen().unwrap());
    let mut process = Child::spawn(command);
    until_true("the move has come so far", || {
        let ended = process.ended();
        assert!(ended.is_none(), "it ended before: {}", fs::read_to_string(said.path()).unwrap());
        has_come()
    });
}

#[test]
fn a_killed_move_leaves_nothing_behind_and_succeeds_the_next_time() {
    let Some(cluster) = Cluster::new() else { return };
    let place = single_node(&cluster).start().terminate();
    crate::support::change(&place.store(), MANY);
    let (file, database) = (sqlite(&place), &cluster.database);
    let before = all_of_sqlite(&place.store());
    assert_eq!(before.len(), 30_000 + 60_000 + 30_000 + 5_000 + 2);
    // Empty tables.
    cluster.node("a").terminate();
    database.execute("DELETE FROM cursor; DELETE FROM node");
    database.execute(
        "CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql \
         AS $$ BEGIN PERFORM pg_sleep(600); RETURN NULL; END $$",
    );
    for table in ["outcome", "delivery", "dropped", "cursor", "pin"] {
        // The move stops at this table.
        database.execute(&format!(
            "CREATE TRIGGER stall AFTER INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION stall()"
        ));
        let stalled = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
        kill_a_move(&file, &database.url(), || database.count(&format!("SELECT count(*) {stalled}")) > 0);
        // The server would notice at the end of its sleep that nobody is there.
        database
            .execute(&format!("SELECT pg_terminate_backend(pid) {stalled}; DROP TRIGGER stall ON {table}"));
        let left = "SELECT (SELECT count(*) FROM node) + (SELECT count(*) FROM pin) + \
                    (SELECT count(*) FROM outcome) + (SELECT count(*) FROM delivery) + (SELECT count(*) FROM dropped) + \
                    (SELECT count(*) FROM cursor)";
        assert_eq!(database.count(left), 0, "killed while it wrote {table}");
    }
    let told = moved(&file, &database.url());
    assert_eq!(
        (&told["pins"], &told["outcomes"], &told["undelivered"]),
        (&json!(30_000), &json!(60_000), &json!(35_000))
    );
    assert!(all_of_postgres(database) == before, "PostgreSQL has what the file has");
    assert!(all_of_sqlite(&place.store()) == before, "the file is as it was");

    let home = single_node(&cluster);
    let unfinished = home.path("pinwatch.db.unfinished");
    let size = || {
        let of =
            |suffix| fs::metadata(format!("{}{suffix}", unfinished.display())).map_or(0, |file| file.len());
        of("") + of("-wal")
    };
    for large in [100_000, 3_000_000] {
        kill_a_move(&database.url(), &sqlite(&home), || size() > large);
        assert!(!home.store().exists(), "killed at {large} bytes");
    }
    moved(&database.url(), &sqlite(&home));
    assert!(all_of_sqlite(&home.store()) == before, "there and back again");
    assert!(!unfinished.exists());
    assert!(all_of_postgres(database) == before);
}

#[test]
fn a_move_reports_its_progress() {
    let Some(cluster) = Cluster::new() else { return };
    let place = single_node(&cluster).start().terminate();
    crate::support::change(&place.store(), MANY);
    let home = single_node(&cluster);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (here, there) = (sqlite(&place), cluster.database.url());
    for (from, to) in [(&here, &there), (&there, &sqlite(&home))] {
        let mut told: Vec<(Amount, Amount)> = Vec::new();
        let [from, to] = [from, to].map(|url| StoreUrl::parse(url, false).unwrap());
        runtime.block_on(migrate::migrate(&from, &to, &mut |all, moved| told.push((*all, *moved)))).unwrap();
        assert!(told.len() > 100, "told {} times", told.len());
        assert!(told.iter().all(|(all, _)| all.rows() == 125_002));
        assert!(told.is_sorted_by_key(|(_, moved)| moved.rows()));
        assert_eq!(told.last().map(|(all, moved)| all == moved), Some(true));
    }
}

#[test]
fn a_move_that_was_interrupted_starts_over() {
    let Some(cluster) = Cluster::new() else { return };
    let [node] = cluster.nodes(["a"]);
    node.terminate();
    let place = single_node(&cluster);
    // As a killed move leaves it.
    std::fs::write(place.path("pinwatch.db.unfinished"), "half").unwrap();
    moved(&cluster.database.url(), &sqlite(&place));
    assert!(!place.path("pinwatch.db.unfinished").exists());
    place.start().terminate();
}

#[test]
fn a_move_that_is_not_possible_is_refused_with_the_reason() {
    let Some(cluster) = Cluster::new() else { return };
    let place = single_node(&cluster);
    assert!(refused(&sqlite(&place), &cluster.database.url()).contains("there is no database"));
    assert!(refused(&sqlite(&place), &sqlite(&place)).contains("the other way round"));
    let Ended { code, stderr, .. } = migrate_store("mysql:x", &cluster.database.url());
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("--from must be"), "{stderr}");
}
