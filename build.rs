//! Tells the program what it is built from: the commit, its date and the target (`src/build.rs`).
//!
//! Works without git, from the archive of crates.io and from a source archive. What it can't find out is "unknown".

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

fn main() {
    // Without any of these lines, cargo would run this whenever any file has changed.
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let is_repository = Path::new(".git").exists();
    if is_repository {
        // git writes the first when another branch is checked out, and the second for each new commit.
        for name in ["HEAD", "logs/HEAD"] {
            let path = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists());
            path.iter().for_each(|path| println!("cargo:rerun-if-changed={path}"));
        }
    }
    // Not those of a repository that this source only lies in.
    let git = |arguments: &[&str]| if is_repository { git(arguments) } else { None };
    let commit = git(&["rev-parse", "HEAD"]).or_else(commit_of_the_archive);
    let commit = commit.map_or_else(|| "unknown".to_owned(), |commit| commit.chars().take(12).collect());
    let date = env::var("SOURCE_DATE_EPOCH").ok().or_else(|| git(&["log", "-1", "--format=%ct"]));
    println!("cargo:rustc-env=PINWATCH_COMMIT={commit}");
    println!("cargo:rustc-env=PINWATCH_DATE={}", date.unwrap_or_default());
    println!("cargo:rustc-env=PINWATCH_TARGET={}", env::var("TARGET").unwrap_or_default());
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// The commit that `cargo publish` noted in the archive.
fn commit_of_the_archive() -> Option<String> {
    let noted = fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = noted.split_once("\"sha1\"")?;
    rest.split('"').nth(1).map(str::to_owned)
}
