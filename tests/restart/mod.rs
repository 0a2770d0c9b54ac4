//! State that survives the daemon: it is killed, stopped and started again, and no PIN that it accepted is lost or
//! ends twice.

mod backoff;
mod backup;
mod clocks;
mod crash;
mod learned;
mod second;
mod stop;
mod upgrade;

use std::collections::HashMap;

use serde_json::Value;

/// How many records each PIN has.
fn by_pin(records: &[Value]) -> HashMap<String, usize> {
    let mut count = HashMap::new();
    for record in records {
        *count.entry(record["pinId"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    count
}
