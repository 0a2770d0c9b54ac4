//! Runs the demonstration's daemon: this program, as a separate process in a temporary folder.
//!
//! Promises that the process ends before its folder is removed, however the demonstration ends, and that the user's own
//! configuration, credentials and proxies do not affect it.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::commands::client::Client;
use crate::simulate::Preset;

/// The key that the simulated API accepts.
pub const KEY: &str = "demo-key";

/// How long the daemon may take to open its socket.
const START_WITHIN: Duration = Duration::from_secs(10);

/// How long the file sink may take to write the last outcomes.
const SINK_WITHIN: Duration = Duration::from_secs(5);

/// How long the daemon may take to stop before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(4);

/// The interval at which the daemon's state is checked.
const LOOK: Duration = Duration::from_millis(20);

/// A socket's path may have at most 107 bytes, so a temporary folder with a longer path than this is not used.
const LONGEST_FOLDER: usize = 70;

/// Environment variables that would change the daemon's behaviour; they are not passed on.
const FOREIGN: [&str; 7] = [
    "CREDENTIALS_DIRECTORY",
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// A running daemon. It is killed when this is dropped; [`Daemon::stop`] stops it in order.
pub struct Daemon {
    child: Child,
    // Declared last, so that the folder is removed after the process has ended.
    folder: TempDir,
}

impl Daemon {
    /// Starts the daemon; it polls the API at `base_url`.
    pub fn start(base_url: &str, preset: Preset) -> io::Result<Self> {
        let parent = Some(std::env::temp_dir()).filter(|dir| dir.as_os_str().len() <= LONGEST_FOLDER);
        let parent = parent.unwrap_or_else(|| PathBuf::from("/tmp"));
        let folder = tempfile::Builder::new().prefix("pinwatch-demo-").tempdir_in(parent)?;
        let config = folder.path().join("pinwatch.toml");
        std::fs::write(&config, configuration(base_url, preset, folder.path()))?;
        let log = File::create(folder.path().join("log"))?;

        let mut command = Command::new(std::env::current_exe()?);
        command.arg("run").arg("--config").arg(config);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PINWATCH__")
                || FOREIGN.iter().any(|foreign| name == *foreign)
            {
                command.env_remove(name);
            }
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C must reach only this process, which then stops the daemon in order.
            .process_group(0)
            .spawn()?;
        Ok(Self { child, folder })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("pinwatch.sock")
    }

    /// Connects as soon as the daemon listens.
    pub async fn connect(&mut self) -> Result<Client, String> {
        let give_up = Instant::now() + START_WITHIN;
        loop {
            match Client::connect(&self.socket()).await {
                Ok(client) => return Ok(client),
                Err(error) if Instant::now() > give_up => return Err(error.to_string()),
                Err(_) => {}
            }
            if let Some(words) = self.last_words() {
                return Err(words);
            }
            sleep(LOOK).await;
        }
    }

    /// Its exit status and the last five lines of its log, if it has ended by itself.
    pub fn last_words(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(5).collect();
        let words: Vec<_> = lines.into_iter().rev().collect();
        Some(format!("the daemon ended ({status}): {}", words.join("; ")))
    }

    /// Waits until the file sink has written this many outcomes.
    pub async fn await_sink(&self, outcomes: usize) -> Result<(), String> {
        let give_up = Instant::now() + SINK_WITHIN;
        loop {
            let bytes = std::fs::read(self.folder.path().join("outcomes.jsonl")).unwrap_or_default();
            let lines = memchr::memchr_iter(b'\n', &bytes).count();
            if lines >= outcomes {
                return Ok(());
            }
            if Instant::now() > give_up {
                return Err(format!("the daemon's file sink has only {lines} of {outcomes} outcomes"));
            }
            sleep(LOOK).await;
        }
    }

    /// Asks the daemon to stop and waits for its end. Then its folder is removed.
    pub async fn stop(mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
            // The process was not awaited yet, so nobody else can have its ID.
            && matches!(self.child.try_wait(), Ok(None))
        {
            // If the signal can't be sent, the daemon is killed below.
            let _ = kill_process(pid, Signal::TERM);
        }
        let give_up = Instant::now() + STOP_WITHIN;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < give_up {
            sleep(LOOK).await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A configuration as a user would write it, with intervals short enough to watch.
fn configuration(base_url: &str, preset: Preset, folder: &Path) -> String {
    let folder = toml_string(folder);
    let name = preset.name();
    let credentials = if preset.is_basic() {
        format!("username = \"demo\"\npassword = \"{KEY}\"")
    } else {
        format!("key = \"{KEY}\"")
    };
    format!(
        r#"shutdown_grace = "1s"

[api]
preset = "{name}"
base_url = "{base_url}"
{credentials}

[schedule]
initial_interval = "200ms"
max_interval = "2s"
deadline = "15s"

[intake]
socket = "{folder}/pinwatch.sock"

[store]
url = "sqlite:{folder}/pinwatch.db"

[[sink]]
type = "file"
name = "outcomes"
path = "{folder}/outcomes.jsonl"
from = "oldest"

[log]
level = "warn"
"#
    )
}

/// Escapes a path for a quoted string in TOML.
fn toml_string(path: &Path) -> String {
    path.display().to_string().replace('\\', r"\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;
    use crate::config::{Config, Sources};

    #[test]
    fn the_configuration_of_the_demo_is_valid_for_every_preset() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pinwatch.toml");
        for preset in Preset::value_variants() {
            std::fs::write(&file, configuration("http://127.0.0.1:8085", *preset, folder.path())).unwrap();
            let sources = Sources { file: Some(file.clone()), ..Sources::default() };
            let config = Config::load(&sources).unwrap();
            assert_eq!(config.intake.socket, folder.path().join("pinwatch.sock"));
            assert_eq!((config.sinks.len(), config.api.preset.name), (1, &*preset.name()));
        }
    }
}
