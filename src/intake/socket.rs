//! The listening socket.
//!
//! Uses a socket passed by systemd as it is, and leaves its file to systemd. Otherwise creates the file with the
//! configured mode, and creates it again if it was removed. Guarantees to replace the socket of a dead daemon, but
//! never that of a live one. Must not know what is sent over the connections.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::fault::fault_point;
use crate::paths::{self, FileId, PathError};
use crate::trouble::Trouble;

/// The most connections that wait to be accepted; the kernel lowers it to net.core.somaxconn.
const BACKLOG: i32 = 1024;

/// How often the file at the socket's path is compared with the socket.
const LOOK: Duration = Duration::from_secs(2);

/// Why the daemon can't listen at the socket.
#[derive(Debug, Error)]
pub enum SocketError {
    #[error("another daemon listens at {0}: stop it first, or give this one another `intake.socket`")]
    Live(PathBuf),
    #[error("another daemon is starting at {0}: stop it first, or give this one another `intake.socket`")]
    Starting(PathBuf),
    #[error("{0} exists and is not a socket; it was left as it is. Give another `intake.socket`")]
    NotASocket(PathBuf),
    #[error(
        "{0} is not pinwatch's lock file, because it is not empty; it was left as it is. Move it away, or give another `intake.socket`"
    )]
    NotALock(PathBuf),
    #[error("{0}. This is about `intake.socket`")]
    Path(#[from] PathError),
    #[error("the socket that was passed (LISTEN_FDS) can't be used: {0}. Check the .socket unit")]
    Passed(String),
    #[error("can't {doing} {path}: {source}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

/// A listening socket. On drop it removes its file, if it created the file and the file is still its own.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    /// The socket's file, if it has one.
    file: Option<SocketFile>,
    look: Interval,
    trouble: watch::Sender<Option<Trouble>>,
}

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    id: FileId,
    /// The permission bits; `None` for a passed socket, whose file is never changed.
    made_with: Option<u32>,
}

/// A socket that systemd opened before the daemon started and keeps open after it ends.
#[derive(Debug)]
pub struct InheritedSocket(StdListener);

impl From<StdListener> for InheritedSocket {
    fn from(listener: StdListener) -> Self {
        Self(listener)
    }
}

impl InheritedSocket {
    /// Returns the path at which it listens, if it has one.
    pub fn path(&self) -> Option<PathBuf> {
        self.0.local_addr().ok()?.as_pathname().map(Path::to_owned)
    }
}

impl Socket {
    /// Uses a passed socket as it is. Must be called within a tokio runtime.
    pub fn adopt(passed: InheritedSocket) -> Result<Self, SocketError> {
        // A path that does not exist here may exist for clients, under another root directory.
        let file = passed.path().and_then(|path| {
            let id = FileId::at(&path).ok().flatten()?;
            Some(SocketFile { path, id, made_with: None })
        });
        let InheritedSocket(listener) = passed;
        let adopted = listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener));
        let listener = adopted.map_err(|error| SocketError::Passed(error.to_string()))?;
        Ok(Self::new(listener, file))
    }

    /// Listens at `path` with the permission bits `mode`.
    pub async fn bind(path: &Path, mode: u32) -> Result<Self, SocketError> {
        let (listener, id) = bind(path, mode).await?;
        let file = SocketFile { path: path.to_owned(), id, made_with: Some(mode) };
        Ok(Self::new(listener, Some(file)))
    }

    fn new(listener: UnixListener, file: Option<SocketFile>) -> Self {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { listener, file, look, trouble: watch::Sender::new(None) }
    }

    /// Watches why clients can't reach the socket; `None` while they can.
    pub fn trouble(&self) -> watch::Receiver<Option<Trouble>> {
        self.trouble.subscribe()
    }

    /// Waits for the next connection, and checks the socket's file every 2 s meanwhile.
    pub async fn accept(&mut self) -> io::Result<UnixStream> {
        loop {
            tokio::select! {
                // In this order: a listener is replaced only when it has no waiting connection.
                biased;
                accepted = self.listener.accept() => return accepted.map(|(stream, _)| stream),
                _ = self.look.tick() => self.look_at_file().await,
            }
        }
    }

    /// Creates the daemon's own file again if it is gone, and reports any other problem.
    async fn look_at_file(&mut self) {
        let Some(SocketFile { path, id, made_with }) = &mut self.file else { return };
        let found = FileId::at(path);
        let wrong = match (&found, *made_with) {
            (Ok(Some(found)), _) if found == id => None,
            (_, Some(mode)) => match bind(path, mode).await {
                Ok((listener, new)) => {
                    (self.listener, *id) = (listener, new);
                    warn!(path = %path.display(), "the socket's file was removed or replaced; it was created again");
                    None
                }
                Err(error) => {
                    Some(format!("its file was removed or replaced, and can't be created again: {error}"))
                }
            },
            (found, None) => {
                let path = path.display();
                let how = match found {
                    Ok(None) => format!("{path} was removed"),
                    Ok(Some(_)) => format!("there is another file at {path} now"),
                    Err(error) => format!("can't look at {path}: {error}"),
                };
                Some(format!(
                    "{how}: restart what passed the socket (systemctl restart pinwatch.socket pinwatch.service)"
                ))
            }
        };
        self.report(wrong);
    }

    /// Stores the present problem, and logs it when it changes.
    fn report(&self, wrong: Option<String>) {
        let is_new = self.trouble.send_if_modified(|trouble| Trouble::note(trouble, wrong.as_deref()));
        match wrong {
            _ if !is_new => {}
            None => info!("clients reach the socket again"),
            Some(wrong) => error!(error = %wrong, "clients don't reach the socket"),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(SocketFile { path, id, made_with: Some(_) }) = &self.file
            && FileId::at(path).is_ok_and(|found| found == Some(*id))
            && let Err(error) = fs::remove_file(path)
        {
            warn!(%error, path = %path.display(), "the socket's file could not be removed");
        }
    }
}

/// The lock that one daemon at a time holds while it creates the socket's file. Its lock file is removed afterwards.
struct Turn {
    path: PathBuf,
    _lock: fs::File,
}

impl Turn {
    async fn take(socket: &Path) -> Result<Self, SocketError> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let lock = paths::take_lock_file(&path).await?;
        let lock = lock.ok_or_else(|| SocketError::Starting(socket.to_owned()))?;
        let length = lock.metadata().map(|lock| lock.len());
        match length {
            Ok(0) => {}
            Ok(_) => return Err(SocketError::NotALock(path)),
            Err(source) => return Err(SocketError::Io { doing: "read", path, source }),
        }
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // A lock file that can't be removed does no harm: the next daemon locks it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Creates the socket's file and listens at it.
async fn bind(path: &Path, mode: u32) -> Result<(UnixListener, FileId), SocketError> {
    let folder = paths::folder_of(path);
    // Everybody may enter the folder; the socket's own mode decides who may use it.
    paths::make_folder(folder, 0o755)?;
    paths::check_folder(folder)?;
    let _turn = Turn::take(path).await?;
    remove_stale(path).await?;
    let made = listen(path, mode).and_then(|listener| {
        let id = FileId::at(path)?.ok_or(io::ErrorKind::NotFound)?;
        Ok((UnixListener::from_std(listener)?, id))
    });
    made.map_err(|source| SocketError::Io { doing: "listen at", path: path.to_owned(), source })
}

/// Binds under the final name, because systemd-tmpfiles removes a socket whose path the kernel does not list as
/// listening, and a rename does not change the kernel's entry.
fn listen(path: &Path, mode: u32) -> io::Result<StdListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The kernel creates the file with the socket's mode, less the umask, so it is never more accessible than `mode`.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(mode))?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    fault_point!("socket-bound");
    let listening = fs::set_permissions(path, Permissions::from_mode(mode))
        .and_then(|()| Ok(rustix::net::listen(&socket, BACKLOG)?));
    if let Err(error) = listening {
        let _ = fs::remove_file(path);
        return Err(error);
    }
    Ok(socket.into())
}

/// Removes a socket at which nobody listens any more.
async fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let Ok(file) = fs::symlink_metadata(path) else { return Ok(()) };
    if !file.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path).await {
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
        // WouldBlock means that somebody listens and the queue of waiting connections is full.
        Ok(_) => Err(SocketError::Live(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(SocketError::Live(path.to_owned())),
        Err(source) => Err(SocketError::Io { doing: "ask who listens at", path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_never() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/pinwatch.sock");
        drop(StdListener::bind(folder.path().join("stale")).unwrap());
        let stale = Socket::bind(&folder.path().join("stale"), 0o600).await.unwrap();
        assert!(UnixStream::connect(folder.path().join("stale")).is_ok());
        drop(stale);

        let live = Socket::bind(&path, 0o640).await.unwrap();
        assert_eq!(mode(&path), 0o640);
        assert!(matches!(Socket::bind(&path, 0o640).await, Err(SocketError::Live(_))));
        drop(live);
        assert!(fs::read_dir(path.parent().unwrap()).unwrap().next().is_none(), "something is left");
    }

    #[test]
    fn only_one_of_several_daemons_that_start_at_once_gets_the_socket() {
        for stale in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("pinwatch.sock");
            if stale {
                drop(StdListener::bind(&path).unwrap());
            }
            let starts = (0..8).map(|_| {
                let path = path.clone();
                // Separate threads and runtimes, as separate processes would have.
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    let bound = runtime.block_on(Socket::bind(&path, 0o600));
                    (bound, runtime)
                })
            });
            let starts: Vec<_> = starts.collect();
            let ends: Vec<_> = starts.into_iter().map(|start| start.join().unwrap()).collect();
            let (bound, refused): (Vec<_>, Vec<_>) = ends.iter().partition(|(bound, _)| bound.is_ok());
            assert_eq!(bound.len(), 1);
            for (refused, _) in refused {
                let refused = refused.as_ref().unwrap_err();
                assert!(matches!(refused, SocketError::Live(_) | SocketError::Starting(_)), "{refused}");
            }
            assert!(UnixStream::connect(&path).is_ok());
        }
    }

    #[tokio::test]
    async fn a_daemon_does_not_touch_the_socket_while_another_one_is_making_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pinwatch.sock");
        drop(StdListener::bind(&path).unwrap());
        let before = FileId::at(&path).unwrap();
        let turn = Turn::take(&path).await.unwrap();
        assert!(matches!(Socket::bind(&path, 0o600).await, Err(SocketError::Starting(_))));
        assert_eq!(FileId::at(&path).unwrap(), before);
        drop(turn);
        assert!(Socket::bind(&path, 0o600).await.is_ok());
    }

    #[tokio::test]
    async fn a_file_with_the_name_of_the_lock_file_that_is_not_pinwatchs_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let notes = folder.path().join("s.lock");
        fs::write(&notes, "my notes").unwrap();
        let refused = Socket::bind(&folder.path().join("s"), 0o600).await.unwrap_err();
        assert!(matches!(refused, SocketError::NotALock(_)), "{refused}");
        assert_eq!(fs::read_to_string(&notes).unwrap(), "my notes");
    }

    #[tokio::test]
    async fn a_folder_of_another_user_and_one_that_others_can_write_to_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pinwatch.sock");
        for (mode, refused) in [(0o777, true), (0o770, true), (0o755, false), (0o1777, false)] {
            fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
            let bound = Socket::bind(&path, 0o600).await;
            let is_refused = matches!(bound, Err(SocketError::Path(PathError::OpenFolder { .. })));
            assert_eq!(is_refused, refused, "{mode:o}: {bound:?}");
        }
        // Only root can give a folder to another user, so the rest needs root.
        if std::os::unix::fs::chown(folder.path(), Some(4242), None).is_err() {
            return eprintln!("SKIPPED: only root can give a folder to another user");
        }
        let refused = Socket::bind(&path, 0o600).await;
        let expected =
            matches!(refused, Err(SocketError::Path(PathError::FolderOfOthers { owner: 4242, .. })));
        assert!(expected, "{refused:?}");
    }

    /// Returns the socket's trouble once `is_so` holds. The socket checks its file only while `accept` is awaited.
    async fn noticed(socket: &mut Socket, is_so: impl FnMut(&Option<Trouble>) -> bool) -> Option<Trouble> {
        let mut trouble = socket.trouble();
        tokio::select! {
            _ = socket.accept() => unreachable!("nobody connects"),
            trouble = trouble.wait_for(is_so) => trouble.unwrap().clone(),
            () = tokio::time::sleep(Duration::from_secs(120)) => panic!("it does not notice"),
        }
    }

    #[tokio::test]
    async fn a_passed_socket_is_used_and_its_file_is_neither_removed_nor_recreated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passed.sock");
        let passed = InheritedSocket(StdListener::bind(&path).unwrap());
        assert_eq!(passed.path().as_deref(), Some(path.as_path()));
        let mut socket = Socket::adopt(passed).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        assert!(socket.accept().await.is_ok());
        assert!(socket.trouble().borrow().is_none());
        let away = folder.path().join("away");
        fs::rename(&path, &away).unwrap();
        let trouble = noticed(&mut socket, |trouble| trouble.is_some()).await.unwrap();
        assert!(trouble.what.contains("was removed"), "{}", trouble.what);
        assert!(!path.exists());
        fs::rename(&away, &path).unwrap();
        assert!(noticed(&mut socket, |trouble| trouble.is_none()).await.is_none());
        drop((client, socket));
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_not_a_socket_is_left_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        fs::write(&path, "mine").unwrap();
        assert!(matches!(Socket::bind(&path, 0o600).await, Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}
