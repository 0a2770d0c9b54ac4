//! A cluster with its own database, simulated API and webhook receiver.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use pinwatch::simulate::Settings;
use serde_json::Value;

use crate::crash::receiver::Receiver;
use crate::support;
use crate::support::postgres::{Database, Postgres};
use crate::support::{Daemon, Place, Simulated, until, until_true};

/// Short, so that tests don't wait long for its end; long enough that a node on a loaded machine can renew it.
pub const LEASE: &str = "3s";

/// Slots of a cluster.
pub const SLOTS: i64 = 256;

pub struct Cluster {
    pub database: Database,
    pub api: Simulated,
    pub hook: Receiver,
}

impl Cluster {
    /// Uses the server that the tests share; `None` without PostgreSQL.
    pub fn new() -> Option<Self> {
        Some(Self::on(Postgres::shared()?))
    }

    pub fn on(server: &Postgres) -> Self {
        Self::with(server, Settings::default())
    }

    pub fn with(server: &Postgres, api: Settings) -> Self {
        Self::of(server.database(), api)
    }

    pub fn of(database: Database, api: Settings) -> Self {
        Self { database, api: Simulated::with(api), hook: Receiver::start() }
    }

    /// The place of a node with this name: its sinks are a file of its own and the cluster's webhook.
    pub fn place(&self, name: &str) -> Place {
        self.place_at(name, &self.database.url())
    }

    /// As [`Cluster::place`], with the database somewhere else, as through a proxy.
    pub fn place_at(&self, name: &str, url: &str) -> Place {
        let place = Place::new(&self.api.base_url());
        let file = place.path("pinwatch.toml");
        let config = fs::read_to_string(&file).unwrap();
        let sqlite = format!("sqlite:{}", place.store().display());
        assert!(config.contains(&sqlite));
        let webhook = format!(
            "[[sink]]\ntype = \"webhook\"\nurl = {:?}\nfrom = \"oldest\"\n[cluster]\nnode = {name:?}\n",
            self.hook.url()
        );
        // In the file, where a password belongs; every user can read a command line.
        fs::write(&file, config.replace(&sqlite, url) + &webhook).unwrap();
        place.set("cluster.lease", LEASE)
    }

    /// Starts a node of this name.
    #[track_caller]
    pub fn node(&self, name: &str) -> Daemon {
        self.place(name).start()
    }

    /// Starts nodes, and waits until they share all slots.
    #[track_caller]
    pub fn nodes<const N: usize>(&self, names: [&str; N]) -> [Daemon; N] {
        let nodes = names.map(|name| self.node(name));
        self.wait_until_shared_by(&names);
        nodes
    }

    /// The number of slots of each node with a valid lease.
    pub fn holders(&self) -> BTreeMap<String, i64> {
        let rows = self.database.query(
            "SELECT node.name, count(*) FROM slot JOIN node ON node.id = slot.node \
             WHERE node.lease_until > clock_timestamp() GROUP BY node.name",
        );
        rows.into_iter().map(|row| (row[0].clone(), row[1].parse().unwrap())).collect()
    }

    /// Waits until exactly these nodes hold all slots, each of them an even share.
    #[track_caller]
    pub fn wait_until_shared_by(&self, names: &[&str]) {
        let part = SLOTS / i64::try_from(names.len()).unwrap();
        let mut seen = BTreeMap::new();
        until(&format!("{names:?} share the slots"), || {
            let holders = self.holders();
            if holders != seen {
                eprintln!("slots: {holders:?}");
                seen.clone_from(&holders);
            }
            let all = holders.values().sum::<i64>() == SLOTS && holders.len() == names.len();
            let fair = names
                .iter()
                .all(|name| holders.get(*name).is_some_and(|held| (part..=part + 1).contains(held)));
            (all && fair).then_some(())
        });
    }

    /// From now on a trigger records under which lease each outcome is written. Needs the tables.
    pub fn record_leases_of_writes(&self) {
        until_true("there are tables", || {
            self.database.one("SELECT to_regclass('delivery') IS NOT NULL") == "t"
        });
        self.database.execute(WATCH);
    }

    /// From now on a trigger records how long after the end of its holder's lease each slot is taken.
    pub fn record_takeovers(&self) {
        self.database.execute(
            "CREATE TABLE took (slot smallint, late interval); \
             CREATE FUNCTION note_take() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 INSERT INTO took SELECT NEW.slot, clock_timestamp() - lease_until FROM node WHERE id = OLD.node; \
                 RETURN NULL; \
             END $$; \
             CREATE TRIGGER note_take AFTER UPDATE ON slot FOR EACH ROW \
                 WHEN (OLD.node IS NOT NULL AND NEW.node IS NOT NULL) EXECUTE FUNCTION note_take()",
        );
    }

    /// Checks that every outcome since was written by a node whose lease was valid when its transaction began and that
    /// held the PIN's slot; returns how many there were.
    #[track_caller]
    pub fn assert_written_under_leases(&self) -> i64 {
        let wrong = self.database.query(
            "SELECT w.*, d.holder FROM written w LEFT JOIN deleted d USING (tx, pin_id) \
             WHERE NOT w.lease_runs OR d.holder IS DISTINCT FROM w.lane",
        );
        assert!(wrong.is_empty(), "{} outcomes were written without a right to: {wrong:?}", wrong.len());
        self.database.count("SELECT count(*) FROM written")
    }

    /// Waits until no PIN is in flight, and checks that exactly these PINs have one outcome each.
    #[track_caller]
    pub fn wait_for_one_outcome_each(&self, pins: &[String]) -> HashMap<String, Value> {
        until_true("no PIN is in flight", || self.database.count("SELECT count(*) FROM pin") == 0);
        let mut records = HashMap::new();
        for row in self.database.query("SELECT pin_id, seq FROM outcome") {
            let twice = records.insert(row[0].clone(), Value::from(row[1].parse::<i64>().unwrap()));
            assert!(twice.is_none(), "{} has two outcomes", row[0]);
        }
        let expected: HashSet<&String> = pins.iter().collect();
        assert_eq!(records.keys().collect::<HashSet<_>>(), expected);
        records
    }

    /// Waits until the webhook has every outcome, and checks that it has nothing else and one id for each.
    #[track_caller]
    pub fn wait_until_webhook_has_all(&self) {
        let outcomes: HashSet<String> =
            self.database.query("SELECT pin_id FROM outcome").into_iter().flatten().collect();
        let mut bodies: HashMap<String, String> = HashMap::new();
        until("the webhook has every outcome", || {
            bodies = self.hook.received().into_iter().map(|one| (one.id, one.body)).collect();
            (bodies.len() >= outcomes.len()).then_some(())
        });
        for delivery in self.hook.received() {
            let record = support::json(&delivery.body);
            assert_eq!(record["id"], delivery.id);
            assert_eq!(bodies[&delivery.id], delivery.body, "an id has one body");
        }
        let pins: HashSet<String> =
            bodies.values().map(|body| support::json(body)["pinId"].as_str().unwrap().to_owned()).collect();
        assert_eq!(bodies.len(), outcomes.len(), "an outcome has one id");
        assert_eq!(pins, outcomes);
    }

    /// The name of the node that holds each PIN in flight.
    pub fn holder_of_pins(&self) -> HashMap<String, String> {
        let rows = self.database.query(
            "SELECT pin.pin_id, node.name FROM pin JOIN slot USING (slot) JOIN node ON node.id = slot.node",
        );
        rows.into_iter().map(|mut row| (row.remove(0), row.remove(0))).collect()
    }
}

/// A PIN is deleted and its outcome written in one transaction, during which nobody can take its slot.
/// A lease that was valid when the transaction began does not end earlier because of later events.
const WATCH: &str = "
    CREATE TABLE deleted (tx bigint, pin_id text, holder integer);
    CREATE TABLE written (tx bigint, pin_id text, lane integer, lease_runs boolean);
    CREATE FUNCTION note_deleted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO deleted SELECT txid_current(), OLD.pin_id, slot.node FROM slot WHERE slot.slot = OLD.slot;
        RETURN NULL;
    END $$;
    CREATE FUNCTION note_written() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO written SELECT txid_current(), NEW.pin_id, NEW.lane, node.lease_until > now()
            FROM node WHERE node.id = NEW.lane;
        RETURN NULL;
    END $$;
    CREATE TRIGGER note AFTER DELETE ON pin FOR EACH ROW EXECUTE FUNCTION note_deleted();
    CREATE TRIGGER note AFTER INSERT ON outcome FOR EACH ROW EXECUTE FUNCTION note_written();
";

/// PIN IDs with lives as `sim-WHAT-` has them, told apart by a name.
pub fn pins(what: &str, name: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("sim-{what}-{name}{number}")).collect()
}

/// What a node with `http.listen = "127.0.0.1:0"` answers over HTTP.
#[track_caller]
pub fn get(node: &Daemon, path: &str) -> String {
    let mut stream = TcpStream::connect(node.http_address()).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Submits PINs until one of these nodes has accepted each, as a client does after refusals or lost connections.
#[track_caller]
pub fn submit_anywhere(nodes: &[&Daemon], pins: &[String]) {
    let mut left: Vec<String> = pins.to_vec();
    let mut nodes = nodes.iter().cycle();
    until("every PIN is taken", || {
        let node = nodes.next()?;
        let Ok(mut client) = support::Client::try_connect(&node.place.socket()) else { return None };
        let answers = support::try_submit(&mut client, &left);
        let taken: HashSet<String> = answers
            .iter()
            .filter(|answer| answer["ok"] == true)
            .map(|answer| answer["pinId"].as_str().unwrap().to_owned())
            .collect();
        left.retain(|pin| !taken.contains(pin));
        left.is_empty().then_some(())
    });
}
