//! The daemon under test: the real binary, with its whole state in a temporary folder.

use std::fs::{self, File, OpenOptions};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{Client, until, until_true};

/// The key that the simulator takes.
const KEY: &str = "demo-key";

/// A folder with a configuration, a store and a result file; a daemon runs there or not.
///
/// Unless a test sets them otherwise, intervals are short and there is one sink, a file.
pub struct Place {
    pub folder: TempDir,
    key: Option<String>,
    sets: Vec<(String, String)>,
}

/// A daemon that runs. Killed when it is dropped.
pub struct Daemon {
    process: Child,
    pub place: Place,
}

/// How a process ended.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    pub fn new(base_url: &str) -> Self {
        let place = Self {
            folder: tempfile::tempdir().unwrap(),
            key: Some(KEY.to_owned()),
            sets: vec![("api.base_url".to_owned(), base_url.to_owned())],
        };
        // A file of our own, so that the machine's is not read.
        let config = format!(
            "[schedule]\ninitial_interval = \"20ms\"\nmax_interval = \"200ms\"\n\
             [intake]\nsocket = {socket:?}\n[store]\nurl = \"sqlite:{store}\"\n\
             [[sink]]\ntype = \"file\"\npath = {results:?}\nfrom = \"oldest\"\n",
            socket = place.socket(),
            store = place.store().display(),
            results = place.results(),
        );
        fs::write(place.path("pinwatch.toml"), config).unwrap();
        place
    }

    /// `--set key=value`
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.sets.retain(|(set, _)| set != key);
        self.sets.push((key.to_owned(), value.to_owned()));
        self
    }

    /// No PIN comes due while a test runs.
    pub fn never_due(self) -> Self {
        self.set("schedule.initial_interval", "1day").set("schedule.max_interval", "1day")
    }

    /// Intervals short again, after [`Place::never_due`].
    pub fn soon_due(self) -> Self {
        self.set("schedule.initial_interval", "20ms").set("schedule.max_interval", "200ms")
    }

    pub fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    pub fn without_key(mut self) -> Self {
        self.key = None;
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        match self.sets.iter().find(|(key, _)| key == "intake.socket") {
            Some((_, path)) => path.into(),
            None => self.path("pinwatch.sock"),
        }
    }

    pub fn store(&self) -> PathBuf {
        self.path("pinwatch.db")
    }

    pub fn results(&self) -> PathBuf {
        self.path("outcomes.jsonl")
    }

    /// `pinwatch run`, as it is configured here.
    pub fn command(&self) -> Command {
        let mut command = program();
        command.arg("--config").arg(self.path("pinwatch.toml")).arg("run");
        for (key, value) in &self.sets {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        if let Some(key) = &self.key {
            command.env("PINWATCH__API__KEY", key);
        }
        command
    }

    /// Starts the daemon and waits until it takes connections.
    #[track_caller]
    pub fn start(self) -> Daemon {
        let command = self.command();
        self.start_by(command)
    }

    /// As [`Place::start`], by a command of the test's own.
    #[track_caller]
    pub fn start_by(self, command: Command) -> Daemon {
        let log = |name| OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap();
        let (stdout, stderr) = (log("stdout"), log("stderr"));
        self.start_with(command, stdout, stderr)
    }

    /// As [`Place::start_by`], with streams of the test's own.
    #[track_caller]
    pub fn start_with(
        self,
        mut command: Command,
        stdout: impl Into<Stdio>,
        stderr: impl Into<Stdio>,
    ) -> Daemon {
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let mut process = Child::spawn(command);
        until_true("the daemon takes connections", || {
            let ended = process.ended();
            assert!(ended.is_none(), "the daemon did not start: {}", ended.unwrap());
            UnixStream::connect(self.socket()).is_ok()
        });
        Daemon { process, place: self }
    }

    /// Runs the daemon where it must not start; gives how it ended.
    #[track_caller]
    pub fn refusal(&self) -> Ended {
        run_to_end(self.command())
    }

    /// The records in the result file: whole lines only.
    pub fn records(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.results()).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }

    /// What the daemons here wrote to standard error so far.
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the daemon's standard error ---\n{}---", self.stderr());
        }
    }
}

impl Daemon {
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(&self.place.socket())
    }

    pub fn records(&self) -> Vec<Value> {
        self.place.records()
    }

    /// Waits until the result file has so many records; there must not be more.
    #[track_caller]
    pub fn all_records(&self, count: usize) -> Vec<Value> {
        let records = until(&format!("{count} records"), || {
            Some(self.records()).filter(|records| records.len() >= count)
        });
        assert_eq!(records.len(), count, "too many records");
        records
    }

    /// `kill -9`.
    pub fn kill9(self) -> Place {
        let Self { process, place } = self;
        drop(process);
        place
    }

    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process.0), signal).unwrap();
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.process.0)
    }

    /// As everybody on the machine can see it.
    pub fn command_line(&self) -> String {
        fs::read_to_string(format!("/proc/{}/cmdline", self.process.0.id())).unwrap()
    }

    /// The most memory that it ever had, in bytes (`VmHWM`).
    #[track_caller]
    pub fn peak_memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
    }

    /// Waits until it has done what it can: until it takes no more processor time.
    #[track_caller]
    pub fn rests(&self) {
        let stat = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.0.id())).unwrap();
            let (_, fields) = stat.rsplit_once(") ").unwrap();
            fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>()
        };
        let (mut last, mut same) = (0, 0);
        until_true("it rests", || {
            let now = stat();
            same = if now == last { same + 1 } else { 0 };
            last = now;
            same == 30
        });
    }

    /// Waits for its end.
    #[track_caller]
    pub fn ended(mut self) -> (ExitStatus, Place) {
        let status = until("the daemon's end", || self.process.ended());
        (status, self.place)
    }

    /// SIGTERM, which must end it well.
    #[track_caller]
    pub fn terminate(self) -> Place {
        self.signal(Signal::TERM);
        let (status, place) = self.ended();
        assert!(status.success(), "SIGTERM ended the daemon with {status}, signal {:?}", status.signal());
        place
    }
}

/// A child that does not outlive its test.
pub struct Child(std::process::Child);

impl Child {
    #[track_caller]
    pub fn spawn(mut command: Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().unwrap()
    }

    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program, which sees nothing of this environment.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinwatch"));
    isolate(&mut command);
    command
}

/// Takes the environment away, but for where coverage is written.
pub fn isolate(command: &mut Command) {
    command.env_clear();
    if let Some(profile) = std::env::var_os("LLVM_PROFILE_FILE") {
        command.env("LLVM_PROFILE_FILE", profile);
    }
}

/// Runs a command to its end.
#[track_caller]
pub fn run_to_end(mut command: Command) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    command.stdin(Stdio::null()).stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
    let mut process = Child::spawn(command);
    let read = |path: &Path| String::from_utf8(fs::read(path).unwrap()).unwrap();
    let status = until("the program's end", || process.ended());
    Ended { code: status.code(), stdout: read(&out), stderr: read(&err) }
}
