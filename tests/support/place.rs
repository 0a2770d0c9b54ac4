//! The folder of a daemon in a test, with its configuration, socket, database, log and result files, and how it is
//! started there. The folder can be used by several daemons one after the other, and is removed with its last owner.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::Value;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;

use super::{Daemon, Ended, TIMEOUT, json, program, run_to_end, until};

/// The key that the simulator takes.
const KEY: &str = "demo-key";

/// A place for a daemon. Clones are the same place, with settings of their own.
#[derive(Clone)]
pub struct Place {
    pub folder: Arc<Folder>,
    /// The folder of the database.
    pub data: PathBuf,
    /// The folder of the result file.
    pub out: PathBuf,
    key: Option<String>,
    sets: Vec<(String, String)>,
}

/// A folder that goes with its last owner; a test that fails shows what the daemons in it said.
pub struct Folder(TempDir);

impl Folder {
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = fs::read_to_string(self.path().join("stderr")).unwrap_or_default();
            eprintln!("--- the daemon's standard error ---\n{said}---");
        }
    }
}

impl Place {
    /// A place whose daemon polls at `base_url`, at short intervals, and writes its outcomes to a file.
    pub fn new(base_url: &str) -> Self {
        let place = Self::empty();
        // A file of our own, so that the machine's is not read.
        place.write_config(&format!(
            "[schedule]\ninitial_interval = \"20ms\"\nmax_interval = \"200ms\"\n\
             [intake]\nsocket = {socket:?}\n[store]\nurl = \"sqlite:{store}\"\n\
             [[sink]]\ntype = \"file\"\npath = {results:?}\nfrom = \"oldest\"\n",
            socket = place.socket(),
            store = place.store().display(),
            results = place.results(),
        ));
        place.key(KEY).set("api.base_url", base_url)
    }

    /// As [`Place::new`], with the database and the result file in folders of their own, which a test can mount, move or
    /// take away; and a PIN's life is over in some hundred milliseconds.
    pub fn in_folders(base_url: &str) -> Self {
        let mut place = Self::new(base_url);
        (place.data, place.out) = (place.path("data"), place.path("results"));
        fs::create_dir(&place.data).and_then(|()| fs::create_dir(&place.out)).unwrap();
        place.write_config(&format!(
            "[api]\nconcurrency = 32\n\
             [schedule]\ninitial_interval = \"20ms\"\nmax_interval = \"200ms\"\ndeadline = \"10m\"\n\
             not_found_grace = \"100ms\"\ndeadline_grace = \"1s\"\n\
             [intake]\nsocket = {socket:?}\n[store]\nurl = \"sqlite:{store}\"\n\
             [[sink]]\ntype = \"file\"\npath = {results:?}\n",
            socket = place.socket(),
            store = place.store().display(),
            results = place.results(),
        ));
        place
    }

    /// A place with this configuration and no other, in which `FOLDER` is its folder.
    pub fn of(config: &str) -> Self {
        let place = Self::empty();
        place.write_config(config);
        place
    }

    fn empty() -> Self {
        // A short path: sockets lie in it.
        let folder = tempfile::tempdir().unwrap();
        let (data, out) = (folder.path().to_owned(), folder.path().to_owned());
        Self { folder: Arc::new(Folder(folder)), data, out, key: None, sets: Vec::new() }
    }

    /// Replaces the configuration file.
    pub fn write_config(&self, config: &str) {
        fs::write(self.config(), config.replace("FOLDER", self.folder.path().to_str().unwrap())).unwrap();
    }

    /// Puts more into the configuration file, behind what is there.
    pub fn configure(&self, more: &str) {
        let mut file = File::options().append(true).open(self.config()).unwrap();
        file.write_all(more.as_bytes()).unwrap();
    }

    /// `--set key=value`
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.sets.retain(|(set, _)| set != key);
        self.sets.push((key.to_owned(), value.to_owned()));
        self
    }

    /// File sinks of these names, each in its own file, and no others.
    pub fn file_sinks(self, names: &[&str]) -> Self {
        let sink = |name: &&str| {
            format!("{{type=\"file\",name={name:?},path={:?},from=\"oldest\"}}", self.sink_file(name))
        };
        let sinks = names.iter().map(sink).collect::<Vec<_>>().join(",");
        self.set("sink", &format!("[{sinks}]"))
    }

    /// Makes intervals so long that no PIN is due during a test.
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

    pub fn config(&self) -> PathBuf {
        self.path("pinwatch.toml")
    }

    pub fn socket(&self) -> PathBuf {
        match self.sets.iter().find(|(key, _)| key == "intake.socket") {
            Some((_, path)) => path.into(),
            None => self.path("pinwatch.sock"),
        }
    }

    pub fn store(&self) -> PathBuf {
        self.data.join("pinwatch.db")
    }

    /// The database's file with this suffix.
    pub fn beside(&self, suffix: &str) -> PathBuf {
        self.data.join(format!("pinwatch.db{suffix}"))
    }

    /// The result file that is written now.
    pub fn results(&self) -> PathBuf {
        self.out.join("outcomes.jsonl")
    }

    /// The file of one of the [sinks](Self::file_sinks).
    pub fn sink_file(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.jsonl"))
    }

    /// `pinwatch run`, as it is configured here.
    pub fn command(&self) -> Command {
        let mut command = program();
        command.arg("--config").arg(self.config()).arg("run");
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
    pub fn start(&self) -> Daemon {
        self.spawn().ready()
    }

    /// As [`Place::start`], by a command of the test's own.
    #[track_caller]
    pub fn start_by(&self, command: Command) -> Daemon {
        self.spawn_by(command).ready()
    }

    /// As [`Place::start_by`], with streams of the test's own.
    #[track_caller]
    pub fn start_with(&self, command: Command, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Daemon {
        Daemon::spawn(self, command, stdout, stderr).ready()
    }

    /// Starts the daemon, ready or not.
    #[track_caller]
    pub fn spawn(&self) -> Daemon {
        self.spawn_by(self.command())
    }

    /// As [`Place::spawn`], by a command of the test's own.
    #[track_caller]
    pub fn spawn_by(&self, command: Command) -> Daemon {
        let log = |name| File::options().create(true).append(true).open(self.path(name)).unwrap();
        Daemon::spawn(self, command, log("stdout"), log("stderr"))
    }

    /// Runs the daemon, which must refuse to start; returns how it ended.
    #[track_caller]
    pub fn refusal(&self) -> Ended {
        run_to_end(self.command())
    }

    /// A client command for the daemon of this place.
    pub fn pinwatch(&self, args: &[&str]) -> assert_cmd::Command {
        let mut command = program();
        command.args(args).arg("--socket").arg(self.socket());
        let mut command = assert_cmd::Command::from_std(command);
        command.timeout(TIMEOUT);
        command
    }

    /// What such a command prints when it ends well, a value a line.
    #[track_caller]
    pub fn ask(&self, args: &[&str]) -> Vec<Value> {
        let done = self.pinwatch(args).assert().code(0);
        String::from_utf8_lossy(&done.get_output().stdout).lines().map(json).collect()
    }

    /// The records in the result file: whole lines only.
    pub fn records(&self) -> Vec<Value> {
        whole_lines(&self.results()).iter().map(|line| json(line)).collect()
    }

    /// The lines of one of the [sinks](Self::file_sinks), when there are so many; there must not be more.
    #[track_caller]
    pub fn lines(&self, sink: &str, count: usize) -> Vec<String> {
        let lines = until(&format!("{count} lines of the sink {sink}"), || {
            Some(whole_lines(&self.sink_file(sink))).filter(|lines| lines.len() >= count)
        });
        assert_eq!(lines.len(), count, "too many lines: {lines:#?}");
        lines
    }

    /// What the result files hold, the oldest first, the one that is written now last. What a test has put beside them
    /// has no number.
    pub fn all_results(&self) -> Vec<String> {
        let number = |path: &Path| path.extension()?.to_str()?.parse::<usize>().ok();
        let entries = fs::read_dir(&self.out).expect("the results are there");
        let mut files: Vec<_> = entries.map(|entry| entry.expect("a folder can be read").path()).collect();
        files.retain(|path| *path == self.results() || number(path).is_some());
        files.sort_by_key(|path| number(path).unwrap_or(usize::MAX));
        files.iter().map(|path| fs::read_to_string(path).expect("a result file is text")).collect()
    }

    /// Renames the result file, as logrotate does; does nothing where there is none.
    pub fn rotate(&self, number: usize) {
        let _ = fs::rename(self.results(), self.out.join(format!("outcomes.jsonl.{number}")));
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

    /// What the daemons of this place wrote to standard error so far.
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }
}

fn whole_lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(str::to_owned).collect()
}
