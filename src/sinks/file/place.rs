//! Where a result file is: whether its path is safe to write to, and whether it still leads to the same place.
//!
//! Promises to follow no symbolic link in the path's last component, and to open a file in the very folder that it has checked.
//! Must not know what the file contains.

use std::ffi::{OsStr, OsString};
use std::fs::{File, FileType, Metadata};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, Mode, OFlags, open, openat};
use thiserror::Error;

use crate::config::is_standard_stream;
use crate::paths::{FileId, STICKY};

/// Mode of a new file: its owner reads and writes it, its group reads it.
const MODE: Mode = Mode::from_raw_mode(0o640);

/// Permission of every user to write.
const ALL_WRITE: u32 = 0o002;

/// Why a path is not safe for outcomes.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Unsafe {
    #[error(
        "{path} is a symbolic link to {target}, which pinwatch does not follow: anybody who can change the link could send \
         outcomes elsewhere. Write path = {target:?}, or remove the link"
    )]
    Link { path: PathBuf, target: PathBuf },
    #[error("{path} is {kind}, and a sink of type \"file\" writes to regular files only{hint}")]
    NotAFile { path: PathBuf, kind: &'static str, hint: &'static str },
    #[error(
        "{path} is in a folder that every user can write, so anybody could put another file in its place: \
         chmod o-w {folder}, or choose another folder"
    )]
    OpenFolder { path: PathBuf, folder: PathBuf },
    #[error("{path} can be written by every user: chmod o-w {path}")]
    OpenFile { path: PathBuf },
    #[error(
        "{path} belongs to the user {owner}, and every user can make files in its folder: remove it, or choose a folder \
         that only pinwatch can write"
    )]
    OtherOwner { path: PathBuf, owner: u32 },
    #[error(
        "{path} has {links} names (hard links), and every user can make files in its folder: remove it, or choose a folder \
         that only pinwatch can write"
    )]
    OtherNames { path: PathBuf, links: u64 },
}

/// For those who want the daemon's own output, or a pipe to another program.
const USE_STDOUT: &str = ". For standard output, use a sink with type = \"stdout\"";

impl Unsafe {
    /// Checks the folder of a path and, if there is one, its file. `user` is the user who writes it.
    ///
    /// # Errors
    /// Somebody else could read the outcomes, or have them written elsewhere.
    pub fn check(path: &Path, folder: &Metadata, file: Option<&Metadata>, user: u32) -> Result<(), Self> {
        let path = path.to_owned();
        let everybodys = folder.mode() & ALL_WRITE != 0;
        if everybodys && folder.mode() & STICKY == 0 {
            let folder = path.parent().unwrap_or(&path).to_owned();
            return Err(Self::OpenFolder { path, folder });
        }
        let Some(file) = file else { return Ok(()) };
        if file.is_symlink() {
            let target = std::fs::read_link(&path).unwrap_or_default();
            if [&path, &target].into_iter().any(|path| is_standard_stream(path)) {
                return Err(Self::NotAFile { path, kind: "a standard stream", hint: USE_STDOUT });
            }
            return Err(Self::Link { path, target });
        }
        if !file.is_file() {
            let (kind, hint) = kind_of(file.file_type());
            return Err(Self::NotAFile { path, kind, hint });
        }
        if file.mode() & ALL_WRITE != 0 {
            return Err(Self::OpenFile { path });
        }
        // Another user may have put it there, for pinwatch to fill it.
        if everybodys && ![user, 0].contains(&file.uid()) {
            return Err(Self::OtherOwner { path, owner: file.uid() });
        }
        if everybodys && file.nlink() > 1 {
            return Err(Self::OtherNames { path, links: file.nlink() });
        }
        Ok(())
    }
}

fn kind_of(kind: FileType) -> (&'static str, &'static str) {
    match kind {
        kind if kind.is_dir() => ("a folder", ""),
        kind if kind.is_fifo() => ("a named pipe", USE_STDOUT),
        kind if kind.is_socket() => ("a socket", USE_STDOUT),
        _ => ("a device", USE_STDOUT),
    }
}

/// An open folder: every operation happens in this folder, even if another one gets its path.
#[derive(Debug)]
pub struct Folder {
    handle: File,
    pub metadata: Metadata,
}

impl Folder {
    /// # Errors
    /// It is not there, is no folder, or can't be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = File::from(open(path, flags, Mode::empty())?);
        let metadata = handle.metadata()?;
        Ok(Self { handle, metadata })
    }

    /// Opens a file in it, or creates it if the flags say so. Follows no symbolic link and waits for no pipe.
    ///
    /// # Errors
    /// The file can't be opened.
    pub fn open_file(&self, name: &OsStr, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.handle, name, flags, MODE)?))
    }

    /// Returns what is at a name, without opening it; `None` if nothing is there.
    ///
    /// # Errors
    /// It can't be looked up.
    pub fn look(&self, name: &OsStr) -> io::Result<Option<Metadata>> {
        match self.open_file(name, OFlags::PATH) {
            Ok(file) => file.metadata().map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All names in it.
    ///
    /// # Errors
    /// It can't be read.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let names = Dir::read_from(&self.handle)?
            .map(|entry| Ok(OsString::from_vec(entry?.file_name().to_bytes().to_vec())));
        names.collect()
    }

    /// Makes its names durable.
    ///
    /// # Errors
    /// The disk can't be written.
    pub fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

/// Where a file was when it was opened.
#[derive(Debug, Clone)]
pub struct Place {
    folder: FileId,
    device: u64,
    /// The other devices of the folders above: once the folder's disk is unmounted, the path leads to one of them.
    beneath: Vec<u64>,
}

/// Why a path leads elsewhere than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// The disk that was mounted there is unmounted.
    Unmounted,
    /// Its folder is another one, or another disk is mounted there.
    Replaced,
}

impl Place {
    /// The place of an open file in a folder at `path`.
    pub fn of(path: &Path, folder: &Metadata, file: &Metadata) -> Self {
        // Resolves symbolic links first: the folders above a link say nothing about the mount point of its target.
        let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let above = real.ancestors().skip(1).filter_map(|above| Some(std::fs::metadata(above).ok()?.dev()));
        let beneath = above.filter(|device| *device != folder.dev()).collect();
        Self { folder: FileId::of(folder), device: file.dev(), beneath }
    }

    /// Whether the path leads elsewhere now. Another file in the same folder, or none, does not count: it was renamed.
    pub fn moved(&self, folder: &Metadata, file: Option<&Metadata>) -> Option<Moved> {
        let another_folder = FileId::of(folder) != self.folder;
        let was_unmounted = if another_folder {
            self.beneath.contains(&folder.dev())
        } else {
            // A file can be a mount point itself.
            let now = file.map(Metadata::dev).filter(|device| *device != self.device)?;
            now == folder.dev()
        };
        Some(if was_unmounted { Moved::Unmounted } else { Moved::Replaced })
    }
}
