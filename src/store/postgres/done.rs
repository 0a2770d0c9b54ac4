//! The result of one transaction, and which nodes are to be notified of it. Plain data.

use super::super::Applied;

/// The channel of the hints that nodes give each other.
pub const CHANNEL: &str = "pinwatch";

/// The result of a transaction, and the hints that follow its commit.
#[derive(Default)]
pub struct Done {
    pub applied: Applied,
    pub hints: Vec<String>,
}
