//! Who can read the key: nobody through a core dump; readable files are reported.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Ended, Place, program, run_to_end, until, wrapped};

/// Runs a command where core dumps are allowed.
fn with_core_dumps(command: &Command, place: &Place) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -c unlimited; exec \"$0\" \"$@\""]);
    shell.env_clear().current_dir(place.folder.path());
    wrapped(shell, command)
}

#[test]
fn a_crash_dumps_no_core_even_where_core_dumps_are_allowed() {
    let place = Place::new("http://127.0.0.1:9").never_due();
    let mut other = with_core_dumps(Command::new("sleep").arg("100"), &place);
    let mut other = other.stdin(Stdio::null()).spawn().unwrap();
    // Only from when the shell has become the other program.
    until("the other program", || {
        let name = fs::read_to_string(format!("/proc/{}/comm", other.id())).unwrap();
        (name == "sleep\n").then_some(())
    });
    kill_process(Pid::from_child(&other), Signal::ABORT).unwrap();
    if !other.wait().unwrap().core_dumped() {
        return eprintln!("SKIPPED: this machine dumps no cores");
    }
    let command = with_core_dumps(&place.command(), &place);
    let daemon = place.start_by(command);
    daemon.signal(Signal::ABORT);
    let (status, _place) = daemon.end();
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()));
    assert!(!status.core_dumped());
}

#[test]
fn another_process_of_the_same_user_can_not_read_the_daemon_s_memory() {
    let daemon = Place::new("http://127.0.0.1:9").never_due().start();
    // Files of a process that can't be dumped belong to root, so only root can tell this by another user's eyes.
    if !rustix::process::geteuid().is_root() {
        let refused = fs::File::open(format!("/proc/{}/mem", daemon.pid())).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
        return;
    }
    let place = Place::new("http://127.0.0.1:9").never_due();
    chown(place.folder.path(), Some(65534), Some(65534)).unwrap();
    let run = place.command();
    let mut somebody = Command::new("setpriv");
    somebody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    let command = wrapped(somebody, &run);
    if Command::new("setpriv").arg("--version").output().is_err() || !is_reachable(run.get_program().as_ref())
    {
        return eprintln!("SKIPPED: setpriv is missing, or the program is where another user can't run it");
    }
    let daemon = place.start_by(command);
    let mut reader = Command::new("setpriv");
    reader.args(["--reuid=65534", "--regid=65534", "--clear-groups", "cat"]);
    reader.arg(format!("/proc/{}/environ", daemon.pid()));
    let ended = run_to_end(reader);
    assert!(ended.code != Some(0) && ended.stderr.contains("Permission denied"), "{}", ended.stderr);
}

/// Whether every user can come to this file.
fn is_reachable(path: &std::path::Path) -> bool {
    let open = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o001 != 0;
    path.ancestors().filter(|path| !path.as_os_str().is_empty()).all(open)
}

/// Runs `check-config` with the daemon's configuration.
fn check(place: &Place) -> Ended {
    let run = place.command();
    let mut command = program();
    command.args(run.get_args().map(|arg| if arg == "run" { "check-config".as_ref() } else { arg }));
    command.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    run_to_end(command)
}

/// A place that every user can read.
fn open_place() -> Place {
    let place = Place::new("http://127.0.0.1:9").never_due().without_key();
    fs::set_permissions(place.folder.path(), Permissions::from_mode(0o755)).unwrap();
    place
}

fn write(place: &Place, name: &str, text: &str, mode: u32) -> String {
    let path = place.path(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[track_caller]
fn assert_warned(place: Place, says: &[&str], secret: &str) {
    let checked = check(&place);
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    let daemon = place.start();
    let log =
        until("the daemon is ready", || Some(daemon.place.stderr()).filter(|log| log.contains("ready")));
    for text in says {
        assert!(checked.stderr.contains(text), "{text:?} is not in: {}", checked.stderr);
        assert!(log.contains(text), "{text:?} is not in: {log}");
    }
    assert_eq!(checked.stderr.contains("warning: "), !says.is_empty(), "{}", checked.stderr);
    assert_eq!(log.contains("every user of this machine"), !says.is_empty(), "{log}");
    assert!(!checked.stderr.contains(secret) && !log.contains(secret));
    daemon.terminate();
}

#[test]
fn a_secret_that_every_user_can_read_is_warned_of_at_the_start_and_by_check_config() {
    let place = open_place().set("api.key", "hunter2");
    assert_warned(place, &["api.key", "--set", "command line"], "hunter2");

    let place = open_place();
    let key = write(&place, "api-key", "hunter2", 0o644);
    assert_warned(
        place.set("api.key_file", &key),
        &["api.key_file", "api-key", "mode 0644", "chmod o="],
        "hunter2",
    );

    let place = open_place();
    let password = write(&place, "password", "hunter2", 0o604);
    let place = place.set("api.username", "u").set("api.password_file", &password);
    assert_warned(place, &["api.password_file", "mode 0604"], "hunter2");

    let place = open_place();
    let text = fs::read_to_string(place.path("pinwatch.toml")).unwrap() + "[api]\nkey = \"hunter2\"\n";
    let config = write(&place, "pinwatch.toml", &text, 0o644);
    assert_warned(place, &["api.key", &config, "mode 0644"], "hunter2");

    let place = open_place();
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let path = write(&place, "hook", secret, 0o644);
    let key = write(&place, "api-key", "hunter2", 0o640);
    let sink = format!(r#"[{{type="webhook",url="http://127.0.0.1:9/",secret_file="{path}"}}]"#);
    let place = place.set("api.key_file", &key).set("sink", &sink);
    assert_warned(place, &["secret_file", "hook", "mode 0644"], secret);

    let place = open_place().key("hunter2");
    let sink = format!(r#"[{{type="webhook",url="http://127.0.0.1:9/",secret="{secret}"}}]"#);
    assert_warned(place.set("sink", &sink), &[".secret", "command line"], secret);
}

#[test]
fn a_secret_that_only_the_daemon_can_read_is_not_warned_of() {
    let place = open_place();
    let key = write(&place, "api-key", "hunter2", 0o640);
    assert_warned(place.set("api.key_file", &key), &[], "hunter2");
    let place = open_place();
    let key = write(&place, "api-key", "hunter2", 0o644);
    fs::set_permissions(place.folder.path(), Permissions::from_mode(0o700)).unwrap();
    assert_warned(place.set("api.key_file", &key), &[], "hunter2");
    assert_warned(open_place().key("hunter2"), &[], "hunter2");
}

#[test]
fn the_password_of_a_database_on_the_command_line_is_warned_of() {
    let place = open_place().key("k").set("store.url", "postgres://u:hunter2@127.0.0.1:9/d?sslmode=disable");
    let checked = check(&place);
    assert!(
        checked.stderr.contains("store.url") && checked.stderr.contains("command line"),
        "{}",
        checked.stderr
    );
    assert!(!checked.stderr.contains("hunter2") && !checked.stdout.contains("hunter2"));
}

#[test]
fn doctor_warns_of_a_key_that_every_user_can_read() {
    let place = open_place();
    let key = write(&place, "api-key", "hunter2", 0o644);
    let mut command = program();
    command.arg("doctor").arg("--config").arg(place.path("pinwatch.toml"));
    command.args(["--set", "api.base_url=http://127.0.0.1:9", "--set"]).arg(format!("api.key_file={key}"));
    let ended = run_to_end(command);
    let warned = ended.stdout.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let warned: Vec<_> = warned.filter(|finding| finding["check"] == "secrets").collect();
    assert!(warned.len() == 1 && warned[0]["warning"] == true, "{}", ended.stdout);
    assert!(warned[0]["what"].as_str().unwrap().contains("mode 0644"));
}
