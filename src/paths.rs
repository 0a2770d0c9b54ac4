//! Examines paths: which file is there, and who could have put it there. Reads small files.
//!
//! Guarantees that a file opened here is a regular file, that its path did not end in a symbolic link, and that its
//! owner is trusted: this user, root or the owner of its folder. Must not know what the files are for.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::geteuid;
use secrecy::zeroize::Zeroizing;
use thiserror::Error;
use tokio::time::{Instant, sleep};

/// How long to wait for a lock that is taken. A child process that another thread is starting holds copies of all
/// open files until its exec, so a lock can briefly outlive its owner.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);

/// The most symbolic links followed on the way to one file; the same limit as Linux.
const MAX_LINKS: usize = 40;

const ROOT: u32 = 0;

/// Permission bits that let the group or everybody else write.
pub const OTHERS_WRITE: u32 = 0o022;

/// In a folder with this bit, only a file's owner and the folder's owner can rename and remove the file.
pub const STICKY: u32 = 0o1000;

/// Why a file, a folder or a socket is not used.
#[derive(Debug, Error)]
pub enum PathError {
    #[error("can't {doing} {path}: {source}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{0} is a symbolic link, which is not followed: give the path that it leads to")]
    Link(PathBuf),
    #[error("{0} is not a regular file; it was left as it is")]
    NotAFile(PathBuf),
    #[error(
        "{path} belongs to user {owner}, who could change it at any time: remove it, or change its owner"
    )]
    FileOfOthers { path: PathBuf, owner: u32 },
    #[error(
        "the folder {path} belongs to user {owner}, who could replace the files in it: chown it to the daemon's user"
    )]
    FolderOfOthers { path: PathBuf, owner: u32 },
    #[error(
        "others may write to the folder {path} (mode {mode:04o}), so they could replace the files in it: \
         \"chmod go-w {path}\", or use a folder of its own below it"
    )]
    OpenFolder { path: PathBuf, mode: u32 },
    #[error(
        "{path} belongs to user {owner}, and anybody could have put it there, because others may write to the folder \
         that it is in"
    )]
    Planted { path: PathBuf, owner: u32 },
    #[error(
        "the process that listens at {socket} belongs to user {user}, and neither to root, nor to you, nor to the \
         owner of the socket or of its folder"
    )]
    Server { socket: PathBuf, user: u32 },
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PathError + use<> {
    let path = path.to_owned();
    move |source| PathError::Io { doing, path, source }
}

/// Identifies a file on this machine, whatever its name. No other file has the same ID while this one exists or is
/// open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    dev: u64,
    ino: u64,
}

impl FileId {
    /// Returns the ID of the file with this metadata.
    pub fn of(metadata: &Metadata) -> Self {
        Self { dev: metadata.dev(), ino: metadata.ino() }
    }

    /// Returns the ID of the file at `path`; `None` if nothing is there. A symbolic link counts as a file of its own
    /// and is not followed.
    ///
    /// # Errors
    /// The path can't be looked up, for example because a permission is missing.
    pub fn at(path: &Path) -> io::Result<Option<Self>> {
        match fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(Self::of(&metadata))),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Creates a folder and its missing parents with this mode; leaves an existing folder as it is.
///
/// # Errors
/// The folder can't be created, or something else is there.
pub fn make_folder(folder: &Path, mode: u32) -> Result<(), PathError> {
    DirBuilder::new().recursive(true).mode(mode).create(folder).map_err(failed("make the folder", folder))
}

/// Checks that only root and this user can replace the files in a folder: one of them owns it, and nobody else can
/// write to it. Accepts a folder with the sticky bit, such as /tmp.
///
/// # Errors
/// Others can replace the files, or the folder can't be examined.
pub fn check_folder(folder: &Path) -> Result<(), PathError> {
    let metadata = fs::metadata(folder).map_err(failed("look at the folder", folder))?;
    let owner = metadata.uid();
    if ![ROOT, geteuid().as_raw()].contains(&owner) {
        return Err(PathError::FolderOfOthers { path: folder.to_owned(), owner });
    }
    check_mode(folder, &metadata)
}

/// As [`check_folder`], but root may use any user's folder; the files in it must then belong to that user or to root,
/// which [`open_own`] checks.
///
/// # Errors
/// As [`check_folder`].
pub fn check_folder_of_files(folder: &Path) -> Result<(), PathError> {
    if !geteuid().is_root() {
        return check_folder(folder);
    }
    check_mode(folder, &fs::metadata(folder).map_err(failed("look at the folder", folder))?)
}

fn check_mode(folder: &Path, metadata: &Metadata) -> Result<(), PathError> {
    if !others_write(metadata) || metadata.mode() & STICKY != 0 {
        return Ok(());
    }
    Err(PathError::OpenFolder { path: folder.to_owned(), mode: metadata.mode() & 0o7777 })
}

fn others_write(metadata: &Metadata) -> bool {
    metadata.mode() & OTHERS_WRITE != 0
}

/// Opens a file for reading and writing; `None` if there is no file. If `options` say so, creates the file for this
/// user alone. Accepts only a regular file of this user, of root, or of the folder's owner, and follows no symbolic
/// link.
///
/// # Errors
/// The file is none of these, or can't be opened.
pub fn open_own(path: &Path, options: &mut OpenOptions) -> Result<Option<File>, PathError> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = match options.read(true).write(true).mode(0o600).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            // Linux refuses to open another user's file in a sticky folder (fs.protected_regular): the error names
            // the owner.
            return Err(match fs::symlink_metadata(path) {
                Ok(found) if found.is_symlink() => PathError::Link(path.to_owned()),
                Ok(found) => of_others(path, &found).unwrap_or_else(|| failed("open", path)(source)),
                Err(_) => failed("open", path)(source),
            });
        }
    };
    let metadata = file.metadata().map_err(failed("look at", path))?;
    if !metadata.is_file() {
        return Err(PathError::NotAFile(path.to_owned()));
    }
    of_others(path, &metadata).map_or(Ok(Some(file)), Err)
}

/// Returns the error for a file that belongs neither to this user, nor to root, nor to the owner of its folder.
fn of_others(path: &Path, metadata: &Metadata) -> Option<PathError> {
    let owner = metadata.uid();
    let of_folder = || fs::metadata(folder_of(path)).is_ok_and(|folder| folder.uid() == owner);
    let is_ours = [ROOT, geteuid().as_raw()].contains(&owner) || of_folder();
    (!is_ours).then(|| PathError::FileOfOthers { path: path.to_owned(), owner })
}

/// Removes all permissions of the group and of others from an open file, if this process is its owner or root.
pub fn make_private(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    let is_ours = geteuid().is_root() || metadata.uid() == geteuid().as_raw();
    if is_ours && metadata.mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(metadata.mode() & 0o700))?;
    }
    Ok(())
}

/// Locks an open file, waiting up to [`LOCK_TIMEOUT`]. Returns false if it is still locked then.
pub async fn lock(file: &File) -> io::Result<bool> {
    let give_up_at = Instant::now() + LOCK_TIMEOUT;
    while !try_lock(file)? {
        if Instant::now() >= give_up_at {
            return Ok(false);
        }
        sleep(LOCK_TIMEOUT / 50).await;
    }
    Ok(true)
}

/// Opens or creates the lock file at `path` and locks it, waiting up to [`LOCK_TIMEOUT`]. Returns `None` if it is
/// still locked then.
///
/// # Errors
/// The file can't be created, or is not trusted.
pub async fn take_lock_file(path: &Path) -> Result<Option<File>, PathError> {
    let give_up_at = Instant::now() + LOCK_TIMEOUT;
    loop {
        match try_take_lock_file(path)? {
            None if Instant::now() < give_up_at => sleep(LOCK_TIMEOUT / 50).await,
            taken => return Ok(taken),
        }
    }
}

/// As [`take_lock_file`], without waiting.
///
/// # Errors
/// As [`take_lock_file`].
pub fn try_take_lock_file(path: &Path) -> Result<Option<File>, PathError> {
    let file = open_own(path, OpenOptions::new().create(true))?;
    // `None` means that the folder does not exist.
    let file = file.ok_or_else(|| failed("make", path)(io::ErrorKind::NotFound.into()))?;
    let taken = try_lock(&file).map_err(failed("lock", path))?;
    // The previous owner may have removed the file before unlocking it; other processes then lock another file.
    let is_there = is_at(path, &file).map_err(failed("look at", path))?;
    Ok((taken && is_there).then_some(file))
}

/// Returns whether an open file is the one at `path`.
fn is_at(path: &Path, file: &File) -> io::Result<bool> {
    Ok(FileId::at(path)? == Some(FileId::of(&file.metadata()?)))
}

fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Checks that a process of `user` may be the daemon behind a socket.
///
/// Always accepts root and this user. Accepts another user if the socket, or a folder on the way to it, belongs to
/// that user and only a trusted user can have put it there. `/run/pinwatch` of the user pinwatch passes, because only
/// root can write to `/run`; `/tmp/pinwatch-1000` of any other user does not, because everybody can write to `/tmp`.
///
/// # Errors
/// The user is not accepted, or the path can't be examined.
pub fn check_server(socket: &Path, user: u32) -> Result<(), PathError> {
    let mut trusted = vec![ROOT, geteuid().as_raw()];
    let absolute = std::path::absolute(socket).map_err(failed("look at", socket))?;
    let names = |path: &Path| -> Vec<OsString> {
        path.components().rev().map(|component| component.as_os_str().to_owned()).collect()
    };
    // The components still to visit, the next one at the end; a symbolic link adds its own.
    let mut to_go = names(&absolute);
    let (mut at, mut links) = (PathBuf::new(), 0);
    while let Some(name) = to_go.pop() {
        let entry = at.join(&name);
        let metadata = fs::symlink_metadata(&entry).map_err(failed("look at", &entry))?;
        if name == "/" || name == ".." {
            // The folder's owner can't choose where `/` and `..` lead.
            at = entry;
            continue;
        }
        let owner = metadata.uid();
        if !trusted.contains(&owner) {
            if others_write(&fs::symlink_metadata(&at).map_err(failed("look at", &at))?) {
                return Err(PathError::Planted { path: entry, owner });
            }
            trusted.push(owner);
        }
        if metadata.is_symlink() {
            links += 1;
            if links > MAX_LINKS {
                return Err(failed("follow the links of", socket)(Errno::LOOP.into()));
            }
            to_go.extend(names(&fs::read_link(&entry).map_err(failed("look at", &entry))?));
        } else {
            at = entry;
        }
    }
    if trusted.contains(&user) {
        return Ok(());
    }
    Err(PathError::Server { socket: socket.to_owned(), user })
}

/// Reads a file that may contain secrets; `None` if it has more than `most` bytes.
pub fn read_at_most(file: File, most: usize) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    // Allocated in full at once: a buffer that grows would leave copies in memory that nobody overwrites.
    let mut bytes = Zeroizing::new(Vec::with_capacity(most + 2));
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= most).then_some(bytes))
}

/// Returns the folder that contains a file.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_file_keeps_its_id_and_a_new_file_at_its_path_has_another() {
        let folder = tempfile::tempdir().unwrap();
        let (path, away) = (folder.path().join("file"), folder.path().join("away"));
        fs::write(&path, "one").unwrap();
        let file = fs::File::open(&path).unwrap();
        let id = FileId::of(&file.metadata().unwrap());
        assert_eq!(FileId::at(&path).unwrap(), Some(id));
        fs::rename(&path, &away).unwrap();
        assert_eq!(FileId::at(&path).unwrap(), None);
        assert_eq!(FileId::at(&path.join("below")).unwrap(), None);
        fs::copy(&away, &path).unwrap();
        assert_ne!(FileId::at(&path).unwrap(), Some(id));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&away, &path).unwrap();
        assert_ne!(FileId::at(&path).unwrap(), Some(id), "a link to the file is not the file");
        assert_eq!(FileId::at(&away).unwrap(), Some(id));
    }

    const SERVICE: u32 = 4242;
    const MALLORY: u32 = 6666;

    /// Creates a folder with this owner and mode; prints a message and returns `None` if only root could do so.
    fn make(path: &Path, owner: u32, mode: u32) -> Option<()> {
        fs::create_dir(path).unwrap();
        give(path, owner)?;
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        Some(())
    }

    fn give(path: &Path, owner: u32) -> Option<()> {
        let given = std::os::unix::fs::lchown(path, Some(owner), None);
        given.map_err(|_| eprintln!("SKIPPED: only root can give a file to another user")).ok()
    }

    /// Returns whether each of these users may serve at a socket of this owner.
    fn may_serve(socket: &Path, owner: u32, users: &[u32]) -> Vec<bool> {
        if !socket.exists() {
            fs::write(socket, "").unwrap();
        }
        give(socket, owner).unwrap();
        users.iter().map(|user| check_server(socket, *user).is_ok()).collect()
    }

    #[test]
    fn a_server_is_trusted_only_if_a_trusted_user_must_have_created_its_socket() {
        let base = tempfile::tempdir().unwrap();
        let (run, tmp) = (base.path().join("run"), base.path().join("tmp"));
        let Some(()) = make(&run, 0, 0o755) else { return };
        make(&tmp, 0, 0o1777).unwrap();
        let users = [0, SERVICE, MALLORY];
        let (only_root, with_service, nobody) =
            ([true, false, false], [true, true, false], [false, false, false]);

        // As the package and systemd create them: root makes the folder for the service.
        make(&run.join("pinwatch"), SERVICE, 0o755).unwrap();
        assert_eq!(may_serve(&run.join("pinwatch/sock"), SERVICE, &users), with_service);
        assert_eq!(may_serve(&run.join("root.sock"), 0, &users), only_root);
        // Root gives the socket to the service, as SocketUser= does.
        assert_eq!(may_serve(&run.join("given.sock"), SERVICE, &users), with_service);

        // Everybody can create these.
        make(&tmp.join("pinwatch-0"), MALLORY, 0o700).unwrap();
        assert_eq!(may_serve(&tmp.join("pinwatch-0/sock"), MALLORY, &users), nobody);
        assert_eq!(may_serve(&tmp.join("mallory.sock"), MALLORY, &users), nobody);
        make(&tmp.join("ours"), 0, 0o700).unwrap();
        assert_eq!(may_serve(&tmp.join("ours/sock"), 0, &users), only_root);
        make(&tmp.join("shared"), 0, 0o770).unwrap();
        assert_eq!(may_serve(&tmp.join("shared/sock"), MALLORY, &users), nobody);
        assert_eq!(may_serve(&tmp.join("shared/ours"), 0, &users), only_root);
    }

    #[test]
    fn a_link_in_the_path_of_a_socket_is_followed_only_if_a_trusted_user_made_it() {
        let base = tempfile::tempdir().unwrap();
        let (run, tmp) = (base.path().join("run"), base.path().join("tmp"));
        let Some(()) = make(&run, 0, 0o755) else { return };
        make(&tmp, 0, 0o1777).unwrap();
        // Mallory owns a folder in a place where only root creates folders, and a link leads clients to it.
        make(&run.join("mallory"), MALLORY, 0o755).unwrap();
        fs::write(run.join("mallory/sock"), "").unwrap();
        for (link, owner, trusted) in [("mine", 0, true), ("planted", MALLORY, false)] {
            let link = tmp.join(link);
            std::os::unix::fs::symlink("../run/mallory", &link).unwrap();
            give(&link, owner).unwrap();
            assert_eq!(check_server(&link.join("sock"), MALLORY).is_ok(), trusted, "{}", link.display());
            let dotted = run.join("..").join("tmp").join(link.file_name().unwrap()).join("sock");
            assert_eq!(check_server(&dotted, MALLORY).is_ok(), trusted, "{}", dotted.display());
        }
        std::os::unix::fs::symlink("loop", run.join("loop")).unwrap();
        assert!(check_server(&run.join("loop/sock"), 0).is_err());
    }

    #[test]
    fn only_regular_files_of_trusted_users_are_opened_and_links_are_not_followed() {
        let base = tempfile::tempdir().unwrap();
        let path = |name: &str| base.path().join(name);
        let open = |name: &str| open_own(&path(name), OpenOptions::new().create(true));
        let made = open("new").unwrap().unwrap();
        assert_eq!(made.metadata().unwrap().mode() & 0o777, 0o600);
        assert!(open_own(&path("none"), &mut OpenOptions::new()).unwrap().is_none());

        for target in ["new", "nowhere"] {
            let _ = fs::remove_file(path("link"));
            std::os::unix::fs::symlink(path(target), path("link")).unwrap();
            assert!(matches!(open("link"), Err(PathError::Link(_))));
        }
        assert!(!path("nowhere").exists());
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        assert!(matches!(open("fifo"), Err(PathError::NotAFile(_))));
        let Some(()) = give(&path("new"), MALLORY) else { return };
        assert!(matches!(open("new"), Err(PathError::FileOfOthers { owner: MALLORY, .. })));
        // Root may open a service's file in the service's folder.
        give(base.path(), MALLORY).unwrap();
        assert!(open("new").is_ok());
    }

    #[tokio::test]
    async fn a_removed_lock_file_is_not_mistaken_for_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = take_lock_file(&path).await.unwrap().unwrap();
        assert!(take_lock_file(&path).await.unwrap().is_none());
        // A waiting process has already opened the old file.
        let waiting = open_own(&path, &mut OpenOptions::new()).unwrap().unwrap();
        fs::remove_file(&path).unwrap();
        drop(first);
        assert!(try_lock(&waiting).unwrap() && !is_at(&path, &waiting).unwrap());
        let next = take_lock_file(&path).await.unwrap().unwrap();
        assert!(is_at(&path, &next).unwrap());
    }
}
