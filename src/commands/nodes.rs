//! `pinwatch nodes`: who shares the PINs, and who holds how many of the slots.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::Client;
use super::error::CommandError;
use super::exit::Exit;
use super::human;
use super::output::{Output, note};
use super::protocol::{Node, Nodes, Request};
use super::table::Column;

const COLUMNS: [Column; 8] = [
    Column::new("NODE", 1).down_to(24),
    Column::new("ALIVE", 2),
    Column::new("SLOTS", 3),
    Column::new("IN FLIGHT", 6),
    Column::new("DUE", 7),
    Column::new("POLLS/S", 4).down_to(12),
    Column::new("LEASE", 5),
    Column::new("VERSION", 8),
];

pub async fn run(socket: &Path, mut output: Output) -> Result<Exit, CommandError> {
    let Nodes { shared, nodes, free } = Client::connect(socket).await?.ask(&Request::Nodes).await?;
    if output.is_json() {
        // What people are told by a note is a last line.
        let note = match (shared, free) {
            (false, _) => Some(json!({"shared": false})),
            (true, 0) => None,
            (true, free) => Some(json!({"free": free})),
        };
        for line in nodes.into_iter().chain(note) {
            output.json(line.to_string().as_bytes())?;
        }
    } else if shared {
        let rows: Vec<_> = nodes.into_iter().map(row).collect();
        output.table(COLUMNS, &rows)?;
    }
    output.flush()?;
    if !shared {
        note("this is one machine: its store is a file, which no other node shares (store.url)");
    } else if free > 0 {
        note(format_args!(
            "{} held by nobody alive; the nodes take them within the lease",
            human::count(free, "slot")
        ));
    }
    Ok(Exit::Done)
}

/// What the daemon does not tell, a newer or an older one, is a blank cell.
fn row(node: Value) -> [String; 8] {
    let node: Node = serde_json::from_value(node).unwrap_or_default();
    let number = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
    let rate = match (node.rate, node.brake) {
        (_, Some(brake)) => format!("waits: {brake}"),
        (Some(rate), None) => format!("at most {rate:.1}"),
        (None, None) => "no limit".to_owned(),
    };
    let lease =
        node.lease_left_ms.map_or_else(|| "over".to_owned(), |ms| human::short(Duration::from_millis(ms)));
    // Here and not at the name's end, which may be cut.
    let this = if node.this { ", this" } else { "" };
    let alive = if node.alive { "yes" } else { "no" };
    [
        node.name,
        format!("{alive}{this}"),
        number(node.slots),
        number(node.in_flight),
        number(node.due),
        // The numbers of a dead node are the last that it told; of these two that would mislead.
        if node.alive { rate } else { "-".to_owned() },
        lease,
        node.version.unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_a_living_node_from_a_dead_one() {
        let alive = json!({"name": "a:/run/p.sock", "id": 1, "self": true, "alive": true, "slots": 86, "leaseLeftMs": 3200,
                           "version": "0.2.0", "inFlight": 7, "due": 1, "rate": 33.59, "brake": null});
        assert_eq!(
            row(alive),
            ["a:/run/p.sock", "yes, this", "86", "7", "1", "at most 33.6", "3s 200ms", "0.2.0"]
        );
        let dead = json!({"name": "b", "alive": false, "slots": 85, "leaseLeftMs": null, "version": "0.2.0", "inFlight": 9});
        assert_eq!(row(dead), ["b", "no", "85", "9", "", "-", "over", "0.2.0"]);
        assert_eq!(row(json!({"name": "c", "alive": true, "brake": "throttled"}))[5], "waits: throttled");
    }
}
