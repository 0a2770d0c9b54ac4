//! The start of the real binary: what it refuses, its messages, and that it then changes nothing; and the
//! start of a user who has no configuration.

mod configuration;
mod lost_commits;
mod paths;
mod personal;
mod store;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::{Ended, Place};

/// Never polled: these daemons do not start.
const NOWHERE: &str = "http://127.0.0.1:9";

/// The files of a folder, with their bytes.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap_or_default())
        })
        .collect()
}

/// Checks that the daemon does not start, exits with this status, and that its message contains all of these.
#[track_caller]
fn assert_refused(place: &Place, code: i32, says: &[&str]) -> Ended {
    let ended = place.refusal();
    assert_eq!(ended.code, Some(code), "{}", ended.stderr);
    assert_eq!(ended.stdout, "");
    for text in says {
        assert!(ended.stderr.contains(text), "{text:?} is not in: {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    ended
}
