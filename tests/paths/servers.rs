//! Which servers clients trust as the daemon.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::skipped;
use crate::support::{Daemon, Place, Simulated};

const SERVICE: u32 = 4242;
const MALLORY: u32 = 6666;
const ALICE: u32 = 7777;

/// A place where several users have their files: `run`, to which only root can write, and `tmp`.
struct Machine {
    folder: TempDir,
    program: PathBuf,
    api: Simulated,
}

impl Machine {
    /// Prints a message and returns `None` if this process can't be several users.
    fn new() -> Option<Self> {
        let has_setpriv = Command::new("setpriv").arg("--version").stdout(Stdio::null()).status().is_ok();
        if !rustix::process::geteuid().is_root() || !has_setpriv {
            skipped("only root with setpriv can be several users");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let open = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        open(folder.path(), 0o755);
        for (name, mode) in [("run", 0o755), ("tmp", 0o1777)] {
            fs::create_dir(folder.path().join(name)).unwrap();
            open(&folder.path().join(name), mode);
        }
        // The build's folder may be root's alone. Copied by another process, see `tests/start/personal.rs`.
        let program = folder.path().join("pinwatch");
        let copy = Command::new("install")
            .args(["-m", "755", env!("CARGO_BIN_EXE_pinwatch")])
            .arg(&program)
            .status();
        assert!(copy.unwrap().success());
        Some(Self { folder, program, api: Simulated::start() })
    }

    /// A folder of a user, below `run` or `tmp`.
    fn folder(&self, name: &str, owner: u32) -> PathBuf {
        let folder = self.folder.path().join(name);
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        chown(&folder, Some(owner), Some(owner)).unwrap();
        folder
    }

    fn command(&self, user: u32) -> Command {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()]);
        command.arg(&self.program).current_dir("/");
        command
    }

    /// A daemon of this user with everything in this folder, open to everybody.
    fn daemon(&self, user: u32, folder: &Path) -> Daemon {
        let config = folder.join("pinwatch.toml");
        let text = format!(
            "[api]\nbase_url = {:?}\nkey = \"demo-key\"\n[intake]\nsocket = \"{folder}/pinwatch.sock\"\nmode = \"0666\"\n\
             [store]\nurl = \"sqlite:{folder}/state/pinwatch.db\"\n",
            self.api.base_url(),
            folder = folder.display(),
        );
        fs::write(&config, text).unwrap();
        let mut command = self.command(user);
        command.arg("--config").arg(config).arg("run");
        let socket = folder.join("pinwatch.sock");
        Place::new(&self.api.base_url()).set("intake.socket", socket.to_str().unwrap()).start_by(command)
    }

    fn submit(&self, user: u32, socket: &Path) -> Output {
        self.command(user).args(["submit", "sim-waiting-1", "--socket"]).arg(socket).output().unwrap()
    }
}

#[track_caller]
fn assert_taken(output: &Output) {
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("accepted"), "{output:?}");
}

#[test]
fn no_pin_is_sent_to_a_user_who_created_the_folder_of_the_socket_first() {
    let Some(machine) = Machine::new() else { return };
    let planted = machine.folder("tmp/pinwatch-7777", MALLORY);
    let daemon = machine.daemon(MALLORY, &planted);
    for (user, socket) in
        [(ALICE, planted.join("pinwatch.sock")), (0, planted.join("../pinwatch-7777/pinwatch.sock"))]
    {
        let output = machine.submit(user, &socket);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("belongs to user 6666") && said.contains("nothing was sent"), "{said}");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(printed.starts_with(r#"{"ok":false,"error":"#) && printed.lines().count() == 1, "{printed}");
    }
    assert_eq!(daemon.client().stats()["inFlight"], 0);
    // Not through a link to a folder that root made for another user either.
    let service = machine.folder("run/service", MALLORY);
    let other = machine.daemon(MALLORY, &service);
    let link = machine.folder.path().join("tmp/pinwatch-0");
    std::os::unix::fs::symlink(&service, &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(MALLORY), None).unwrap();
    assert_eq!(machine.submit(ALICE, &link.join("pinwatch.sock")).status.code(), Some(1));
    assert_eq!(other.client().stats()["inFlight"], 0);
    // Its own user may use it.
    assert_taken(&machine.submit(MALLORY, &planted.join("pinwatch.sock")));
}

#[test]
fn clients_trust_a_service_users_daemon_in_a_folder_made_by_root() {
    let Some(machine) = Machine::new() else { return };
    let folder = machine.folder("run/pinwatch", SERVICE);
    let _daemon = machine.daemon(SERVICE, &folder);
    assert_taken(&machine.submit(ALICE, &folder.join("pinwatch.sock")));
    let output = machine.submit(0, &folder.join("pinwatch.sock"));
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_daemon_does_not_start_in_a_folder_that_another_user_created_first() {
    let Some(machine) = Machine::new() else { return };
    let planted = machine.folder("tmp/pinwatch-7777", MALLORY);
    let home = machine.folder("run/alice", ALICE);
    let settings = |socket: &Path, database: &Path| {
        [format!("intake.socket={}", socket.display()), format!("store.url=sqlite:{}", database.display())]
    };
    let cases = [
        settings(&planted.join("pinwatch.sock"), &home.join("pinwatch.db")),
        settings(&home.join("pinwatch.sock"), &planted.join("pinwatch.db")),
    ];
    for [socket, store] in cases {
        let mut command = machine.command(ALICE);
        command.args(["run", "--set", "api.base_url=http://127.0.0.1:9", "--set", &socket, "--set", &store]);
        let output = command.env("PINWATCH__API__KEY", "k").env("HOME", &home).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("belongs to user 6666"), "{said}");
        assert!(fs::read_dir(&planted).unwrap().next().is_none(), "something was made there");
    }
    // A file that another user put beside the database is not used as a part of it.
    let shared = machine.folder.path().join("tmp");
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let planted = shared.join(format!("pinwatch.db{suffix}"));
        fs::write(&planted, "").unwrap();
        chown(&planted, Some(MALLORY), None).unwrap();
        fs::set_permissions(&planted, Permissions::from_mode(0o666)).unwrap();
        let [socket, store] = settings(&home.join("pinwatch.sock"), &shared.join("pinwatch.db"));
        let mut command = machine.command(ALICE);
        command.args(["run", "--set", "api.base_url=http://127.0.0.1:9", "--set", &socket, "--set", &store]);
        let output = command.env("PINWATCH__API__KEY", "k").env("HOME", &home).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{suffix}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("belongs to user 6666"), "{suffix}: {said}");
        fs::remove_file(&planted).unwrap();
        let _ = fs::remove_file(shared.join("pinwatch.db.lock"));
    }
}
