//! What goes into SQLite as one parameter.

pub use super::super::rows::{anchor, dated, metadata, pin_id, timestamp};

/// Many rows as one parameter: SQLite's `json_each` gives them back, so that a statement is prepared once
/// whatever the size of the batch.
pub fn json(rows: &impl serde::Serialize) -> String {
    serde_json::to_string(rows).expect("strings and numbers always serialize")
}
