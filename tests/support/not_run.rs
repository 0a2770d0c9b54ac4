//! How a test reports that it can't run on this machine.
//!
//! Makes sure that a test that did not run is not mistaken for one that passed: it prints past the test harness's capture,
//! the last test binary of `cargo test` (`zz_not_run`) lists all of them, and in CI it fails.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where the tests that did not run are noted, until they are listed.
pub fn list() -> PathBuf {
    // Cargo tells unit tests no folder; theirs is the usual one.
    let folder =
        option_env!("CARGO_TARGET_TMPDIR").unwrap_or(concat!(env!("CARGO_MANIFEST_DIR"), "/target/tmp"));
    Path::new(folder).join("not-run.txt")
}

/// Notes that `what` was not tested, because this machine lacks `needs`: a Debian package, or a right.
#[allow(unused, reason = "each test binary uses a part of this module")]
#[track_caller]
pub fn not_run(what: &str, needs: &str) {
    let line = format!("{what}: needs {needs}\n");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must run every test. {line}");
    // Not eprintln, which the test harness captures.
    std::io::stderr().write_all(format!("\nNOT TESTED: {line}").as_bytes()).expect("standard error is open");
    // One write a line, so that test binaries that run at once do not mix theirs.
    let file = File::options().create(true).append(true).open(list());
    file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the target folder can be written");
}
