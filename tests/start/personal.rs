//! A user without root and without a configuration: everything is in the user's own folders.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::not_run::not_run;
use crate::support::{Child, Client, Simulated, isolate, run_to_end, until, until_true};

/// A user who is not root, with a home.
struct User {
    home: TempDir,
    /// The program where that user can run it.
    program: PathBuf,
    /// To become that user, for root.
    uid: Option<u32>,
}

/// Prints a message and returns `None` if there is no such user.
fn user() -> Option<User> {
    let what = "a user without root and without configuration";
    if Path::new("/etc/pinwatch/pinwatch.toml").exists() {
        not_run(what, "a machine without /etc/pinwatch/pinwatch.toml");
        return None;
    }
    let home = tempfile::tempdir().unwrap();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_pinwatch"));
    if !rustix::process::geteuid().is_root() {
        return Some(User { home, program, uid: None });
    }
    if Command::new("setpriv").arg("--version").stdout(Stdio::null()).status().is_err() {
        not_run(what, "the package util-linux (setpriv)");
        return None;
    }
    let uid = 65534;
    chown(home.path(), Some(uid), Some(uid)).unwrap();
    // The build's folder may be root's alone. Not copied by this process: what another test starts meanwhile has the
    // file open for writing until its exec, and one that is open so can't be run (ETXTBSY).
    let copy = home.path().join("pinwatch");
    assert!(Command::new("install").args(["-m", "755"]).arg(program).arg(&copy).status().unwrap().success());
    Some(User { home, program: copy, uid: Some(uid) })
}

impl User {
    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The program, run by this user, in an environment that has only a home.
    fn run(&self, args: &[&str]) -> Command {
        let mut command = match self.uid {
            None => Command::new(&self.program),
            Some(uid) => {
                let mut command = Command::new("setpriv");
                command.args([
                    format!("--reuid={uid}"),
                    format!("--regid={uid}"),
                    "--clear-groups".to_owned(),
                ]);
                command.arg("--").arg(&self.program);
                command
            }
        };
        let path = std::env::var_os("PATH").unwrap();
        isolate(&mut command);
        command.args(args).env("PATH", path).env("HOME", self.home.path()).current_dir("/");
        command
    }
}

#[test]
fn the_daemon_and_its_clients_find_each_other_in_the_folders_of_xdg() {
    let Some(user) = user() else { return };
    let api = Simulated::start();
    let runtime = user.path("runtime");
    fs::create_dir(&runtime).unwrap();
    if let Some(uid) = user.uid {
        chown(&runtime, Some(uid), Some(uid)).unwrap();
    }
    let environment = [("XDG_RUNTIME_DIR", runtime.clone()), ("XDG_STATE_HOME", user.path("state"))];
    let (out, err) = (user.path("out"), user.path("err"));
    let mut command = user.run(&[
        "run",
        "--set",
        &format!("api.base_url={}", api.base_url()),
        "--set",
        "schedule.initial_interval=20ms",
    ]);
    command.envs(environment.clone()).env("PINWATCH__API__KEY", "demo-key").stdin(Stdio::null());
    command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
    let mut daemon = Child::spawn(command);
    let socket = runtime.join("pinwatch/pinwatch.sock");
    until_true("the daemon is ready", || {
        assert!(daemon.ended().is_none(), "{}", fs::read_to_string(&err).unwrap());
        fs::read_to_string(&err).unwrap().contains("ready")
    });
    let told = fs::read_to_string(&err).unwrap();
    let store = user.path("state/pinwatch/pinwatch.db");
    assert!(told.contains(socket.to_str().unwrap()), "where its socket is: {told}");
    assert!(told.contains(store.to_str().unwrap()), "where its store is: {told}");
    assert!(store.exists());

    // Outcomes go to standard output.
    assert_eq!(Client::connect(&socket).submit("sim-delivered-1"), "accepted");
    let line = until("the record", || fs::read_to_string(&out).ok().filter(|text| text.ends_with('\n')));
    let record: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(record["pinId"], "sim-delivered-1");

    // The clients find the socket without an option.
    for args in [&["ping"][..], &["submit", "sim-delivered-2", "--wait"]] {
        let mut client = user.run(args);
        client.envs(environment.clone());
        let ended = run_to_end(client);
        assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.stderr);
    }
}

#[test]
fn without_xdg_state_home_the_store_is_below_the_home() {
    let Some(user) = user() else { return };
    let mut command = user.run(&["check-config"]);
    command.env("XDG_RUNTIME_DIR", "/run/user/1").env("PINWATCH__API__KEY", "demo-key");
    let ended = run_to_end(command);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let value = |key: &str| {
        let mut settings = ended.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let setting = settings.find(|setting| setting["key"] == key).unwrap();
        setting["value"].as_str().unwrap().trim_matches('"').to_owned()
    };
    let store = user.path(".local/state/pinwatch/pinwatch.db");
    assert_eq!(value("store.url"), format!("sqlite:{}", store.display()));
    assert_eq!(value("intake.socket"), "/run/user/1/pinwatch/pinwatch.sock");
}

#[test]
fn folders_that_the_user_may_not_write_to_are_named_and_nothing_is_created() {
    let Some(user) = user() else { return };
    // Root's, or, for somebody else, nobody's.
    let closed = tempfile::tempdir().unwrap();
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o555)).unwrap();
    for (key, value) in [
        ("store.url", format!("sqlite:{}/pinwatch.db", closed.path().display())),
        ("store.url", format!("sqlite:{}/new/pinwatch.db", closed.path().display())),
        ("intake.socket", format!("{}/pinwatch.sock", closed.path().display())),
        ("sink", format!("[{{type=\"file\",path={:?}}}]", closed.path().join("outcomes.jsonl"))),
    ] {
        let mut command = user.run(&[
            "run",
            "--set",
            &format!("{key}={value}"),
            "--set",
            "api.base_url=http://127.0.0.1:9",
        ]);
        command.env("PINWATCH__API__KEY", "demo-key").env("XDG_RUNTIME_DIR", user.path("runtime"));
        let ended = run_to_end(command);
        assert_eq!(ended.code, Some(1), "{key}: {}", ended.stderr);
        let told = &ended.stderr;
        assert!(
            told.contains(closed.path().to_str().unwrap()) && told.contains("ermission denied"),
            "{key}: {told}"
        );
        assert!(fs::read_dir(closed.path()).unwrap().next().is_none());
    }
}
