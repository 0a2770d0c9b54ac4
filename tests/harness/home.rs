//! Where a daemon lives in a test: a folder with its configuration, socket, database, log and result files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;

use super::Daemon;

/// Fast: a PIN's life is over in some hundred milliseconds.
const SCHEDULE: &str = r#"
[schedule]
initial_interval = "20ms"
max_interval = "200ms"
deadline = "10m"
not_found_grace = "100ms"
deadline_grace = "1s"
"#;

pub struct Home {
    folder: TempDir,
    config: String,
    /// Where the database is; somewhere in the home, unless it is moved.
    pub data: PathBuf,
    /// Where the result files are.
    pub results: PathBuf,
}

impl Home {
    /// A home whose daemon polls at `base_url` and writes its outcomes to a file.
    pub fn new(base_url: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let (data, results) = (folder.path().join("data"), folder.path().join("results"));
        fs::create_dir(&data).and_then(|()| fs::create_dir(&results)).expect("folders can be made");
        let mut home = Self { folder, config: String::new(), data, results };
        home.config = format!(
            "[api]\nbase_url = {base_url:?}\nkey = \"demo-key\"\nconcurrency = 32\n{SCHEDULE}\n\
             [intake]\nsocket = {socket:?}\n[store]\nurl = \"sqlite:{database}\"\n\
             [[sink]]\ntype = \"file\"\npath = {file:?}\n",
            socket = home.socket(),
            database = home.database().display(),
            file = home.file(),
        );
        home
    }

    /// Puts more into the configuration, behind what is there.
    pub fn configure(&mut self, more: &str) {
        self.config.push_str(more);
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn socket(&self) -> PathBuf {
        self.path().join("pinwatch.sock")
    }

    pub fn database(&self) -> PathBuf {
        self.data.join("pinwatch.db")
    }

    /// The database's file with this suffix.
    pub fn beside(&self, suffix: &str) -> PathBuf {
        self.data.join(format!("pinwatch.db{suffix}"))
    }

    /// The result file that is written now.
    pub fn file(&self) -> PathBuf {
        self.results.join("outcomes.jsonl")
    }

    pub fn log(&self) -> PathBuf {
        self.path().join("log")
    }

    /// The command that runs the daemon here.
    pub fn command(&self) -> Command {
        let config = self.path().join("pinwatch.toml");
        fs::write(&config, &self.config).expect("the configuration can be written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pinwatch"));
        command.arg("--config").arg(config).arg("run");
        command
    }

    /// Starts the daemon, ready or not.
    pub fn spawn(&self) -> Daemon {
        Daemon::spawn(self.command(), &self.socket(), &self.log())
    }

    /// Starts the daemon and waits until it takes requests.
    #[track_caller]
    pub fn start(&self) -> Daemon {
        self.spawn().ready()
    }

    /// Renames the result file, as logrotate does; does nothing where there is none.
    pub fn rotate(&self, number: usize) {
        let _ = fs::rename(self.file(), self.results.join(format!("outcomes.jsonl.{number}")));
    }

    /// The record that the store of a daemon which does not run has behind this `seq`. Reads a copy: a look at the store
    /// itself would fold its write-ahead log into it.
    pub fn record_after(&self, seq: i64) -> Option<String> {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let copy = folder.path().join("copy.db");
        for (from, to) in [("", "copy.db"), ("-wal", "copy.db-wal")] {
            // A store that was closed has no log.
            let _ = fs::copy(self.beside(from), folder.path().join(to));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        runtime.block_on(async {
            let mut connection = SqliteConnectOptions::new().filename(copy).connect().await.ok()?;
            let sql = "SELECT record FROM outcome WHERE seq > ?1 ORDER BY seq LIMIT 1";
            sqlx::query_scalar(sql).bind(seq).fetch_optional(&mut connection).await.ok()?
        })
    }

    /// What the result files hold, the oldest first, the one that is written now last. What a test has put beside them
    /// has no number.
    pub fn results(&self) -> Vec<String> {
        let number = |path: &Path| path.extension()?.to_str()?.parse::<usize>().ok();
        let entries = fs::read_dir(&self.results).expect("the results are there");
        let mut files: Vec<_> = entries.map(|entry| entry.expect("a folder can be read").path()).collect();
        files.retain(|path| *path == self.file() || number(path).is_some());
        files.sort_by_key(|path| number(path).unwrap_or(usize::MAX));
        files.iter().map(|path| fs::read_to_string(path).expect("a result file is text")).collect()
    }
}
