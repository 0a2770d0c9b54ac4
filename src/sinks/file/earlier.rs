//! The files that the result file may have been renamed to: logrotate's `outcomes.jsonl.1`, `outcomes.jsonl-20260131`.
//!
//! Their names prove nothing: a reader's checkpoint, a copy or another sink's file can have such a name. Promises to find them
//! without changing them, except by [`cut`](Earlier::cut). Must not decide which file is ours: the store knows whether one ends
//! with our line.

use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::geteuid;

use super::end::End;
use super::place::Folder;
use crate::config::is_rotated_name;
use crate::paths::FileId;

/// A file that may be ours, and its end.
#[derive(Debug)]
pub struct Earlier {
    name: OsString,
    id: FileId,
    pub end: End,
}

impl Earlier {
    /// Reads the file, if it is a regular file of the daemon's user.
    pub fn read(folder: &Folder, name: OsString) -> Option<Self> {
        let is_ours = |file: &Metadata| file.is_file() && file.uid() == geteuid().as_raw();
        folder.look(&name).ok()?.filter(is_ours)?;
        let file = folder.open_file(&name, OFlags::RDONLY).ok()?;
        let metadata = file.metadata().ok().filter(is_ours)?;
        Some(Self { id: FileId::of(&metadata), end: End::of(&file).ok()?, name })
    }

    /// Cuts off the incomplete line, if the file has not changed since it was read.
    ///
    /// # Errors
    /// Another file is there now, or the file can't be cut.
    pub fn cut(&self, folder: &Folder) -> io::Result<()> {
        let file = folder.open_file(&self.name, OFlags::WRONLY)?;
        if FileId::of(&file.metadata()?) != self.id {
            return Err(io::Error::other("another file has its name now"));
        }
        self.end.cut(&file)
    }

    /// Its path, for messages.
    pub fn beside(&self, path: &Path) -> PathBuf {
        path.with_file_name(&self.name)
    }
}

/// The names in a folder that a file called `name` may have been renamed to. Excludes `others`, the files of other sinks, and the
/// names that those may have been renamed to.
///
/// # Errors
/// The folder can't be read.
pub fn names(folder: &Folder, name: &OsStr, others: &[PathBuf]) -> io::Result<Vec<OsString>> {
    let in_this_folder = |other: &&PathBuf| {
        let there = other.parent().and_then(|parent| std::fs::metadata(parent).ok());
        there.is_some_and(|there| FileId::of(&there) == FileId::of(&folder.metadata))
    };
    let others: Vec<_> = others.iter().filter(in_this_folder).filter_map(|other| other.file_name()).collect();
    let is_anothers =
        |found: &OsStr| others.iter().any(|other| *other == found || is_rotated_name(found, other));
    let mut names = folder.names()?;
    names.retain(|found| is_rotated_name(found, name) && !is_anothers(found));
    Ok(names)
}
