//! `pinwatch stats`: shows all of the daemon's statistics.

use std::path::Path;

use serde_json::Value;

use super::client::{self, Client};
use super::error::CommandError;
use super::exit::Exit;
use super::output::Output;
use crate::protocol::stats;

pub async fn run(socket: &Path, mut output: Output) -> Result<Exit, CommandError> {
    let stats::Answer { stats } = Client::connect(socket).await?.ask(&stats::Request {}).await?;
    if output.is_json() {
        output.json(stats.get().as_bytes())?;
    } else {
        let mut rows = Vec::new();
        // Untyped, so that the numbers of a newer daemon appear too.
        flatten(String::new(), client::read(&stats.untyped())?, &mut rows);
        output.pairs(&rows)?;
    }
    output.flush()?;
    Ok(Exit::Done)
}

/// Adds a row for each leaf, named by its path. The recursion is bounded, because the parser limits the depth.
fn flatten(name: String, value: Value, rows: &mut Vec<(String, String)>) {
    let below = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                flatten(below(&key), value, rows);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.into_iter().enumerate() {
                flatten(below(&index.to_string()), value, rows);
            }
        }
        Value::String(text) => rows.push((name, text)),
        Value::Null => rows.push((name, "-".to_owned())),
        leaf => rows.push((name, leaf.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_numbers_become_rows_named_by_their_path() {
        let value = serde_json::json!({"polls": {"total": 7, "brake": null}, "sinks": [{"name": "a"}]});
        let mut rows = Vec::new();
        flatten(String::new(), value, &mut rows);
        assert_eq!(
            super::super::table::pairs(&rows, None),
            "polls.total   7\npolls.brake   -\nsinks.0.name  a\n"
        );
    }
}
