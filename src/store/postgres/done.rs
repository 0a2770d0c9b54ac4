//! What one transaction has done, and which nodes are to be notified of it. Plain data.

use super::super::Applied;

/// The channel of the hints that nodes give each other.
pub const CHANNEL: &str = "pinwatch";

/// What a transaction did, and whom it is worth a hint.
#[derive(Default)]
pub struct Done {
    pub applied: Applied,
    pub hints: Vec<String>,
}
