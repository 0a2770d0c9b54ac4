//! The real binary as a child process, ended with its owner.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{Client, until};

pub struct Daemon {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Runs `command`; what it says goes to the end of `log`.
    pub fn spawn(mut command: Command, socket: &Path, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("the log can be written");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("the binary can be started");
        Self { child, socket: socket.to_owned(), log: log.to_owned() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it takes requests.
    #[track_caller]
    pub fn ready(mut self) -> Self {
        until("the daemon is ready", || {
            if let Some(status) = self.ended() {
                panic!("the daemon ended at its start with {status}:\n{}", self.said());
            }
            self.try_client()?.try_ask(r#"{"op":"ping"}"#)
        });
        self
    }

    /// A new connection, if it takes one.
    pub fn try_client(&self) -> Option<Client> {
        Client::connect(&self.socket).ok()
    }

    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(&self.socket).expect("the daemon takes connections")
    }

    pub fn signal(&self, signal: Signal) {
        // One that ended already hears nothing, which is what whoever sends a signal has to live with.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Kills it as a machine's OOM killer would.
    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    /// Stops it as systemd does, and checks that it ended well.
    #[track_caller]
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "the daemon ended with {status}:\n{}", self.said());
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        until("the daemon has ended", || self.ended())
    }

    /// How many lines of its log, and of those before it, have this in them.
    pub fn times_said(&self, what: &str) -> usize {
        self.said().lines().filter(|line| line.contains(what)).count()
    }

    /// All that it and those before it said.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
