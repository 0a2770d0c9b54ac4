//! Checks where systemd lets the daemon write: file modes don't show `ProtectSystem=`, `ProtectHome=` and `PrivateTmp=`, and a
//! check by root doesn't notice them.
//!
//! Looks through the mounts of the running daemon (`/proc/PID/root`), so it repeats none of systemd's rules. Promises silence
//! where it can't know: without systemd, without a running daemon, or without permission. Must not know what the daemon writes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{StatVfsMountFlags, statvfs};

const UNIT: &str = "pinwatch.service";

/// The file system as the running daemon sees it.
#[derive(Debug)]
pub struct Sandbox {
    root: PathBuf,
}

impl Sandbox {
    /// Finds the daemon of the packaged unit; `None` if its file system can't be examined.
    pub fn of_unit() -> Option<Self> {
        // systemctl answers within milliseconds or hangs, hence the time limit.
        let mut command = Command::new("timeout");
        command.args(["5", "systemctl", "show", UNIT, "--property", "MainPID", "--value"]);
        let shown = String::from_utf8(command.output().ok()?.stdout).ok()?;
        Self::of(shown.trim().parse().ok()?)
    }

    fn of(pid: u32) -> Option<Self> {
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        fs::metadata(&root).is_ok().then_some(Self { root })
    }

    /// Says why the daemon can't write this file, and what to do; `None` if its sandbox allows it.
    pub fn refusal(&self, file: &Path) -> Option<String> {
        let folder = file.parent()?;
        // A missing folder would be created in the nearest existing one.
        let ours = folder.ancestors().find_map(|folder| fs::canonicalize(folder).ok())?;
        let theirs = self.root.join(ours.strip_prefix("/").ok()?);
        let identity = |folder: &Path| fs::metadata(folder).ok().map(|found| (found.dev(), found.ino()));
        let is_read_only = |folder: &Path| {
            statvfs(folder).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
        };
        let (file, folder) = (file.display(), folder.display());
        if identity(&theirs) != identity(&ours) {
            return Some(format!(
                "can't write {file} as {UNIT} is: its sandbox hides that folder. Choose another, such as one below /srv"
            ));
        }
        (is_read_only(&theirs) && !is_read_only(&ours)).then(|| {
            format!(
                "can't write {file} as {UNIT} is: its sandbox makes that folder read-only. systemctl edit pinwatch, write \
                 there [Service] and below it ReadWritePaths={folder}, then systemctl restart pinwatch"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::Stdio;

    use super::*;

    /// Makes the first folder read-only and hides the second, only for this process, until its input ends.
    const CLOSE: &str = "mount --bind $0 $0 && mount -o remount,bind,ro $0 && mount -t tmpfs none $1 && echo closed && read _";

    #[test]
    fn doctor_sees_read_only_folders_through_the_daemons_own_mounts() {
        let folder = tempfile::tempdir().unwrap();
        let [read_only, hidden, open] = ["read-only", "hidden", "open"].map(|name| folder.path().join(name));
        for folder in [&read_only, &hidden, &open] {
            fs::create_dir(folder).unwrap();
        }
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", CLOSE]).args([&read_only, &hidden]);
        let mut daemon = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(daemon.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        if line.is_empty() {
            // Not by eprintln, because the test harness captures that.
            std::io::stderr().write_all(b"\nNOT TESTED: the sandbox: needs mount namespaces\n").unwrap();
            daemon.wait().unwrap();
            return;
        }
        let sandbox = Sandbox::of(daemon.id()).unwrap();
        let refusal =
            |folder: &Path| sandbox.refusal(&folder.join("missing/outcomes.jsonl")).unwrap_or_default();
        let advice = format!("ReadWritePaths={}/missing, then systemctl restart", read_only.display());
        assert!(refusal(&read_only).contains(&advice), "{}", refusal(&read_only));
        assert!(refusal(&hidden).contains("hides that folder"), "{}", refusal(&hidden));
        assert_eq!(refusal(&open), "");
        drop(daemon.stdin.take());
        daemon.wait().unwrap();
        assert!(Sandbox::of(daemon.id()).is_none(), "a daemon that ended shows nothing");
    }
}
