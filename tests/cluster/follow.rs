//! Commands that follow outcomes at one of three nodes, whichever node commits them and whenever.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;

use pinwatch::pin::PinId;
use pinwatch::slot::slot_of;
use serde_json::Value;

use crate::cluster::nodes::{Cluster, pins};
use crate::support::{Child, Daemon, program, until, until_true};

/// A running command at a node, and its output.
struct Command {
    process: Child,
    out: PathBuf,
}

impl Command {
    fn start(node: &Daemon, name: &str, args: &[&str]) -> Self {
        let out = node.place.path(name);
        let err = node.place.path(&format!("{name}.err"));
        let mut command = program();
        command.args(args).arg("--socket").arg(node.place.socket());
        command.stdin(Stdio::null()).stdout(File::create(&out).unwrap()).stderr(File::create(err).unwrap());
        Self { process: Child::spawn(command), out }
    }

    /// The complete lines so far.
    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.out).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The PINs of the records so far.
    fn pins(&self) -> Vec<String> {
        self.lines().iter().filter_map(|line| Some(line["pinId"].as_str()?.to_owned())).collect()
    }

    #[track_caller]
    fn until_it_has(&self, pin: &str) {
        until_true(&format!("{pin} is printed"), || self.pins().iter().any(|printed| printed == pin));
    }
}

/// Starts a following tail, and waits until it has a position.
fn follow(node: &Daemon) -> Command {
    let tail = Command::start(node, "tail", &["tail", "-f", "-n", "0", "--positions"]);
    until_true("it follows", || !tail.lines().is_empty());
    tail
}

/// A PIN in a slot of the named node; it is final at its first poll.
fn pin_of(cluster: &Cluster, node: &str) -> String {
    let sql = format!("SELECT slot FROM slot JOIN node ON node.id = slot.node WHERE node.name = '{node}'");
    let slots: HashSet<String> = cluster.database.query(&sql).into_iter().flatten().collect();
    let all = pins("delivered", node, 10_000);
    let is_of = |pin: &String| slots.contains(&slot_of(&pin.parse::<PinId>().unwrap()).to_string());
    all.into_iter().find(is_of).unwrap()
}

#[test]
fn tail_and_wait_have_an_outcome_that_is_committed_after_one_of_a_higher_seq() {
    let Some(cluster) = Cluster::new() else { return };
    let [a, _b, c] = cluster.nodes(["a", "b", "c"]);
    let (late, early, marker) =
        (pin_of(&cluster, "b"), pin_of(&cluster, "a"), "sim-delivered-marker".to_owned());
    a.client().submit(&marker);
    a.client().outcome(&marker);
    let tail = follow(&c);

    // Node b has its seq, and can't commit before the lock is given back.
    cluster.database.execute(&format!(
        "CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql \
             AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN NULL; END $$; \
         CREATE TRIGGER stall AFTER INSERT ON outcome FOR EACH ROW WHEN (NEW.pin_id = '{late}') EXECUTE FUNCTION stall()"
    ));
    let locks = |granted: &str| {
        cluster.database.count(&format!(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND {granted}"
        ))
    };
    let database = cluster.database.clone();
    let holding = std::thread::spawn(move || {
        database.try_execute("SELECT pg_advisory_lock(4711); SELECT pg_sleep(600)")
    });
    until_true("the lock is held", || locks("granted") == 1);
    a.client().submit(&late);
    until_true("node b is stalled", || locks("NOT granted") == 1);
    a.client().submit(&early);
    tail.until_it_has(&early);

    let mut wait = Command::start(&c, "wait", &["wait", &late, &marker, "--json"]);
    // By now it has asked about both PINs, and one was in flight.
    wait.until_it_has(&marker);
    assert_eq!(tail.pins(), std::slice::from_ref(&early));
    cluster.database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep' \
         AND datname = current_database()",
    );
    assert!(!holding.join().unwrap());
    tail.until_it_has(&late);
    let status = until("wait ends", || wait.process.ended());
    assert_eq!(status.code(), Some(0));
    assert_eq!(wait.pins(), [marker, late.clone()]);
    assert_eq!(tail.pins(), [early, late]);
    assert!(tail.lines().iter().all(|line| line["removed"].is_null()));
}

#[test]
fn tail_prints_every_outcome_of_three_nodes_once_over_a_restart_of_tail() {
    let Some(cluster) = Cluster::new() else { return };
    let [a, b, c] = cluster.nodes(["a", "b", "c"]);
    let tail = follow(&c);
    let mut all = Vec::new();
    let mut submit = |name: &str| {
        let pins = [pins("delivered", name, 300), pins("300ms", name, 100)].concat();
        let (to_a, to_b) = pins.split_at(200);
        a.client().submit_all(to_a);
        b.client().submit_all(to_b);
        all.extend(pins);
    };
    submit("before");
    until_true("some are printed", || !tail.pins().is_empty());
    let place = c.terminate();
    submit("meanwhile");
    let c = place.start();
    submit("after");
    cluster.wait_for_one_outcome_each(&all);
    until_true("all are printed", || tail.pins().len() >= all.len());
    let printed = tail.pins();
    assert_eq!(printed.len(), all.len(), "none is printed twice");
    assert_eq!(printed.iter().collect::<HashSet<_>>(), all.iter().collect());

    // A tail at another node continues from the last position of the first one.
    let last =
        tail.lines().iter().rev().find_map(|line| Some(line["position"].as_str()?.to_owned())).unwrap();
    let mut next = Command::start(&a, "next", &["tail", "--from", &last, "--positions"]);
    assert_eq!(until("it ends", || next.process.ended()).code(), Some(0));
    assert!(next.pins().is_empty());
    drop(c);
}
