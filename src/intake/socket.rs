//! The socket: systemd's, if it passes one, and left to it; else a file of our own, made with its mode, taken
//! over from a dead daemon, never from a live one.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use thiserror::Error;
use tokio::net::UnixListener;
use tracing::warn;

/// Why the socket can't be listened at.
#[derive(Debug, Error)]
pub enum SocketError {
    #[error("another daemon listens at {0}: stop it first, or give this one another `intake.socket`")]
    Live(PathBuf),
    #[error("{0} exists and is not a socket; it was left as it is. Give another `intake.socket`")]
    NotASocket(PathBuf),
    #[error(
        "the folder {path} belongs to user {owner}, who could put another socket in the place of this one: make it \
         yours, or give another `intake.socket`"
    )]
    FolderOfOthers { path: PathBuf, owner: u32 },
    #[error("the socket that was passed (LISTEN_FDS) can't be used: {0}. Check the .socket unit")]
    Passed(String),
    #[error("can't {doing} {path}: {source}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

/// A listening socket that removes its file when it is dropped, if it made it and the file is still its own.
#[derive(Debug)]
pub struct Socket {
    pub listener: UnixListener,
    /// What it made: the path and the inode.
    own: Option<(PathBuf, u64)>,
}

/// A socket that systemd listened at before us, and will after us.
#[derive(Debug)]
pub struct Passed(std::os::unix::net::UnixListener);

impl Passed {
    /// Takes it from the environment, if there is one. To be called before there are threads: it takes the
    /// variables out of the environment.
    ///
    /// # Errors
    /// What was passed is not one listening Unix socket.
    pub fn take() -> Result<Option<Self>, SocketError> {
        let mut passed = ListenFd::from_env();
        if passed.len() > 1 {
            return Err(SocketError::Passed(format!(
                "{} sockets were passed, and one is used",
                passed.len()
            )));
        }
        let listener = passed.take_unix_listener(0);
        Ok(listener.map_err(|error| SocketError::Passed(error.to_string()))?.map(Self))
    }

    /// Where it listens, as far as that has a name.
    pub fn path(&self) -> Option<PathBuf> {
        self.0.local_addr().ok()?.as_pathname().map(Path::to_owned)
    }
}

impl Socket {
    /// Uses a socket that was passed, as it is. Must be called within a tokio runtime.
    pub fn adopt(Passed(listener): Passed) -> Result<Self, SocketError> {
        let adopted = listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener));
        let listener = adopted.map_err(|error| SocketError::Passed(error.to_string()))?;
        Ok(Self { listener, own: None })
    }

    /// Listens at `path` with the permission bits `mode`. Must be called within a tokio runtime.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, SocketError> {
        let io = |doing| move |source| SocketError::Io { doing, path: path.to_owned(), source };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            // For everybody to pass: the socket's own mode says who may use it.
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(folder);
            made.map_err(|source| SocketError::Io {
                doing: "make the folder",
                path: folder.to_owned(),
                source,
            })?;
        }
        refuse_folder_of_others(path)?;
        remove_stale(path)?;
        // Bound under another name and renamed when its mode is right: at no moment is it open to more than
        // it should be, and nobody finds a socket that is not listened at.
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}", std::process::id()));
        let temporary = PathBuf::from(temporary);
        let _ = fs::remove_file(&temporary);
        let listener = std::os::unix::net::UnixListener::bind(&temporary).map_err(io("listen at"))?;
        let placed = (|| {
            fs::set_permissions(&temporary, fs::Permissions::from_mode(mode))?;
            fs::rename(&temporary, path)?;
            listener.set_nonblocking(true)?;
            Ok((fs::symlink_metadata(path)?.ino(), UnixListener::from_std(listener)?))
        })();
        let (inode, listener) = placed.map_err(|source| {
            let _ = fs::remove_file(&temporary);
            io("listen at")(source)
        })?;
        Ok(Self { listener, own: Some((path.to_owned(), inode)) })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some((path, inode)) = &self.own
            && fs::symlink_metadata(path).is_ok_and(|file| file.ino() == *inode)
            && let Err(error) = fs::remove_file(path)
        {
            warn!(%error, path = %path.display(), "the socket's file could not be removed");
        }
    }
}

/// Whoever owns the folder can swap the socket, and read every PIN: without `$XDG_RUNTIME_DIR` the folder is one
/// in /tmp whose name anybody can foresee and take.
fn refuse_folder_of_others(path: &Path) -> Result<(), SocketError> {
    let Some(folder) = path.parent() else { return Ok(()) };
    let Ok(metadata) = fs::metadata(folder) else { return Ok(()) };
    let owner = metadata.uid();
    if owner == 0 || owner == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(SocketError::FolderOfOthers { path: folder.to_owned(), owner })
}

/// Removes a socket that nobody listens at any more.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let Ok(file) = fs::symlink_metadata(path) else { return Ok(()) };
    if !file.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(SocketError::Io {
                    doing: "remove the stale socket",
                    path: path.to_owned(),
                    source: error,
                }),
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(SocketError::Io { doing: "ask who listens at", path: path.to_owned(), source }),
        Ok(_) => Err(SocketError::Live(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_taken_over_and_a_live_one_never() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/pinwatch.sock");
        drop(std::os::unix::net::UnixListener::bind(folder.path().join("stale")).unwrap());
        let stale = Socket::bind(&folder.path().join("stale"), 0o600).unwrap();
        assert!(UnixStream::connect(folder.path().join("stale")).is_ok());
        drop(stale);

        let live = Socket::bind(&path, 0o640).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(matches!(Socket::bind(&path, 0o640), Err(SocketError::Live(_))));
        drop(live);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_folder_of_another_user_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        // Only root can give a folder away; anybody else has no way to make this case.
        if std::os::unix::fs::chown(folder.path(), Some(4242), None).is_err() {
            return eprintln!("SKIPPED: only root can give a folder to another user");
        }
        let refused = Socket::bind(&folder.path().join("pinwatch.sock"), 0o600);
        assert!(matches!(refused, Err(SocketError::FolderOfOthers { owner: 4242, .. })), "{refused:?}");
    }

    #[tokio::test]
    async fn a_socket_that_was_passed_is_used_and_its_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passed.sock");
        let passed = Passed(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert_eq!(passed.path().as_deref(), Some(path.as_path()));
        let socket = Socket::adopt(passed).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        assert!(socket.listener.accept().await.is_ok());
        drop((client, socket));
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        fs::write(&path, "mine").unwrap();
        assert!(matches!(Socket::bind(&path, 0o600), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}
