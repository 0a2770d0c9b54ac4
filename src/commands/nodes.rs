//! `pinwatch nodes`: lists the nodes that share the PINs, and how many slots each holds.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::client::{self, Client, ClientError};
use super::error::CommandError;
use super::exit::Exit;
use super::human;
use super::output::{Output, note};
use super::table::Column;
use crate::protocol::Raw;
use crate::protocol::nodes::{Answer, Node, Request};

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
    let Answer { shared, nodes, free, .. } = Client::connect(socket).await?.ask(&Request {}).await?;
    let free = free.unwrap_or(0);
    if output.is_json() {
        for node in &nodes {
            output.json(node.get().as_bytes())?;
        }
        // A program gets as a last line what people get as a note.
        let note = match (shared, free) {
            (false, _) => Some(json!({"shared": false})),
            (true, 0) => None,
            (true, free) => Some(json!({"free": free})),
        };
        if let Some(line) = note {
            output.json(line.to_string().as_bytes())?;
        }
    } else if shared {
        let rows = nodes.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        output.table(COLUMNS, &rows)?;
    }
    output.flush()?;
    if !shared {
        note("this is one machine: its store is a file, which no other node shares (store.url)");
    } else if free > 0 {
        note(format_args!(
            "no living node holds {}; the nodes take them within the lease",
            human::count(free as u64, "slot")
        ));
    }
    Ok(Exit::Done)
}

fn row(node: &Raw<Node>) -> Result<[String; 8], ClientError> {
    let node = client::read(node)?;
    let rate = match (node.rate, node.brake) {
        (_, Some(brake)) => format!("waits: {brake}"),
        (Some(rate), None) => format!("at most {rate:.1}"),
        (None, None) => "no limit".to_owned(),
    };
    let lease =
        node.lease_left_ms.map_or_else(|| "over".to_owned(), |ms| human::short(Duration::from_millis(ms)));
    // Not at the end of the name, because that may be cut.
    let this = if node.is_self { ", this" } else { "" };
    let alive = if node.alive { "yes" } else { "no" };
    Ok([
        node.name,
        format!("{alive}{this}"),
        node.slots.to_string(),
        node.in_flight.to_string(),
        node.due.to_string(),
        // A dead node's numbers are the last that it reported, so they would mislead here.
        if node.alive { rate } else { "-".to_owned() },
        lease,
        node.version,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_whether_its_node_is_alive() {
        let row = |node: serde_json::Value| row(&Raw::from_json(&node.to_string()).unwrap()).unwrap();
        let alive = json!({"name": "a:/run/p.sock", "id": 1, "self": true, "alive": true, "slots": 86, "leaseLeftMs": 3200,
                           "version": "0.2.0", "inFlight": 7, "due": 1, "rate": 33.59, "brake": null});
        assert_eq!(
            row(alive),
            ["a:/run/p.sock", "yes, this", "86", "7", "1", "at most 33.6", "3s 200ms", "0.2.0"]
        );
        let node = |alive, lease: Option<u64>, brake: Option<&str>| {
            json!({"name": "b", "id": 2, "self": false, "alive": alive, "slots": 85, "leaseLeftMs": lease,
                   "version": "0.2.0", "inFlight": 9, "due": 0, "rate": null, "brake": brake})
        };
        assert_eq!(row(node(false, None, None)), ["b", "no", "85", "9", "0", "-", "over", "0.2.0"]);
        assert_eq!(row(node(true, Some(1), Some("throttled")))[5], "waits: throttled");
    }
}
