//! The document against the daemon: schemathesis makes up requests, and checks the answers with all of its checks but one
//! (`schemathesis.toml` says why).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::client::Api;
use crate::support::not_run::not_run;

/// As pip knows it.
const VERSION: &str = "schemathesis==4.32.5";

#[test]
fn schemathesis_finds_nothing_wrong_with_the_document_and_the_daemon() {
    let Some(program) = installed() else {
        return not_run(
            "the API's document, by schemathesis",
            "python3 with venv, and pip with a package index",
        );
    };
    let api = Api::start();
    api.served.finish(&["sim-delivered-1"]);
    let place = &api.served.place;
    fs::write(place.path("schemathesis.toml"), include_str!("schemathesis.toml")).unwrap();
    fs::write(place.path("hooks.py"), include_str!("schemathesis_hooks.py")).unwrap();
    let run = Command::new(program)
        .args(["run", "--max-examples", "20", "--request-timeout", "60", "--no-color"])
        .args(["--header", "Connection: close"])
        .args(["--header", &format!("Authorization: Bearer {}", api.admin)])
        .args(["--url", &format!("http://{}", api.address())])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json"))
        .current_dir(place.path(""))
        .output()
        .expect("it can be started");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    // It must really have sent requests.
    eprintln!("{}", said.lines().rev().take(12).collect::<Vec<_>>().join("\n"));
}

/// The program in an environment of its own, made once.
fn installed() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("schemathesis");
    let program = folder.join("bin/schemathesis");
    let version = Command::new(&program).arg("--version").output();
    if version.is_ok_and(|version| version.status.success()) {
        return Some(program);
    }
    let run = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    let made = run(Command::new("python3").args(["-m", "venv"]).arg(&folder))
        && run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", VERSION]));
    made.then_some(program)
}
