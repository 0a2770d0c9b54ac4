//! Runs the real daemon. Its state is in a temporary folder that outlives the daemon's stop and is removed with [`Home`].
//!
//! Not the tests' launcher (`tests/support`): this one pins the process to cores, and measures the time up to `READY=1`.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::nginx::free_address;
use super::process::{Process, pinned};

/// The API's key, which nobody checks.
pub const KEY: &str = "bench-key";

/// A start that takes longer than this is taken for a hang.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Settings with which PINs are not polled before their deadline, 48 hours later.
pub const NEVER_DUE: [&str; 2] = ["schedule.initial_interval=300days", "schedule.max_interval=300days"];

/// The address of an API where nothing listens, for daemons that do not poll.
pub const NOWHERE: &str = "http://127.0.0.1:9";

/// The binary that is measured.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Chooses the binary to measure: `program`, or the release binary, which is built if necessary. `cargo bench` itself builds a
/// binary with code that only tests use.
pub fn choose(program: Option<PathBuf>) {
    let program = program.unwrap_or_else(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--release", "--quiet", "--bin", "pinwatch"]);
        let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo");
        assert!(built.success(), "the release can't be built");
        env!("CARGO_BIN_EXE_pinwatch").into()
    });
    PROGRAM.set(program).expect("chosen once");
}

/// Returns the binary that is measured.
pub fn program() -> &'static Path {
    PROGRAM.get().expect("chosen at first")
}

/// A daemon's folder: configuration, store and outcomes.
pub struct Home {
    folder: TempDir,
    base_url: String,
}

/// A running daemon.
pub struct Daemon {
    pub process: Process,
    /// From the start of the process until it sent READY=1.
    pub started_in: Duration,
}

impl Home {
    /// Creates an empty folder; `base_url` is the API's.
    pub fn new(base_url: &str) -> Self {
        let home = Self { folder: tempfile::tempdir().expect("a folder"), base_url: base_url.to_owned() };
        // The daemon must not read this machine's configuration.
        home.configure(&[]);
        home
    }

    /// Creates a folder with a copy of this store, for another API. The daemon of this folder must have ended.
    pub fn copy(&self, base_url: &str) -> Self {
        let copy = Self::new(base_url);
        for name in ["pinwatch.db", "pinwatch.db-wal", "pinwatch.db.lock"] {
            if self.at(name).exists() {
                std::fs::copy(self.at(name), copy.at(name)).expect("a copy");
            }
        }
        copy
    }

    /// Writes a configuration of only these settings, which the next start or reload reads.
    pub fn configure(&self, settings: &[&str]) {
        let line = |setting: &&str| {
            let (key, value) = setting.split_once('=').expect("a setting");
            let quote = if value.parse::<f64>().is_ok() { "" } else { "\"" };
            format!("{key} = {quote}{value}{quote}\n")
        };
        std::fs::write(self.at("pinwatch.toml"), settings.iter().map(line).collect::<String>())
            .expect("a file");
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.at("socket")
    }

    /// Starts a daemon, on one core or on all, and waits until it is ready.
    pub fn start(&self, core: Option<usize>, settings: &[&str]) -> Daemon {
        let mut command = pinned(core, program());
        command.arg("--config").arg(self.at("pinwatch.toml")).arg("run").env("PINWATCH__API__KEY", KEY);
        let at = |name: &str| self.at(name).display().to_string();
        for setting in [
            format!("api.base_url={}", self.base_url),
            format!("intake.socket={}", at("socket")),
            "intake.max_in_flight=4000000".to_owned(),
            format!("store.url=sqlite:{}", at("pinwatch.db")),
            format!("sink=[{{type=\"file\",path=\"{}\"}}]", at("outcomes.jsonl")),
        ]
        .iter()
        .map(String::as_str)
        .chain(settings.iter().copied())
        {
            command.args(["--set", setting]);
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.at("log")).expect("a log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let notify = self.at("notify");
        let _ = std::fs::remove_file(&notify);
        let told = UnixDatagram::bind(&notify).expect("a socket");
        told.set_read_timeout(Some(TIMEOUT)).expect("a socket");
        command.env("NOTIFY_SOCKET", &notify);
        let begun = Instant::now();
        let process = Process::start(command);
        let mut message = [0; 1024];
        loop {
            let length = told.recv(&mut message).unwrap_or_else(|error| {
                panic!("the daemon is not ready: {error}\n{}", self.log());
            });
            if message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                return Daemon { process, started_in: begun.elapsed() };
            }
        }
    }

    /// Starts a daemon on all cores; also returns the address of its metrics.
    pub fn start_observed(&self, settings: &[&str]) -> (Daemon, SocketAddr) {
        let metrics = free_address();
        let listen = format!("http.listen={metrics}");
        (self.start(None, &[settings, &[listen.as_str()]].concat()), metrics)
    }

    /// Returns the log of all daemons that ran here.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.at("log")).unwrap_or_default()
    }
}

/// Returns settings with which all polls of a PIN are the same interval apart.
pub fn every(interval: &str) -> [String; 3] {
    [
        format!("schedule.initial_interval={interval}"),
        format!("schedule.max_interval={interval}"),
        "schedule.multiplier=1.0".to_owned(),
    ]
}
