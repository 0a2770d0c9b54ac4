//! With `--json`, everything on standard output can be read by programs: results, errors and where a list
//! continues.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Ended, Place, Simulated, change, program, run_to_end};

/// A command that fails, its exit status, and what its errors say: code, and about what.
type Failure<'a> = (&'a [&'a str], i32, Vec<(&'a str, Value)>);

/// A command with `--json`, and the lines that it printed.
#[track_caller]
fn ask(arguments: &[&str], socket: Option<&Path>) -> (Vec<Value>, Option<i32>) {
    let mut command = program();
    command.args(arguments).arg("--json");
    if let Some(socket) = socket {
        command.env("PINWATCH_SOCKET", socket);
    }
    let Ended { code, stdout, stderr } = run_to_end(command);
    let read = |line: &str| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {line}; {stderr}"))
    };
    assert!(stdout.is_empty() || stdout.ends_with('\n'), "{arguments:?}: {stdout}");
    (stdout.lines().map(read).collect(), code)
}

/// What the lines that are the protocol's errors say, each with what it is about.
fn errors(lines: &[Value]) -> Vec<(&str, Value)> {
    let failed = lines.iter().filter(|line| line["ok"] == false && line["error"].is_object());
    let named = |line: &Value| {
        ["pinId", "seq", "sink", "reference"]
            .iter()
            .find_map(|key| line.get(key))
            .cloned()
            .unwrap_or_default()
    };
    failed
        .map(|line| {
            assert!(line["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{line}");
            (line["error"]["code"].as_str().unwrap(), named(line))
        })
        .collect()
}

#[test]
fn every_command_prints_lines_of_json_whether_it_succeeds_or_fails() {
    let api = Simulated::start();
    let place = Place::new(&api.base_url());
    let config = place.path("pinwatch.toml").to_str().unwrap().to_owned();
    let base_url = format!("api.base_url={}", api.base_url());
    let daemon = place.start();
    let mut client = daemon.client();
    for pin in ["sim-delivered-1", "sim-delivered-2"] {
        client.submit(pin);
        client.outcome(pin);
    }
    for pin in ["sim-none-1", "sim-none-2", "sim-none-3"] {
        client.submit(pin);
    }
    daemon.all_records(2);
    drop(client);
    let place = daemon.terminate();
    let dead = "INSERT INTO delivery (sink, seq, dead, tries, error) VALUES ('file', 1, 1, 3, '410'), ('file', 2, 1, 3, '410')";
    change(&place.store(), dead);
    let daemon = place.start();
    let socket = daemon.place.socket();
    let no_socket = daemon.place.path("none.sock");

    let check = ["check-config", "--config", &config, "--set", &base_url, "--set", "api.key=k"];
    let file = daemon.place.path("backup.db").to_str().unwrap().to_owned();
    let backup = ["backup", &file, "--config", &config];
    let doctor = ["doctor", "--config", &config, "--set", &base_url, "--set", "api.key=demo-key"];
    // What succeeds, in an order in which it does.
    let successes: &[&[&str]] = &[
        &["ping"],
        &["stats"],
        &["top", "--once"],
        &["schedule"],
        &["nodes"],
        &["list"],
        &["list", "--limit", "2"],
        &["list", "--state", "finished"],
        &["cancel", "--all", "--yes", "--reference", "none*"],
        &["show", "sim-delivered-1"],
        &["show", "sim-none-1"],
        &["wait", "sim-delivered-1", "sim-delivered-2"],
        &["submit", "sim-delivered-1"],
        &["submit", "sim-delivered-3", "--wait"],
        &["tail"],
        &["tail", "--from", "0", "--positions"],
        &["cancel", "sim-none-3"],
        &["sinks", "list"],
        &["dead-letters", "list"],
        &["dead-letters", "list", "--limit", "1"],
        &["dead-letters", "show", "sim-delivered-1"],
        &["dead-letters", "replay", "--sink", "file", "sim-delivered-1"],
        &["dead-letters", "drop", "--sink", "file", "--all", "--yes"],
        &["replay", "--sink", "file", "sim-delivered-2"],
        &["replay", "--sink", "file", "--all", "--yes", "--state", "final"],
        &["socket"],
        &["token", "new", "--name", "app", "--scope", "submit"],
        &["presets"],
        &["presets", "vonage-verify"],
        &check,
        &doctor,
        &backup,
    ];
    let unknown = |pin: &str| ("not_found", json!(pin));
    let usage = || vec![("usage", Value::Null)];
    let failures: &[Failure] = &[
        (&["show", "nobodys"], 1, vec![unknown("nobodys")]),
        (&["show", "a/b"], 1, vec![("not_found", json!("a/b"))]),
        (
            &["cancel", "nobodys", "sim-none-3", "nobodys-too"],
            1,
            vec![unknown("nobodys"), unknown("nobodys-too")],
        ),
        (&["wait", "nobodys", "sim-delivered-1"], 1, vec![unknown("nobodys")]),
        (
            &["wait", "sim-none-2", "sim-none-1", "--timeout", "10ms"],
            124,
            vec![("timeout", json!("sim-none-1")), ("timeout", json!("sim-none-2"))],
        ),
        (&["submit", "not a pin"], 1, vec![("invalid_pin_id", json!("not a pin"))]),
        (
            &["submit", "not a pin", "sim-delivered-4", "--wait"],
            1,
            vec![("invalid_pin_id", json!("not a pin"))],
        ),
        (&["submit", "--file", "/no/such/file"], 1, vec![("failed", Value::Null)]),
        (&["list", "--after", "nonsense!"], 1, vec![("invalid_request", Value::Null)]),
        (&["tail", "--from", "pNonsense"], 1, vec![("invalid_request", Value::Null)]),
        (&["dead-letters", "list", "--sink", "nobodys"], 1, vec![("not_found", Value::Null)]),
        (&["dead-letters", "show", "nobodys"], 1, vec![unknown("nobodys")]),
        (&["dead-letters", "show", "--seq", "77"], 1, vec![("not_found", json!(77))]),
        (&["dead-letters", "replay", "--sink", "nobodys", "A"], 1, vec![("not_found", json!("A"))]),
        (
            &["dead-letters", "drop", "--sink", "nobodys", "--all", "--yes"],
            1,
            vec![("not_found", Value::Null)],
        ),
        (
            &["replay", "--sink", "nobodys", "--from", "1", "--to", "2"],
            1,
            vec![("not_found", json!("nobodys"))],
        ),
        (&["sinks", "forget", "nobodys"], 1, vec![("not_found", Value::Null)]),
        (&backup, 1, vec![("failed", Value::Null)]),
        (&["backup", "/a", "--set", "store.url=postgres://u@localhost/d"], 2, usage()),
        (&["migrate-store", "--from", "sqlite:/a", "--to", "sqlite:/b"], 1, vec![("failed", Value::Null)]),
        (&["socket", "--config", "/no/such/file"], 0, vec![]),
        (&["check-config", "--config", "/no/such/file"], 2, usage()),
        (&["doctor", "--config", "/no/such/file"], 2, usage()),
        (&["run"], 2, usage()),
        (&["top"], 2, usage()),
        (&["simulate"], 2, usage()),
        (&["presets", "vonage"], 2, usage()),
        (&["demo"], 2, usage()),
        (&["completions", "bash"], 2, usage()),
        (&["man"], 2, usage()),
        (&["wait", "a/b"], 2, usage()),
        (&["token", "new", "--name", "no name", "--scope", "read"], 2, usage()),
        (&["fly"], 2, usage()),
        (&["list", "--limit", "0"], 2, usage()),
        (&["list", "--state", "gone"], 2, usage()),
        (&["cancel", "--all"], 2, usage()),
        (&["replay", "--sink", "file", "--all"], 2, usage()),
        (&["dead-letters", "drop", "--sink", "file", "--all"], 2, usage()),
        (&["dead-letters", "replay", "--sink", "file", "--seq", "1", "--state", "final"], 2, usage()),
        (&["list", "--sink", "file"], 2, usage()),
        (&["list", "--state", "finished", "--sink", "nobodys"], 1, vec![("not_found", Value::Null)]),
        (&["tail", "--sink", "nobodys"], 1, vec![("not_found", Value::Null)]),
        (&["cancel", "--reference", "a", "sim-none-3"], 2, usage()),
    ];
    for arguments in successes {
        let (lines, code) = ask(arguments, Some(&socket));
        assert_eq!(code, Some(0), "{arguments:?}: {lines:?}");
        assert!(!lines.is_empty() && errors(&lines).is_empty(), "{arguments:?}: {lines:?}");
    }
    for (arguments, status, expected) in failures {
        let (lines, code) = ask(arguments, Some(&socket));
        assert_eq!((code, errors(&lines)), (Some(*status), expected.clone()), "{arguments:?}: {lines:?}");
    }
    // Without a daemon, each of its clients says so.
    let clients = successes.iter().filter(|arguments| {
        !["socket", "token", "presets", "check-config", "doctor", "backup"].contains(&arguments[0])
    });
    for arguments in clients {
        let (lines, code) = ask(arguments, Some(&no_socket));
        assert_eq!((code, errors(&lines)), (Some(3), vec![("no_daemon", Value::Null)]), "{arguments:?}");
    }

    let help = run_to_end({
        let mut command = program();
        command.arg("--help");
        command
    });
    let commands = help.stdout.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: BTreeSet<_> = commands
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()))
        .collect();
    let failing = failures.iter().map(|(arguments, ..)| arguments[0]);
    let tried: BTreeSet<_> = successes.iter().map(|arguments| arguments[0]).chain(failing).collect();
    assert!(
        commands.len() > 15 && commands.is_subset(&tried),
        "not tried: {:?}",
        commands.difference(&tried)
    );
}

#[test]
fn with_json_notes_are_printed_as_lines_of_json() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    for pin in ["sim-none-1", "sim-none-2", "sim-none-3"] {
        daemon.client().submit(pin);
    }
    let socket = daemon.place.socket();
    let (mut listed, mut arguments) =
        (Vec::new(), vec!["list".to_owned(), "--limit".to_owned(), "1".to_owned()]);
    loop {
        let given: Vec<_> = arguments.iter().map(String::as_str).collect();
        let (lines, _) = ask(&given, Some(&socket));
        listed.extend(lines.iter().filter_map(|line| line["pinId"].as_str().map(str::to_owned)));
        let Some(next) = lines.last().and_then(|line| line["next"].as_str()) else { break };
        arguments.truncate(3);
        arguments.extend(["--after".to_owned(), next.to_owned()]);
    }
    listed.sort();
    assert_eq!(listed, ["sim-none-1", "sim-none-2", "sim-none-3"], "all pages are found by their last lines");
    assert_eq!(ask(&["nodes"], Some(&socket)).0, [json!({"shared": false})]);
}

#[test]
fn check_config_prints_values_as_json_and_not_as_strings_of_json() {
    let set = [
        ("api.key", "k"),
        ("intake.socket", "/tmp/a\"b\\u"),
        ("schedule.multiplier", "1.75"),
        ("intake.max_in_flight", "1234"),
        ("store.allow_insecure_tls", "true"),
        ("schedule.deadline", "90s"),
    ];
    let set: Vec<_> = set.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let sets = set.iter().flat_map(|set| ["--set", set]);
    let arguments: Vec<_> = ["check-config", "--config", "/dev/null"].into_iter().chain(sets).collect();
    let (lines, code) = ask(&arguments, None);
    assert_eq!(code, Some(0), "{lines:?}");
    let value = |key: &str| {
        lines.iter().find(|line| line["key"] == key).unwrap_or_else(|| panic!("{key}"))["value"].clone()
    };
    assert_eq!(value("schedule.multiplier"), json!(1.75));
    assert_eq!(value("intake.max_in_flight"), json!(1234));
    assert_eq!(value("store.allow_insecure_tls"), json!(true));
    assert_eq!(value("schedule.deadline"), json!("1m 30s"));
    assert_eq!(value("intake.socket"), json!("/tmp/a\"b\\u"));
    assert_eq!(value("api.key"), json!("set"));
    let warned = lines.iter().filter_map(|line| line["warning"].as_str());
    assert_eq!(warned.filter(|warning| warning.contains("api.key")).count(), 1, "{lines:?}");
}
