//! What is at a path: which file it is.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Identifies a file on this machine, whatever its name: no other file has the same for as long as this one exists or
/// a process has it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    dev: u64,
    ino: u64,
}

impl FileId {
    /// The file with this metadata.
    pub fn of(metadata: &Metadata) -> Self {
        Self { dev: metadata.dev(), ino: metadata.ino() }
    }

    /// The file at `path`; `None` if nothing is there. A symbolic link is not followed: it is a file of its own.
    ///
    /// # Errors
    /// The path can't be looked up, for example for want of permission.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_its_identity_when_it_moves_and_its_successor_at_the_path_has_another() {
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
}
