//! A real PostgreSQL for tests: started by the test that needs one, and ended with it in any case.
//!
//! Needs the server's binaries (Debian: `postgresql`) and `psql`, and nothing else: no server that runs already,
//! no account, no root (as root it runs as somebody else, for PostgreSQL refuses to run as root). It writes as
//! in production, but that a debug build, which has leases of seconds to keep beside other tests' syncs, leaves the
//! last step to the kernel: no kill of a process loses what the kernel has. Benchmarks wait for the disk. It has to
//! know nothing of pinwatch, so that any test can include this one file.

use super::not_run::not_run;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

/// The role of the nodes, and its password, which must not appear anywhere.
pub const USER: &str = "pinwatch";
pub const PASSWORD: &str = "pg-secret-of-tests";

/// Ports below those that the kernel gives away: a client that asks for a server that is down must not be given
/// this very port as its own, or it talks to itself and the server can't come back.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A server of its own. Ended, without leaving anything behind, when it is dropped or the test's process ends.
pub struct Postgres {
    binaries: PathBuf,
    folder: TempDir,
    /// User and group that it runs as, where we are root.
    runs_as: Option<(u32, u32)>,
    /// The command before each command, for a server that sees other disks.
    entrance: Vec<OsString>,
    port: u16,
    databases: AtomicU32,
    /// Stops the server at the end of its standard input, which is the end of this process.
    watcher: Child,
}

/// A database of a server, made for one test.
#[derive(Clone)]
pub struct Database {
    name: String,
    port: u16,
    socket: PathBuf,
    psql: PathBuf,
}

impl Postgres {
    /// Starts one, for a test that stops and restarts it. `None`, loudly, where there are no server binaries: there
    /// the test has nothing to test. CI must have them.
    pub fn launch() -> Option<Self> {
        Self::launch_within(|_, _| Some(Vec::new()))
    }

    /// As [`Postgres::launch`], where root has made a place for it: that is told the server's folder, and who it runs
    /// as, and gives the command by which other commands enter the place.
    pub fn launch_within(place: impl FnOnce(&Path, (u32, u32)) -> Option<Vec<OsString>>) -> Option<Self> {
        let mut server = Self::prepare()?;
        server.entrance = place(server.folder.path(), server.runs_as.unwrap_or_default())?;
        server.initialise();
        Some(server)
    }

    /// A folder and an owner, and no data yet.
    fn prepare() -> Option<Self> {
        let Some(binaries) = binaries() else {
            not_run("PostgreSQL as the store", "the package postgresql");
            return None;
        };
        let runs_as = rustix::process::geteuid().is_root().then(unprivileged);
        // Not a root's TMPDIR: nobody else may be allowed to enter it.
        let parent = if runs_as.is_some() { PathBuf::from("/tmp") } else { std::env::temp_dir() };
        let folder = tempfile::Builder::new().prefix("pinwatch-pg-").tempdir_in(parent).unwrap();
        if let Some((user, group)) = runs_as {
            chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        let watcher = watch(&binaries, folder.path(), runs_as);
        let (entrance, databases) = (Vec::new(), AtomicU32::new(0));
        Some(Self { binaries, folder, runs_as, entrance, port: 0, databases, watcher })
    }

    /// One for all tests of this process that need no more than a database of their own.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Postgres>> = OnceLock::new();
        SHARED.get_or_init(Self::launch).as_ref()
    }

    fn initialise(&mut self) {
        let password = self.path("password");
        fs::write(&password, PASSWORD).unwrap();
        let mut initdb = self.command("initdb");
        initdb.args([
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
            "--auth=scram-sha-256",
            "--username",
            USER,
        ]);
        initdb.arg("--pwfile").arg(&password).arg("-D").arg(self.data());
        succeed(initdb);
        // Tests look at the database over the socket, without the password. Nodes send theirs: SCRAM would cost
        // a debug build a second of a loaded machine for each connection.
        fs::write(
            self.data().join("pg_hba.conf"),
            "local all,replication all trust\nhost all all 127.0.0.1/32 password\n",
        )
        .unwrap();
        let fsync = if cfg!(debug_assertions) { "off" } else { "on" };
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nmax_connections = 200\n\
             shared_buffers = '32MB'\nfsync = {fsync}\nsynchronous_commit = on\n",
            self.folder.path().display()
        );
        fs::write(self.data().join("postgresql.auto.conf"), settings).unwrap();
        self.start_on_a_free_port();
    }

    fn start_on_a_free_port(&mut self) {
        // Somebody else may take a port between our look and the server's: then another one.
        for _ in 0..10 {
            self.port = free_port();
            if self.pg_ctl(&["start"]).status.success() {
                return;
            }
        }
        panic!("PostgreSQL does not start:\n{}", self.log());
    }

    /// A new and empty database.
    #[track_caller]
    pub fn database(&self) -> Database {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.named("postgres").execute(&format!("CREATE DATABASE {name}"));
        self.named(&name)
    }

    /// As [`Postgres::database`], with its tables in a folder of the server's.
    #[track_caller]
    pub fn database_in(&self, folder: &str) -> Database {
        let place = self.path(folder);
        self.named("postgres")
            .execute(&format!("CREATE TABLESPACE elsewhere LOCATION '{}'", place.display()));
        self.named("postgres").execute("CREATE DATABASE elsewhere TABLESPACE elsewhere");
        self.named("elsewhere")
    }

    fn named(&self, name: &str) -> Database {
        let (socket, psql) = (self.folder.path().to_owned(), self.binaries.join("psql"));
        Database { name: name.to_owned(), port: self.port, socket, psql }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// As after a crash: every connection is cut, nothing is flushed, and what was committed is recovered.
    #[track_caller]
    pub fn restart_immediately(&self) {
        self.run_or_panic(&["restart", "-m", "immediate"]);
    }

    /// Ends it as a crash does, until [`Postgres::start`].
    #[track_caller]
    pub fn stop(&self) {
        self.run_or_panic(&["stop", "-m", "immediate"]);
    }

    #[track_caller]
    pub fn start(&self) {
        self.run_or_panic(&["start"]);
    }

    /// A server that follows this one from now on, and answers questions only until it is [promoted](Self::promote).
    #[track_caller]
    pub fn standby(&self) -> Self {
        let mut standby = Self::prepare().expect("there is one server already");
        let mut copy = standby.command("pg_basebackup");
        copy.args(["--wal-method=stream", "--checkpoint=fast", "--no-sync", "--write-recovery-conf"]);
        copy.arg("-h").arg(self.folder.path()).args(["-p", &self.port.to_string(), "-U", USER]);
        copy.arg("-D").arg(standby.data());
        succeed(copy);
        standby.configure(&format!("unix_socket_directories = '{}'", standby.folder.path().display()));
        standby.start_on_a_free_port();
        standby
    }

    /// Makes a standby a server of its own.
    #[track_caller]
    pub fn promote(&self) {
        self.run_or_panic(&["promote"]);
    }

    /// Has it speak TLS by this certificate and key, in PEM.
    #[track_caller]
    pub fn speak_tls(&self, certificate: &str, key: &str) {
        for (name, pem) in [("server.crt", certificate), ("server.key", key)] {
            let path = self.data().join(name);
            fs::write(&path, pem).unwrap();
            // It uses no key that others can read.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            if let Some((user, group)) = self.runs_as {
                chown(&path, Some(user), Some(group)).unwrap();
            }
        }
        self.configure("ssl = on");
        self.run_or_panic(&["restart", "-m", "fast"]);
    }

    /// Adds a setting, for its next start; the last one counts.
    fn configure(&self, setting: &str) {
        let mut file = File::options().append(true).open(self.data().join("postgresql.auto.conf")).unwrap();
        writeln!(file, "{setting}").unwrap();
    }

    /// The database of this name, as of another server that this one is a standby of.
    pub fn same(&self, database: &Database) -> Database {
        self.named(&database.name)
    }

    /// The server's log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    #[track_caller]
    fn run_or_panic(&self, what: &[&str]) {
        let output = self.pg_ctl(what);
        assert!(output.status.success(), "pg_ctl {what:?}: {output:?}\n{}", self.log());
    }

    fn pg_ctl(&self, what: &[&str]) -> Output {
        let mut command = self.command("pg_ctl");
        command.args(what).args(["-w", "-t", "60", "-D"]).arg(self.data());
        command.arg("-l").arg(self.path("log"));
        command.arg("-o").arg(format!("-p {}", self.port));
        run(command)
    }

    fn command(&self, name: &str) -> Command {
        let program = self.binaries.join(name);
        let Some((enter, arguments)) = self.entrance.split_first() else {
            return as_user(program, self.folder.path(), self.runs_as);
        };
        // Root enters, and is somebody else then.
        let mut command = as_user(enter, self.folder.path(), None);
        command.args(arguments);
        if let Some((user, group)) = self.runs_as {
            command.arg(format!("--setuid={user}")).arg(format!("--setgid={group}"));
        }
        command.arg(program);
        command
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        let _ = self.watcher.wait();
    }
}

impl Database {
    /// For `store.url`.
    pub fn url(&self) -> String {
        self.url_through(self.port)
    }

    /// The same database by another port, such as that of a proxy.
    pub fn url_through(&self, port: u16) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{port}/{}", self.name)
    }

    /// Rows of columns as text; NULL is empty. Uses psql and not the code under test.
    #[track_caller]
    pub fn query(&self, sql: &str) -> Vec<Vec<String>> {
        let output = self.psql(sql);
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| line.split('\x1f').map(str::to_owned).collect()).collect()
    }

    /// The only column of the only row.
    #[track_caller]
    pub fn one(&self, sql: &str) -> String {
        let mut rows = self.query(sql);
        assert!(rows.len() == 1 && rows[0].len() == 1, "{sql}: {rows:?}");
        rows.remove(0).remove(0)
    }

    /// A count.
    #[track_caller]
    pub fn count(&self, sql: &str) -> i64 {
        self.one(sql).parse().unwrap_or_else(|_| panic!("no number: {sql}"))
    }

    /// Executes statements, each in a transaction of its own.
    #[track_caller]
    pub fn execute(&self, sql: &str) {
        self.query(sql);
    }

    /// As [`Database::execute`], where that may fail or be broken off; tells whether it was done.
    pub fn try_execute(&self, sql: &str) -> bool {
        self.psql(sql).status.success()
    }

    /// Whether it answers at all.
    pub fn answers(&self) -> bool {
        self.try_execute("SELECT 1")
    }

    fn psql(&self, sql: &str) -> Output {
        let mut psql = Command::new(&self.psql);
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-F",
            "\x1f",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            USER,
            "-d",
            &self.name,
        ]);
        psql.arg("-h").arg(&self.socket).arg("-p").arg(self.port.to_string()).arg("-c").arg(sql);
        run(psql)
    }
}

/// The folder of the server's binaries; Debian puts them into no PATH.
fn binaries() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).filter_map(|folder| {
        // A link to where its siblings are.
        Some(fs::canonicalize(folder.join("postgres")).ok()?.parent()?.to_owned())
    });
    let mut of_debian: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|versions| versions.flatten().map(|version| version.path().join("bin")).collect())
        .unwrap_or_default();
    of_debian.sort();
    let complete = |folder: &PathBuf| {
        ["postgres", "initdb", "pg_ctl", "psql", "pg_basebackup"]
            .iter()
            .all(|name| folder.join(name).exists())
    };
    in_path.chain(of_debian.into_iter().rev()).find(complete)
}

/// User and group of `postgres`, else of `nobody`.
fn unprivileged() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let find = |name: &str| {
        users.lines().find_map(|line| {
            let mut fields = line.strip_prefix(name)?.strip_prefix(':')?.split(':').skip(1);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        })
    };
    find("postgres").or_else(|| find("nobody")).expect("there is a user postgres or nobody")
}

fn as_user(program: impl AsRef<std::ffi::OsStr>, folder: &Path, runs_as: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    // Where we are may be closed to somebody else.
    command.current_dir(folder);
    if let Some((user, group)) = runs_as {
        command.gid(group).uid(user);
    }
    command
}

/// Starts what stops the server and removes its folder when this process ends, were it by `kill -9`.
fn watch(binaries: &Path, folder: &Path, runs_as: Option<(u32, u32)>) -> Child {
    let script = r#"trap '' INT TERM HUP; read -r _; "$0" stop -m immediate -w -D "$1/data"; rm -rf "$1""#;
    let mut command = as_user("sh", Path::new("/"), runs_as);
    command.args(["-c", script]).arg(binaries.join("pg_ctl")).arg(folder);
    // A terminal's Ctrl-C goes to the whole group.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn free_port() -> u16 {
    std::iter::repeat_with(|| fastrand::u16(PORTS))
        .take(1000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a port is free")
}

#[track_caller]
fn succeed(command: Command) {
    let text = format!("{command:?}");
    let output = run(command);
    assert!(output.status.success(), "{text}: {output:?}");
}

/// Runs a command that starts servers: those keep its outputs open, so they go to files and not through pipes.
fn run(mut command: Command) -> Output {
    let (out, err) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    command.stdin(Stdio::null()).stdout(out.reopen().unwrap()).stderr(err.reopen().unwrap());
    let status = command.status().unwrap();
    Output { status, stdout: fs::read(out.path()).unwrap(), stderr: fs::read(err.path()).unwrap() }
}
