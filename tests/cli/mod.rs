//! The command line as users and scripts use it: the real binary against a fake daemon on a real
//! socket.

mod all_matching;
mod client;
mod dead_letters;
mod fake;
mod letters;
mod waiting;

use std::os::unix::net::UnixListener;
use std::time::Duration;

use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::contains;

const COMMANDS: [&str; 22] = [
    "run",
    "submit",
    "wait",
    "show",
    "list",
    "cancel",
    "tail",
    "dead-letters",
    "replay",
    "sinks",
    "stats",
    "schedule",
    "ping",
    "socket",
    "check-config",
    "backup",
    "migrate-store",
    "doctor",
    "simulate",
    "demo",
    "completions",
    "man",
];

/// The program, which can't see the machine's own configuration and never hangs a test.
fn pinwatch(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinwatch"));
    command.args(args).timeout(Duration::from_secs(40));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PINWATCH__") {
            command.env_remove(name);
        }
    }
    command
}

/// Without a terminal, the error that ends a command is printed on stdout too.
fn nothing_but_an_error() -> impl Predicate<str> {
    predicates::function::function(|stdout: &str| {
        stdout.lines().count() < 2 && stdout.lines().all(|line| line.starts_with(r#"{"ok":false,"error":"#))
    })
}

#[test]
fn help_has_examples_of_every_command_and_the_exit_statuses() {
    pinwatch(&["--help"]).assert().success().stdout(contains("  124  timed out"));
    for command in COMMANDS {
        pinwatch(&[command, "--help"])
            .assert()
            .success()
            .stdout(contains("Examples:\n").and(contains(format!("pinwatch {command}"))));
        pinwatch(&["--help"]).assert().stdout(contains(format!("\n  {command} ")));
    }
}

#[test]
fn every_client_command_honours_pinwatch_socket_and_socket_prints_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("elsewhere.sock");
    let with_variable = |args: &[&str]| {
        let mut command = pinwatch(args);
        command.env("PINWATCH_SOCKET", &path);
        command.assert()
    };
    with_variable(&["socket"]).success().stdout(format!("{}\n", path.display()));
    with_variable(&["socket", "--socket", "/given"]).success().stdout("/given\n");
    for command in [
        &["ping"][..],
        &["stats"],
        &["schedule"],
        &["list"],
        &["tail"],
        &["show", "9C81"],
        &["submit", "9C81"],
    ] {
        with_variable(command).code(3).stderr(contains(path.to_str().unwrap()));
    }
}

#[test]
fn relative_paths_are_resolved_against_the_file_or_folder_where_they_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let (here, other) = (folder.path().join("here"), folder.path().join("other"));
    for place in [&here, &other] {
        std::fs::create_dir(place).unwrap();
        std::fs::write(place.join("api-key"), "key").unwrap();
    }
    std::fs::write(other.join("p.toml"), "[api]\nkey_file = \"./api-key\"\n").unwrap();
    let mut by_variable = pinwatch(&["check-config"]);
    by_variable.current_dir(&here).env("PINWATCH__API__KEY_FILE", "./api-key");
    by_variable.assert().success().stdout(contains(here.join("api-key").to_str().unwrap()));
    let mut by_file = pinwatch(&["check-config", "--config", "../other/p.toml"]);
    by_file.current_dir(&here);
    by_file.assert().success().stdout(contains("other/api-key"));
}

#[test]
fn invalid_usage_exits_2_and_says_what_would_be_valid() {
    for (args, hint) in [
        (&[][..], "Usage:"),
        (&["fly"], "unrecognized subcommand"),
        (&["submit"], "<ID>"),
        (&["submit", "9C81", "--file", "x"], "cannot be used with"),
        (&["submit", "9C81", "--timeout", "5m"], "--wait"),
        (&["submit", "9C81", "--deadline", "30"], "such as 30s, 10m or 2h"),
        (&["submit", "9C81", "--metadata", "{"], "write JSON, such as"),
        (&["submit", "-", "9C81"], "stands alone"),
        (&["wait", "a/b"], "a PIN ID has only the characters"),
        (&["wait", ""], "a PIN ID can't be empty"),
        (&["tail", "-n", "5", "--from", "3"], "cannot be used with"),
        (&["list", "--limit", "0"], "--limit"),
        (&["ping", "--set", "schedule"], "section.key=value"),
        (&["run", "--json"], "log.format=json"),
    ] {
        pinwatch(args).assert().code(2).stdout(nothing_but_an_error()).stderr(contains(hint));
    }
}

#[test]
fn check_config_exits_2_for_an_invalid_configuration_and_shows_a_valid_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pinwatch.toml");
    let config = |text: &str, args: &[&str]| {
        std::fs::write(&file, text).unwrap();
        pinwatch(args).arg("--config").arg(&file).assert()
    };
    for command in ["run", "check-config"] {
        config("[schedule]\ndeadline = \"soon\"\n", &[command])
            .code(2)
            .stdout(nothing_but_an_error())
            .stderr(contains("error: ").and(contains("schedule.deadline = \"soon\"")));
    }
    pinwatch(&["check-config", "--config", "/no/such/file"])
        .assert()
        .code(2)
        .stderr(contains("No such file"));
    let good = format!(
        "[api]\nbase_url = \"https://x.api.infobip.com\"\nkey = \"sesame\"\n\
         [store]\nurl = \"sqlite:{0}/db\"\n[intake]\nsocket = \"{0}/sock\"\n",
        dir.path().display()
    );
    config(&good, &["check-config", "--set", "schedule.deadline=2h", "--json"])
        .code(0)
        .stdout(contains("\"schedule.deadline\"").and(contains("--set")).and(contains("sesame").not()))
        .stderr(contains("the configuration is good; it was read from"));
    // A client finds the daemon by the same file.
    config(&good, &["ping"]).code(3).stderr(contains(format!("{}/sock", dir.path().display())));
}

#[test]
fn the_demo_exits_0_and_leaves_no_files() {
    let dir = tempfile::tempdir().unwrap();
    pinwatch(&["demo", "--pins", "30"])
        .env("TMPDIR", dir.path())
        .assert()
        .code(0)
        .stdout(contains("MESSAGE_DELIVERED").and(contains("30 PINs: ")));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn without_a_daemon_every_client_exits_3_and_names_the_socket_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("none.sock");
    let socket = socket.to_str().unwrap();
    let clients: [&[&str]; 16] = [
        &["submit", "9C81"],
        &["wait", "9C81"],
        &["show", "9C81"],
        &["list"],
        &["cancel", "9C81"],
        &["tail", "-f"],
        &["stats"],
        &["ping"],
        &["dead-letters", "list"],
        &["dead-letters", "show", "9C81"],
        &["dead-letters", "replay", "--sink", "hook", "--all", "--yes"],
        &["dead-letters", "drop", "--sink", "hook", "--all", "--yes"],
        &["replay", "--sink", "hook", "9C81"],
        &["replay", "--sink", "hook", "--all", "--yes"],
        &["sinks", "list"],
        &["sinks", "forget", "hook"],
    ];
    for client in clients {
        pinwatch(client)
            .args(["--socket", socket])
            .assert()
            .code(3)
            .stdout(contains(r#""code":"no_daemon""#))
            .stderr(contains(socket).and(contains("there is no such socket; start it")));
    }
    // What a killed daemon leaves behind.
    drop(UnixListener::bind(socket).unwrap());
    pinwatch(&["ping", "--socket", socket]).assert().code(3).stderr(contains("nobody listens on it"));
}

#[test]
fn there_are_completions_for_every_shell_and_a_manual_page_for_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        pinwatch(&["completions", shell]).assert().success().stdout(contains("check-config"));
    }
    pinwatch(&["man"]).assert().success().stdout(contains(".TH").and(contains("Exit status")));
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    pinwatch(&["man", "--dir", pages.to_str().unwrap()]).assert().success().stdout("");
    for command in COMMANDS {
        let page = std::fs::read_to_string(pages.join(format!("pinwatch-{command}.1"))).unwrap();
        assert!(page.contains("Examples:"), "{command}");
    }
}
