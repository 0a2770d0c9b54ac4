//! The real daemon, with all that it has in a temporary folder, and the real commands that ask it.
//!
//! Promises that no daemon outlives its test, and that every wait has an end.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// How long a wait is at most, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder for a daemon: it runs there or not.
pub struct Place {
    folder: TempDir,
}

/// A daemon that runs. Killed when it is dropped.
pub struct Daemon(Child);

impl Place {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("pinwatch.sock")
    }

    /// Starts a daemon that polls at `base_url` and has a file sink of each name; gives it when it listens.
    pub fn start(&self, base_url: &str, sinks: &[&str]) -> Daemon {
        let folder = self.folder.path().display();
        let mut config = format!(
            "[api]\nbase_url = \"{base_url}\"\nkey = \"demo-key\"\n\
             [schedule]\ninitial_interval = \"50ms\"\nmax_interval = \"200ms\"\n\
             [intake]\nsocket = \"{folder}/pinwatch.sock\"\n[store]\nurl = \"sqlite:{folder}/pinwatch.db\"\n"
        );
        for sink in sinks {
            config += &format!(
                "[[sink]]\ntype = \"file\"\nname = \"{sink}\"\npath = \"{folder}/{sink}.jsonl\"\nfrom = \"oldest\"\n"
            );
        }
        std::fs::write(self.path("pinwatch.toml"), config).unwrap();
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = isolated(Command::new(env!("CARGO_BIN_EXE_pinwatch")));
        command.args(["run", "--config"]).arg(self.path("pinwatch.toml"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut daemon = Daemon(child);
        until("the daemon listens", || {
            if let Some(status) = daemon.0.try_wait().unwrap() {
                let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
                panic!("the daemon ended with {status}: {log}");
            }
            self.pinwatch(&["ping"]).output().unwrap().status.success().then_some(())
        });
        daemon
    }

    /// A command that asks the daemon here.
    pub fn pinwatch(&self, args: &[&str]) -> assert_cmd::Command {
        let mut command = isolated(Command::new(env!("CARGO_BIN_EXE_pinwatch")));
        command.args(args).arg("--socket").arg(self.socket());
        let mut command = assert_cmd::Command::from_std(command);
        command.timeout(PATIENCE);
        command
    }

    /// What such a command prints when it ends well, a value a line.
    #[track_caller]
    pub fn ask(&self, args: &[&str]) -> Vec<Value> {
        let done = self.pinwatch(args).assert().code(0);
        let stdout = String::from_utf8_lossy(&done.get_output().stdout).into_owned();
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The whole lines of a sink's file, when there are so many; it is a failure if there are more.
    #[track_caller]
    pub fn lines(&self, sink: &str, count: usize) -> Vec<String> {
        let path = self.path(&format!("{sink}.jsonl"));
        let lines = until(&format!("{count} lines in {}", path.display()), || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
            let lines: Vec<_> = whole.lines().map(str::to_owned).collect();
            (lines.len() >= count).then_some(lines)
        });
        assert_eq!(lines.len(), count, "too many lines: {lines:#?}");
        lines
    }
}

impl Daemon {
    /// SIGTERM, which must end it well.
    pub fn stop(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        let status = until("the daemon's end", || self.0.try_wait().unwrap());
        assert!(status.success(), "the daemon ended with {status}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The command without what this environment would change of it.
pub fn isolated(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("PINWATCH_") || text.to_lowercase().ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command
}

/// Waits for what `look` finds.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < give_up, "waited in vain: {what}");
        sleep(Duration::from_millis(10));
    }
}
