//! A real small disk: a tmpfs with a size, in a mount namespace of its own that a child keeps alive.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::not_run::not_run;
use super::{until, wrapped};

pub struct SmallDisk {
    holder: Child,
    mounted_at: PathBuf,
}

impl SmallDisk {
    /// Mounts a disk of this many bytes at a folder, for processes started [within](Self::within). `None`,
    /// with a message, if this process may not mount. CI must be able to.
    pub fn mount(at: &Path, bytes: u64) -> Option<Self> {
        let may = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "tmpfs"]).arg(at).output();
        if !may.as_ref().is_ok_and(|output| output.status.success()) {
            not_run("a full disk", "root, to mount a tmpfs of its own");
            return None;
        }
        let script =
            format!(r#"mount -t tmpfs -o size={bytes} tmpfs "$0" && touch "$0/mounted" && exec sleep 3600"#);
        let mut holder = Command::new("unshare")
            .args(["-m", "sh", "-c", &script])
            .arg(at)
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare was there just now");
        let marker = inside(&holder, at).join("mounted");
        until("the small disk is mounted", || {
            assert!(holder.try_wait().expect("a child can be waited for").is_none(), "it can't be mounted");
            marker.exists().then_some(())
        });
        Some(Self { holder, mounted_at: at.to_owned() })
    }

    /// The command before another one, for which the small disk is mounted.
    pub fn entrance(&self) -> Vec<OsString> {
        vec!["nsenter".into(), format!("--mount=/proc/{}/ns/mnt", self.holder.id()).into()]
    }

    /// The same command, for which the small disk is mounted.
    pub fn within(&self, command: &Command) -> Command {
        let mut entrance = self.entrance().into_iter();
        let mut enter = Command::new(entrance.next().expect("it is a command"));
        enter.args(entrance);
        wrapped(enter, command)
    }

    /// The path from outside of what processes within see at `path`.
    pub fn path(&self, path: &Path) -> PathBuf {
        inside(&self.holder, path)
    }

    fn filler(&self) -> PathBuf {
        self.path(&self.mounted_at).join("filler")
    }

    /// Fills it to the last byte.
    pub fn fill(&self) {
        let mut filler = File::options().create(true).append(true).open(self.filler()).expect("it has room");
        for size in [64 * 1024, 1] {
            let piece = vec![b'x'; size];
            loop {
                match filler.write(&piece) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    /// Makes room again.
    pub fn free(&self) {
        fs::remove_file(self.filler()).expect("the filler is there");
    }
}

fn inside(holder: &Child, path: &Path) -> PathBuf {
    let path = path.strip_prefix("/").expect("paths in tests are absolute");
    Path::new("/proc").join(holder.id().to_string()).join("root").join(path)
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The namespace ends with the last process in it, and the disk with the namespace.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
