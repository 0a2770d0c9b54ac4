//! Results on standard output: a failed write is an error, and they have no control characters.

use std::fs::{self, OpenOptions};
use std::io::pipe;
use std::process::{Command, Stdio};

use super::terminal::shown;
use crate::support::{Daemon, Place, Simulated, program, until};

/// The commands that write results without a daemon, and those that ask one for a PIN.
fn commands(daemon: &Daemon) -> Vec<(Vec<&'static str>, Command)> {
    let alone = [
        &["--help"][..],
        &["--version"],
        &["submit", "--help"],
        &["completions", "bash"],
        &["man"],
        &["simulate", "--listen", "127.0.0.1:0"],
    ];
    let clients = [
        &["ping"][..],
        &["stats"],
        &["schedule"],
        &["list"],
        &["show", "sim-delivered-1"],
        &["wait", "sim-delivered-1"],
        &["submit", "sim-delivered-1"],
        &["submit", "sim-delivered-1", "--wait"],
        &["tail", "-n", "1"],
        &["cancel", "sim-delivered-1"],
        &["sinks", "list"],
    ];
    let alone = alone.map(|arguments| (arguments, false));
    let clients = clients.map(|arguments| (arguments, true));
    let commands = alone.into_iter().chain(clients).map(|(arguments, is_client)| {
        let mut command = program();
        command.args(arguments);
        if is_client {
            command.arg("--socket").arg(daemon.place.socket());
        }
        (arguments.to_vec(), command)
    });
    let run = daemon.place.command();
    let mut check = program();
    check.args(
        run.get_args().map(|argument| if argument == "run" { "check-config".as_ref() } else { argument }),
    );
    check.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    commands.chain([(vec!["check-config"], check)]).collect()
}

/// A daemon that has an outcome and a PIN in flight.
fn daemon(api: &Simulated) -> Daemon {
    let daemon = Place::new(&api.base_url()).start();
    let mut client = daemon.client();
    client.submit("sim-delivered-1");
    client.outcome("sim-delivered-1");
    client.submit("sim-none-1");
    daemon
}

#[test]
fn a_command_fails_if_its_results_can_not_be_written() {
    let api = Simulated::start();
    let daemon = daemon(&api);
    for (arguments, mut command) in commands(&daemon) {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let errors = daemon.place.path("errors");
        command.stdin(Stdio::null()).stdout(full).stderr(fs::File::create(&errors).unwrap());
        let mut process = crate::support::Child::spawn(command);
        let status = until("its end", || process.ended());
        let errors = fs::read_to_string(errors).unwrap();
        assert_eq!(status.code(), Some(1), "{arguments:?}: {errors}");
        assert!(errors.contains("error: ") && errors.contains("No space left"), "{arguments:?}: {errors}");
    }
}

#[test]
fn a_closed_output_is_no_error() {
    let api = Simulated::start();
    let daemon = daemon(&api);
    for (arguments, mut command) in commands(&daemon) {
        if arguments[0] == "simulate" {
            continue;
        }
        let errors = daemon.place.path("errors");
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        command.stdin(Stdio::null()).stdout(writer).stderr(fs::File::create(&errors).unwrap());
        let mut process = crate::support::Child::spawn(command);
        let status = until("its end", || process.ended());
        let errors = fs::read_to_string(errors).unwrap();
        assert_eq!(status.code(), Some(0), "{arguments:?}: {errors}");
        assert!(!errors.contains("error"), "{arguments:?}: {errors}");
    }
}

#[test]
fn no_command_prints_control_characters_of_a_submitter() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    let mut client = daemon.client();
    let harmful = "\u{9b}31m\u{202e}\u{2028}\u{85}\u{7f}";
    for pin in ["sim-delivered-1", "sim-none-1"] {
        let answer = client.ask(format!(
            r#"{{"op":"submit","pinId":"{pin}","reference":"a\u001b[2J{harmful}b","metadata":{{"{harmful}":"\u001b[2J{harmful}"}}}}"#
        ));
        assert_eq!(answer["state"], "accepted", "{answer}");
    }
    client.outcome("sim-delivered-1");
    for arguments in [
        &["show", "sim-delivered-1"][..],
        &["show", "sim-none-1"],
        &["tail", "-n", "1"],
        &["wait", "sim-delivered-1"],
        &["list"],
        &["submit", "sim-delivered-1", "--wait"],
    ] {
        for json in [None, Some("--json")] {
            let mut command = program();
            command.args(arguments).args(json).arg("--socket").arg(daemon.place.socket());
            let (text, status) = shown(command);
            assert_eq!(status, Some(0), "{arguments:?}: {text}");
            // The terminal itself makes \r\n of \n; a progress bar draws with sequences of its own.
            let harmful = text
                .replace("\r\n", "")
                .find(|c: char| matches!(c, '\u{80}'..='\u{9f}' | '\u{7f}' | '\u{202e}' | '\u{2028}'));
            assert_eq!(harmful, None, "{arguments:?} {json:?}: {text:?}");
            assert!(!text.contains("\u{1b}[2J"), "{arguments:?} {json:?}: {text:?}");
        }
    }
}

#[test]
fn version_verbose_prints_commit_date_target_features_and_sqlite() {
    for arguments in [["--version", "--verbose"], ["--verbose", "--version"]] {
        let told = crate::support::run_to_end({
            let mut command = program();
            command.args(arguments);
            command
        });
        assert_eq!(told.code, Some(0), "{told:?}");
        let names: Vec<_> = told.stdout.lines().skip(1).map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(names, ["commit", "date", "target", "features", "SQLite"], "{}", told.stdout);
        assert!(
            told.stdout.starts_with(&format!("pinwatch {}\n", env!("CARGO_PKG_VERSION"))),
            "{}",
            told.stdout
        );
    }
    let mut command = program();
    command.args(["--verbose", "ping"]);
    let refused = crate::support::run_to_end(command);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("it goes with --version"), "{}", refused.stderr);
}

#[test]
fn the_first_line_of_the_log_names_the_same_build_as_stats() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    let build = daemon.client().stats()["build"].clone();
    let log = daemon.log();
    let first = log.lines().next().unwrap();
    for name in ["commit", "date", "target", "sqlite"] {
        let value = build[name].as_str().unwrap();
        assert!(!value.is_empty() && first.contains(&format!("{name}={value}")), "{name}: {first}");
    }
}
