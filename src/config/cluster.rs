//! `[cluster]`: this node among those that share one PostgreSQL.
//!
//! Promises: a lease that is neither shorter than the renewals of a loaded machine take, nor so long that a dead
//! node's PINs wait for minutes. Must not know: the host's name, or whether there are other nodes.

use std::time::Duration;

use serde::Deserialize;

use super::section::{Section, quoted};
use super::wire::{Span, Text};

/// `[cluster]`
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The node's name; `None` is the host's name and the socket.
    pub node: Option<String>,
    /// How long the other nodes wait for this one before they take what it holds.
    pub lease: Duration,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wire {
    node: Text,
    lease: Span,
}

impl Default for Wire {
    fn default() -> Self {
        Self { node: "".into(), lease: Span(Duration::from_secs(5)) }
    }
}

/// Reads and checks the section.
pub(super) fn check(mut section: Section) -> Cluster {
    let wire: Wire = section.read();
    let node = wire.node.0;
    section.show("node", quoted(&node));
    if node.chars().count() > 128 || node.chars().any(char::is_control) || node.trim() != node {
        section.refuse(
            "node",
            "must be a name of at most 128 characters, or \"\" for the host's name and the socket",
        );
    }
    let lease = section.duration("lease", wire.lease, Duration::from_secs(1)..=Duration::from_secs(60));
    Cluster { node: (!node.is_empty()).then_some(node), lease }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{load, table};

    #[test]
    fn a_node_has_a_name_that_fits_a_line_and_a_lease_of_seconds() {
        let refused = "cluster.node: must be a name";
        let long = format!("cluster.node = \"{}\"", "é".repeat(129));
        table(&[
            ("a name is taken", "cluster.node = \"a host:/run/a.sock\"", ""),
            ("none stands for the host's", "cluster.node = \"\"", ""),
            ("a line's end is refused", "cluster.node = \"a\\n\"", refused),
            ("space around it is refused", "cluster.node = \" a\"", refused),
            ("a long one is refused", &long, refused),
            ("a short lease is refused", "cluster.lease = \"999ms\"", "cluster.lease: must be at least 1s"),
            ("a long lease is refused", "cluster.lease = \"61s\"", "cluster.lease: must be at least 1s"),
        ]);
        let cluster = load("").unwrap().cluster;
        assert_eq!((cluster.node, cluster.lease.as_secs()), (None, 5));
        assert_eq!(load("cluster.node = \"a\"").unwrap().cluster.node.as_deref(), Some("a"));
    }
}
