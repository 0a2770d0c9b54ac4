//! The demonstration's daemon: this very program, as a process of its own in a temporary folder.
//!
//! Promises that the process is gone before its folder is, however the demonstration ends, and that nothing of
//! the user's own configuration, credentials or proxies gets in.

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

/// The key that the simulated API takes.
pub const KEY: &str = "demo-key";

/// How long the daemon may take until its socket is there.
const START_WITHIN: Duration = Duration::from_secs(10);

/// How long its file sink may be behind.
const SINK_WITHIN: Duration = Duration::from_secs(5);

/// How long it may take to stop, before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(4);

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A socket's path has at most 107 bytes; a longer temporary folder is not ours to use.
const LONGEST_FOLDER: usize = 70;

/// Variables that would change what the daemon does.
const FOREIGN: [&str; 7] = [
    "CREDENTIALS_DIRECTORY",
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// A running daemon. Killed when dropped; [`Daemon::stop`] asks first.
pub struct Daemon {
    child: Child,
    // Declared last: the folder goes when the process is gone.
    folder: TempDir,
}

impl Daemon {
    /// Starts it against the API at `base_url`.
    pub fn start(base_url: &str) -> io::Result<Self> {
        let parent = Some(std::env::temp_dir()).filter(|dir| dir.as_os_str().len() <= LONGEST_FOLDER);
        let parent = parent.unwrap_or_else(|| PathBuf::from("/tmp"));
        let folder = tempfile::Builder::new().prefix("pinwatch-demo-").tempdir_in(parent)?;
        let config = folder.path().join("pinwatch.toml");
        std::fs::write(&config, configuration(base_url, folder.path()))?;
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
            // Ctrl-C is for us: we stop the daemon, once, and in order.
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

    /// Connects as soon as it listens.
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

    /// What it said last, if it has ended by itself.
    pub fn last_words(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(5).collect();
        let words: Vec<_> = lines.into_iter().rev().collect();
        Some(format!("the daemon ended ({status}): {}", words.join("; ")))
    }

    /// Waits until its file sink has this many outcomes.
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

    /// Asks it to stop, and waits for that. Then everything of it is removed.
    pub async fn stop(mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
            // Not yet awaited, so the ID is still its own.
            && matches!(self.child.try_wait(), Ok(None))
        {
            // If it can't be asked, it is killed below.
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
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A configuration as a user would write it, with times for people who watch.
fn configuration(base_url: &str, folder: &Path) -> String {
    let folder = toml_string(folder);
    format!(
        r#"shutdown_grace = "1s"

[api]
base_url = "{base_url}"
key = "{KEY}"

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

/// The path as it stands between quotes in TOML.
fn toml_string(path: &Path) -> String {
    path.display().to_string().replace('\\', r"\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    #[test]
    fn the_demonstrations_configuration_is_a_good_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pinwatch.toml");
        std::fs::write(&file, configuration("http://127.0.0.1:8085", folder.path())).unwrap();
        let config = Config::load(&Sources { file: Some(file), ..Sources::default() }).unwrap();
        assert_eq!(config.intake.socket, folder.path().join("pinwatch.sock"));
        assert_eq!(config.sinks.len(), 1);
    }
}
