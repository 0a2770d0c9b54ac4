//! Tokens are added, removed and checked while the daemon runs; `pinwatch token new` makes them.

use std::fs;

use pinwatch::http::tokens::Scope;
use rustix::process::Signal;
use serde_json::Value;

use super::client::{Api, new_token, write_private};
use crate::support::{program, run_to_end, until_true};

fn reload(api: &Api, what: &str) {
    let before = api.served.daemon.times_logged(what);
    api.served.daemon.signal(Signal::HUP);
    until_true(what, || api.served.daemon.times_logged(what) > before);
}

#[test]
fn a_token_is_replaced_without_a_pause_and_an_invalid_file_changes_nothing() {
    let api = Api::start();
    let status = |token: &str| {
        api.ask("GET", "/v1/stats", &[("authorization", &format!("Bearer {token}"))], "").status
    };
    let old_lines = fs::read_to_string(api.tokens_file()).unwrap();
    let (new, line) = new_token("boss", Scope::Admin);
    assert_eq!(status(&new), 401);
    write_private(&api.tokens_file(), &format!("{old_lines}\n{line}\n"));
    reload(&api, "the configuration was reloaded");
    assert_eq!((status(&new), status(&api.admin)), (200, 200), "both are valid meanwhile");
    write_private(&api.tokens_file(), &format!("{line}\nnonsense\n"));
    reload(&api, "the configuration was not reloaded");
    until_true("the log names the line", || api.served.daemon.log().contains("line 2: must be NAME SCOPE"));
    assert_eq!((status(&new), status(&api.admin)), (200, 200), "the old ones stay");
    write_private(&api.tokens_file(), &line);
    reload(&api, "the configuration was reloaded");
    assert_eq!((status(&new), status(&api.admin)), (200, 401));
}

#[test]
fn token_new_prints_a_token_and_its_line_for_the_tokens_file() {
    let new = |args: &[&str]| {
        let mut command = program();
        command.args(["token", "new"]).args(args);
        run_to_end(command)
    };
    let made = new(&["--name", "app", "--scope", "submit"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let token = made.stdout.trim_end();
    assert!(token.starts_with("pinwatch_") && !made.stderr.contains(token), "{made:?}");
    let line = made.stderr.lines().last().unwrap();
    assert!(line.starts_with("app submit sha256:"), "{line}");

    let api = Api::start();
    write_private(&api.tokens_file(), line);
    reload(&api, "the configuration was reloaded");
    let bearer = format!("Bearer {token}");
    let status = |method, path| api.ask(method, path, &[("authorization", &bearer)], "").status;
    assert_eq!((status("POST", "/v1/pins"), status("GET", "/v1/pins")), (415, 403));

    let json: Value =
        serde_json::from_str(&new(&["--name", "app", "--scope", "admin", "--json"]).stdout).unwrap();
    assert!(json["line"].as_str().unwrap().starts_with("app admin sha256:") && json["token"].is_string());
    for wrong in [&["--name", "a b", "--scope", "read"], &["--name", "app", "--scope", "write"]] {
        assert_eq!(new(wrong).code, Some(2), "{wrong:?}");
    }
}

#[test]
fn an_invalid_tokens_file_is_refused_by_the_start_by_check_config_and_by_doctor() {
    let api = Api::start();
    let file = api.tokens_file();
    let setting = format!("http.tokens_file={}", file.display());
    write_private(&file, "app submit sha256:12");
    let run = |command: &str| {
        let mut wrong = program();
        wrong.env("PINWATCH__API__KEY", "k").arg("--config").arg(api.served.place.config());
        wrong.args([command, "--set", &setting]);
        run_to_end(wrong)
    };
    let why = "line 1: \"sha256:\" must be followed by 64 hexadecimal digits";
    for command in ["run", "check-config"] {
        let ended = run(command);
        assert_eq!(ended.code, Some(2), "{command}: {ended:?}");
        assert!(ended.stderr.contains(why), "{command}: {ended:?}");
    }
    let doctor = run("doctor");
    assert!(
        doctor.stdout.contains("must be followed by 64 hexadecimal digits") && doctor.code == Some(1),
        "{doctor:?}"
    );
}
