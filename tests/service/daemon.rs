//! A daemon whose service manager is the test.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Client, Place, TIMEOUT, until_true};

pub struct Daemon {
    daemon: crate::support::Daemon,
    manager: UnixDatagram,
}

/// How a daemon is started.
#[derive(Default)]
pub struct Start<'a> {
    pub config: &'a str,
    pub watchdog: Option<Duration>,
    /// Passed as systemd passes it, under this name; a Unix or a TCP socket that listens.
    pub socket: Option<OwnedFd>,
    pub socket_name: &'a str,
}

impl Daemon {
    /// Starts it, ready or not; the configuration's `FOLDER` is the place's folder.
    pub fn start(place: &Place, start: Start) -> Self {
        let notify = place.path("notify");
        // Of the daemon before.
        let _ = fs::remove_file(&notify);
        let manager = UnixDatagram::bind(&notify).unwrap();
        manager.set_read_timeout(Some(TIMEOUT)).unwrap();
        configure(place, start.config);
        let mut command = place.command();
        command.env("NOTIFY_SOCKET", notify);
        if let Some(watchdog) = start.watchdog {
            command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
        if let Some(socket) = start.socket {
            // listenfd takes the first descriptor's number from the environment: standard input's.
            command.env("LISTEN_FDS", "1").env("LISTEN_FDS_FIRST_FD", "0");
            command.env("LISTEN_FDNAMES", start.socket_name);
            command.stdin(Stdio::from(socket));
        }
        Self { daemon: place.spawn_by(command), manager }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.daemon.place.path(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.daemon.place.socket()
    }

    pub fn log(&self) -> String {
        self.daemon.log()
    }

    pub fn configure(&self, config: &str) {
        configure(&self.daemon.place, config);
    }

    pub fn signal(&self, signal: Signal) {
        self.daemon.signal(signal);
    }

    /// The next notification.
    pub fn next_notification(&self) -> String {
        let mut text = [0; 4096];
        let length = self.manager.recv(&mut text).unwrap_or_else(|error| panic!("{error}: {}", self.log()));
        String::from_utf8(text[..length].to_vec()).unwrap()
    }

    /// Waits for a notification that contains `text`; returns all up to it.
    pub fn notifications_until(&self, text: &str) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let told = self.next_notification();
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
        self.notifications_until("RELOADING=1");
        self.notifications_until("READY=1")
    }

    /// Waits until it has ended by itself; gives its status.
    pub fn ended(&mut self) -> Option<i32> {
        self.daemon.wait().code()
    }

    pub fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// Waits for a line in its log.
    #[track_caller]
    pub fn until_logged(&self, text: &str) {
        until_true(&format!("{text:?} in its log"), || self.log().contains(text));
    }

    /// Waits for an outcome in a file of lines.
    #[track_caller]
    pub fn wait_for_line(&self, file: &str, text: &str) {
        let path = self.path(file);
        until_true(&format!("{text:?} in {file}"), || {
            fs::read_to_string(&path).unwrap_or_default().contains(text)
        });
    }
}

/// A place without a configuration.
pub fn place() -> Place {
    Place::of("")
}

/// One request and its answer.
pub fn ask(socket: &Path, request: &str) -> Value {
    Client::connect(socket).ask(request)
}

pub fn configure(place: &Place, config: &str) {
    let base = "store.url = \"sqlite:FOLDER/pinwatch.db\"\nintake.socket = \"FOLDER/pinwatch.sock\"\n";
    place.write_config(&format!("{base}{config}"));
}
