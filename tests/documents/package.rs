//! The messages of the script that builds the Debian package. The package itself is tested by `tests/systemd.rs`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/build-deb.sh");

/// Runs the script with only these programs in its path. Returns its exit status and output.
fn build_with(programs: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    for program in programs {
        let path = folder.path().join(program);
        match found(program) {
            Some(there) => symlink(there, path).unwrap(),
            // It is only looked for.
            None => {
                fs::write(&path, "").unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
    }
    let built = Command::new("/bin/sh").arg(SCRIPT).env_clear().env("PATH", folder.path()).output().unwrap();
    assert!(built.stdout.is_empty(), "it began to build");
    (built.status.code(), String::from_utf8(built.stderr).unwrap())
}

fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

const TOOLS: [&str; 6] = ["cargo", "strip", "gzip", "sed", "python3", "dpkg-shlibdeps"];

#[test]
fn a_missing_cargo_deb_is_reported_with_the_command_that_installs_it() {
    let (code, said) = build_with(&[&TOOLS[..], &["dirname"]].concat());
    assert_eq!(code, Some(1));
    assert!(said.contains("lacks what the package is built with: cargo-deb."), "{said}");
    let command = said.lines().find_map(|line| line.trim().strip_prefix("cargo install ")).unwrap();
    // The one that CI has.
    let ci = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/run")).unwrap();
    assert!(ci.contains(&command.replace("--locked", "--quiet --locked")), "{command}");
    assert!(!said.contains("apt-get"), "{said}");
}

#[test]
fn all_missing_build_tools_are_reported_at_once() {
    let (code, said) = build_with(&["dirname"]);
    assert_eq!(code, Some(1));
    for tool in TOOLS.iter().chain(&["cargo-deb"]) {
        assert!(said.lines().next().unwrap().contains(tool), "{tool}: {said}");
    }
    assert!(said.contains("\n  sudo apt-get install binutils gzip sed python3 dpkg-dev\n"), "{said}");
    assert!(said.contains("rustup"), "{said}");
    let (_, said) =
        build_with(&["dirname", "cargo", "cargo-deb", "sed", "gzip", "python3", "dpkg-shlibdeps"]);
    assert!(said.contains("built with: strip.") && said.contains("apt-get install binutils\n"), "{said}");
    assert!(!said.contains("cargo install"), "{said}");
}
