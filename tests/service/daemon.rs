//! A daemon in a temporary folder, with a service manager and an API that the test plays.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// No wait is longer; reached only by a bug.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Daemon {
    child: Child,
    manager: UnixDatagram,
    pub folder: TempDir,
}

/// How a daemon is started.
#[derive(Default)]
pub struct Start<'a> {
    pub config: &'a str,
    pub watchdog: Option<Duration>,
    /// Passed as systemd passes it.
    pub socket: Option<UnixListener>,
}

impl Daemon {
    /// Starts it; the configuration's `FOLDER` is the temporary folder.
    pub fn start(folder: TempDir, start: Start) -> Self {
        let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pinwatch"));
        command.env_clear();
        command.env("NOTIFY_SOCKET", folder.path().join("notify"));
        if let Some(watchdog) = start.watchdog {
            command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
        command.stdin(Stdio::null());
        if let Some(socket) = start.socket {
            // listenfd takes the first descriptor's number from the environment: standard input's.
            command.env("LISTEN_FDS", "1").env("LISTEN_FDS_FIRST_FD", "0");
            command.stdin(Stdio::from(OwnedFd::from(socket)));
        }
        let log = fs::File::create(folder.path().join("log")).unwrap();
        command.stdout(Stdio::null()).stderr(Stdio::from(log));
        write_config(folder.path(), start.config);
        command.arg("run").arg("--config").arg(folder.path().join("pinwatch.toml"));
        Self { child: command.spawn().unwrap(), manager, folder }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("pinwatch.sock")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    pub fn configure(&self, config: &str) {
        write_config(self.folder.path(), config);
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The next notification.
    pub fn told(&self) -> String {
        let mut text = [0; 4096];
        let length = self.manager.recv(&mut text).unwrap_or_else(|error| panic!("{error}: {}", self.log()));
        String::from_utf8(text[..length].to_vec()).unwrap()
    }

    /// The first notification to come that contains `text`; gives those before it, too.
    pub fn told_until(&self, text: &str) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let told = self.told();
            let found = told.contains(text);
            all.push(told);
            if found {
                return all;
            }
        }
    }

    /// Sends SIGHUP, and waits until it is done.
    pub fn reload(&self) -> Vec<String> {
        self.signal(Signal::HUP);
        self.told_until("RELOADING=1");
        self.told_until("READY=1")
    }

    /// Waits until it has ended by itself; gives its status.
    pub fn ended(&mut self) -> Option<i32> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < give_up, "it goes on: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// Waits for an outcome in a file of lines.
    pub fn wait_for_line(&self, file: &str, text: &str) {
        let give_up = Instant::now() + PATIENCE;
        let path = self.folder.path().join(file);
        while !fs::read_to_string(&path).unwrap_or_default().contains(text) {
            assert!(Instant::now() < give_up, "no {text} in {file}: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A temporary folder with a short path: sockets lie in it.
pub fn folder() -> TempDir {
    tempfile::Builder::new().prefix("pinwatch-service-").tempdir().unwrap()
}

/// One request and its answer.
pub fn ask(socket: &Path, request: &str) -> Value {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    writeln!(stream, "{request}").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

fn write_config(folder: &Path, config: &str) {
    let base = "store.url = \"sqlite:FOLDER/pinwatch.db\"\nintake.socket = \"FOLDER/pinwatch.sock\"\n";
    let text = format!("{base}{config}").replace("FOLDER", folder.to_str().unwrap());
    fs::write(folder.join("pinwatch.toml"), text).unwrap();
}
