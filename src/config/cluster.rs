//! `[cluster]`: this node among the nodes that share one PostgreSQL.
//!
//! Promises a lease that is long enough for the renewals of a loaded machine, and short enough that a dead node's PINs do not
//! wait for minutes. Must not know the host's name or whether there are other nodes.

use std::time::Duration;

use super::read::{MINUTE, SECOND};
use super::section::section;

section! {
    /// `[cluster]`
    pub struct Cluster {
        /// The node's name; `None` means the host's name and the socket.
        pub node: Option<String> = parsed("", node),
        /// How long the other nodes wait for this node before they take its PINs.
        pub lease: Duration = duration("5s", SECOND..=MINUTE),
    }
}

fn node(name: &str) -> Result<Option<String>, &'static str> {
    if name.chars().count() > 128 || name.chars().any(char::is_control) || name.trim() != name {
        return Err("must be a name of at most 128 characters, or \"\" for the host's name and the socket");
    }
    Ok((!name.is_empty()).then(|| name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{load, table};

    #[test]
    fn a_node_name_must_fit_on_a_line_and_its_lease_must_be_1_to_60_seconds() {
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
