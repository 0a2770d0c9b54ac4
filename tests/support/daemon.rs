//! The daemon under test: the real binary as a child process that ends with its test.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Client, Place, until, until_true};

/// A daemon that runs. Killed when it is dropped.
pub struct Daemon {
    process: Child,
    pub place: Place,
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Daemon {
    /// Runs this command, which is a daemon of this place, ready or not.
    #[track_caller]
    pub fn spawn(
        place: &Place,
        mut command: Command,
        stdout: impl Into<Stdio>,
        stderr: impl Into<Stdio>,
    ) -> Self {
        command.stdout(stdout).stderr(stderr);
        Self { process: Child::spawn(command), place: place.clone() }
    }

    /// Waits until it takes connections.
    #[track_caller]
    pub fn ready(mut self) -> Self {
        until_true("the daemon takes connections", || {
            let ended = self.ended();
            assert!(ended.is_none(), "the daemon did not start: {}\n{}", ended.unwrap(), self.log());
            self.try_client().is_some()
        });
        self
    }

    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(&self.place.socket())
    }

    /// A new connection, if it takes one.
    pub fn try_client(&self) -> Option<Client> {
        Client::try_connect(&self.place.socket()).ok()
    }

    /// Where it serves HTTP, with `http.listen = "127.0.0.1:0"`: by its log, which comes a moment later than it listens.
    #[track_caller]
    pub fn http_address(&self) -> SocketAddr {
        until("it says where it serves HTTP", || {
            let said = self.log();
            let (_, rest) = said.rsplit_once("served over HTTP address=")?;
            rest.split_once(char::is_whitespace).map(|(address, _)| address.parse().unwrap())
        })
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
        self.process.signal(signal);
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.process.0)
    }

    /// Its standard output, where that is a pipe.
    pub fn stdout(&mut self) -> ChildStdout {
        self.process.stdout()
    }

    /// As everybody on the machine can see it.
    pub fn command_line(&self) -> String {
        fs::read_to_string(format!("/proc/{}/cmdline", self.process.0.id())).unwrap()
    }

    /// The most memory that it ever had, in bytes (`VmHWM`). Linux counts it roughly: it can be a little less than it was.
    #[track_caller]
    pub fn peak_memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
    }

    /// Waits until the daemon uses no more processor time.
    #[track_caller]
    pub fn wait_until_idle(&self) {
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
            same == 60
        });
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        until("the daemon's end", || self.ended())
    }

    /// Waits for its end, and leaves the place to the next one.
    #[track_caller]
    pub fn end(mut self) -> (ExitStatus, Place) {
        (self.wait(), self.place)
    }

    /// Stops it with SIGTERM; it must exit with 0.
    #[track_caller]
    pub fn terminate(self) -> Place {
        self.signal(Signal::TERM);
        let (status, place) = self.end();
        let said = place.stderr();
        assert!(status.success(), "SIGTERM ended it with {status}, signal {:?}:\n{said}", status.signal());
        place
    }

    /// The log of this daemon and of those before it in this place.
    pub fn log(&self) -> String {
        self.place.stderr()
    }

    /// How many lines of [`Daemon::log`] contain this.
    pub fn times_logged(&self, what: &str) -> usize {
        self.log().lines().filter(|line| line.contains(what)).count()
    }
}

/// A child process that ends with its test.
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

    /// Its standard output, where that is a pipe.
    pub fn stdout(&mut self) -> ChildStdout {
        self.0.stdout.take().expect("standard output is a pipe")
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

/// The program, without this environment and without input.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinwatch"));
    isolate(&mut command);
    command.stdin(Stdio::null());
    command
}

/// Clears the environment, except for the path of coverage data.
pub fn isolate(command: &mut Command) {
    command.env_clear();
    if let Some(profile) = std::env::var_os("LLVM_PROFILE_FILE") {
        command.env("LLVM_PROFILE_FILE", profile);
    }
}

/// A command as the last arguments of another one, such as `nsenter`, `prlimit` or `sh -c`; its environment goes with it.
pub fn wrapped(mut by: Command, command: &Command) -> Command {
    by.arg(command.get_program()).args(command.get_args());
    by.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    by.stdin(Stdio::null());
    by
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
