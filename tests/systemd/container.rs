//! A systemd in namespaces of its own, and commands in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::not_run::not_run;

/// No wait is longer; reached only by a bug.
const TIMEOUT: Duration = Duration::from_secs(90);

pub struct Container {
    unshare: Child,
    /// systemd's PID, as the machine sees it.
    pid: String,
    _root: TempDir,
}

/// Boots one; `None`, with a message, if this machine can't.
pub fn container() -> Option<Container> {
    booted(None)
}

/// Boots one with systemd 254; `None`, loudly, where this machine can't, or where it can't be had: the tests must not
/// depend on an archive that is elsewhere.
pub fn newer_container() -> Option<Container> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("newer-systemd");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systemd/newer.sh");
    let fetched = Command::new("timeout").arg("60").arg("sh").arg(script).arg(&folder).output();
    match fetched {
        Ok(output) if output.status.success() => booted(Some(&folder)),
        failed => {
            let why = failed.map_or_else(|error| error.to_string(), |output| text(&output));
            not_run(&format!("the service under systemd 254 ({why})"), "Debian's archive");
            None
        }
    }
}

/// The package that is tested.
pub fn deb() -> Option<PathBuf> {
    package_once().as_ref().ok().cloned()
}

fn package_once() -> &'static Result<PathBuf, String> {
    static DEB: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    DEB.get_or_init(package)
}

fn booted(systemd: Option<&Path>) -> Option<Container> {
    let booted = match package_once() {
        Ok(deb) => Container::boot(deb, systemd),
        Err(missing) => Err(missing.clone()),
    };
    match booted {
        Ok(container) => Some(container),
        Err(why) => {
            not_run("the Debian package and the service under systemd", &why);
            None
        }
    }
}

/// The package, built around the program under test.
fn package() -> Result<PathBuf, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("root".to_owned());
    }
    for tool in ["unshare", "nsenter", "/lib/systemd/systemd", "dpkg", "cargo-deb", "logrotate"] {
        let found = Command::new("sh").args(["-c", "command -v \"$0\" >/dev/null", tool]).status();
        if !found.is_ok_and(|status| status.success()) {
            return Err(format!("{tool} (see .ci/run)"));
        }
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("deb");
    let deb = folder.join("pinwatch.deb");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let built = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/build-deb.sh"))
        .env("PINWATCH_BINARY", env!("CARGO_BIN_EXE_pinwatch"))
        .args(["--fast", "--output"])
        .arg(&deb)
        .output()
        .map_err(|error| error.to_string())?;
    // What can't be built is no reason to skip.
    assert!(built.status.success(), "packaging/build-deb.sh: {}", text(&built));
    Ok(deb)
}

impl Container {
    /// `systemd`: a folder with the packages of another one than the machine's.
    fn boot(deb: &Path, systemd: Option<&Path>) -> Result<Self, String> {
        let root = TempDir::with_prefix_in("root", env!("CARGO_TARGET_TMPDIR"))
            .map_err(|error| error.to_string())?;
        let log = fs::File::create(root.path().with_extension("log")).map_err(|error| error.to_string())?;
        let unshare = Command::new("unshare")
            .args("--pid --mount --mount-proc --fork --uts --ipc --cgroup --net --kill-child bash".split(' '))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systemd/boot.sh"))
            .arg(root.path())
            .arg(deb)
            .args(systemd)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut container = Self { unshare, pid: String::new(), _root: root };
        let give_up = Instant::now() + TIMEOUT;
        while !container.is_up() {
            let log = || fs::read_to_string(container._root.path().with_extension("log")).unwrap_or_default();
            if container.unshare.try_wait().is_ok_and(|ended| ended.is_some()) {
                return Err(log());
            }
            assert!(Instant::now() < give_up, "systemd did not boot: {} {}", log(), container.journal());
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(container)
    }

    fn is_up(&mut self) -> bool {
        let unshare = self.unshare.id();
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"));
        self.pid = children.unwrap_or_default().trim().to_owned();
        let booted = fs::read_to_string(format!("/proc/{}/comm", self.pid));
        // What the machine has installed may fail in here, which is "degraded" and no matter.
        booted.is_ok_and(|name| name.trim() == "systemd")
            && matches!(text(&self.output("systemctl is-system-running")).trim(), "running" | "degraded")
    }

    /// Runs a script in it, bounded in time; `$DEB` is the package.
    fn output(&self, script: &str) -> Output {
        Command::new("timeout")
            .args([&TIMEOUT.as_secs().to_string(), "nsenter", "-t", &self.pid, "-a", "-r", "-w"])
            .args(["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"])
            .args(["DEBIAN_FRONTEND=noninteractive", "SYSTEMD_PAGER=cat", "HOME=/root"])
            .arg("DEB=/pinwatch.deb")
            .args(["sh", "-c", script])
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs a script that must succeed; gives what it printed.
    pub fn run(&self, script: &str) -> String {
        let output = self.output(script);
        assert!(output.status.success(), "{script}: {}\n{}", text(&output), self.journal());
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Runs a script that must fail; gives all that it printed.
    pub fn fails(&self, script: &str) -> String {
        let output = self.output(script);
        assert!(!output.status.success(), "it succeeded: {script}: {}\n{}", text(&output), self.journal());
        text(&output)
    }

    /// Runs a script again and again until what it prints is right.
    pub fn until(&self, script: &str, is_right: impl Fn(&str) -> bool) -> String {
        let give_up = Instant::now() + TIMEOUT;
        loop {
            let output = self.output(script);
            let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            if is_right(&printed) {
                return printed;
            }
            assert!(Instant::now() < give_up, "{script}: {}\n{}", text(&output), self.journal());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Adds to the service's unit.
    pub fn drop_in(&self, name: &str, unit: &str) {
        let folder = "/etc/systemd/system/pinwatch.service.d";
        self.run(&format!(
            "mkdir -p {folder} && printf '%s' '{unit}' > {folder}/{name}.conf && systemctl daemon-reload"
        ));
    }

    /// Installs the package where there is a key already, beside a simulated API.
    pub fn install_with_key(&self) {
        self.run("mkdir /etc/pinwatch && echo demo-key > /etc/pinwatch/api-key && chmod 0600 /etc/pinwatch/api-key");
        self.drop_in(
            "test",
            "[Service]\nEnvironment=PINWATCH__API__BASE_URL=http://127.0.0.1:8085\n\
             Environment=PINWATCH__SCHEDULE__INITIAL_INTERVAL=100ms\n\
             Environment=PINWATCH__LOG__LEVEL=info,pinwatch::schedule=debug\n",
        );
        self.run("dpkg -i $DEB");
        self.run("systemctl is-active pinwatch.socket");
        self.run("systemd-run --quiet --unit=api /usr/bin/pinwatch simulate");
    }

    fn journal(&self) -> String {
        text(&self.output(
            "journalctl --no-pager -n 60; systemctl status --no-pager pinwatch.socket pinwatch.service",
        ))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // --kill-child takes systemd with it, that all its processes, and they all the mounts.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        let _ = fs::remove_file(self._root.path().with_extension("log"));
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
