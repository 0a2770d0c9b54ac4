//! Converts Rust values to SQLite parameters.
//!
//! Promises that a batch of any size is one parameter. Knows nothing of tables.

pub use super::super::rows::{anchor, dated, metadata, pin_id, timestamp};

/// Many rows as one parameter. SQLite's `json_each` expands it, so a statement is prepared once for batches of every
/// size.
pub fn json(rows: &impl serde::Serialize) -> String {
    serde_json::to_string(rows).expect("strings and numbers always serialize")
}
