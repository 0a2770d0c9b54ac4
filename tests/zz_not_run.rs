//! The last test binary of `cargo test`: lists what this machine could not test, and which package that needs.

#[path = "support/not_run.rs"]
mod not_run;

use std::collections::BTreeSet;
use std::io::Write;

#[test]
fn tests_that_did_not_run_are_listed() {
    let noted = std::fs::read_to_string(not_run::list()).unwrap_or_default();
    // The next run begins a new list.
    let _ = std::fs::remove_file(not_run::list());
    let lines: BTreeSet<&str> = noted.lines().collect();
    let mut text = String::from("\n=== every test ran on this machine ===\n");
    if !lines.is_empty() {
        text = format!(
            "\n=== {} NOT TESTED on this machine; .ci/run installs what they need ===\n",
            lines.len()
        );
        lines.iter().for_each(|line| text += &format!("  {line}\n"));
    }
    std::io::stderr().write_all(text.as_bytes()).expect("standard error is open");
    assert!(lines.is_empty() || std::env::var("CI").as_deref() != Ok("true"), "in CI every test runs");
}
