//! The places of the database's files, and the locks on them.
//!
//! Promises that only one pinwatch process has the database, whatever names its files have; and notices when a file is
//! no longer at its path, because whatever is written then would be lost. A file that was moved away and put back is
//! right again; a file that was deleted can't come back. Never opens a file that SQLite has open: closing the second
//! handle would release SQLite's locks. Knows nothing of SQL.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tracing::warn;

use super::error::OpenError;
use crate::paths::{self, FileId, PathError};

/// The path of the database, and the locks that keep other processes away from it.
pub struct Place {
    path: PathBuf,
    /// Locked, so that nobody opens the database under another name. Must outlive SQLite's connections.
    _database: File,
    id: FileId,
    /// Locked. Holds the number of commits, see [`Place::note_commits`].
    lock: LockFile,
    /// The write-ahead log and its index, each with the file that was at its path once SQLite had opened it.
    beside: [(PathBuf, Option<FileId>); 2],
}

/// Which file is no longer in its place, and what to do about it.
#[derive(Debug, Error)]
pub enum Lost {
    #[error(
        "the database {0} was removed or moved away: move it back. If it was removed, save what the daemon has as root with \
         \"pinwatch backup FILE\", stop the daemon, put FILE at {0}, and start again"
    )]
    Database(PathBuf),
    #[error(
        "another file was put in the place of the database {0}: put the right one back, or restart the daemon to go on \
         with the new one. If the right one is gone, \"pinwatch backup FILE\" as root saves what the daemon has"
    )]
    Replaced(PathBuf),
    #[error("{0} was removed or replaced: put it back, or restart the daemon")]
    Beside(PathBuf),
    #[error("the lock file {0} was removed, and another process holds the new lock file: stop that process")]
    Lock(PathBuf),
    #[error(transparent)]
    Path(#[from] PathError),
}

/// The file beside the database that keeps other daemons away, even before there is a database.
pub struct LockFile {
    path: PathBuf,
    file: File,
    id: FileId,
}

impl LockFile {
    /// Takes the lock for the database at `database`. Also returns the number of commits in the lock file.
    pub async fn take(database: &Path) -> Result<(Self, i64), OpenError> {
        let path = with_suffix(database, ".lock");
        let in_use = || OpenError::InUse { path: database.to_owned() };
        let file = paths::take_lock_file(&path).await?.ok_or_else(in_use)?;
        Self::locked(path, file)
    }

    fn locked(path: PathBuf, file: File) -> Result<(Self, i64), OpenError> {
        let mut note = [0; NOTE + 1];
        let length = file.read_at(&mut note, 0);
        let length = length.map_err(|source| OpenError::Io { doing: "read", path: path.clone(), source })?;
        // Any other content means that the file is not pinwatch's to write. A power cut can leave zeros.
        if length > NOTE || !note[..length].iter().all(|byte| matches!(byte, b'0'..=b'9' | b'\n' | 0)) {
            return Err(OpenError::NotALock { path });
        }
        // An unreadable number counts as 0: this check is only a second line of defence.
        let noted =
            str::from_utf8(&note[..length]).ok().and_then(|note| note.trim().parse().ok()).unwrap_or(0);
        let id = file_id(&path, &file)?;
        Ok((Self { path, file, id }, noted))
    }

    /// Stores the number of commits beside the database, after the commit and without a sync. It can lag behind the
    /// database, but is only ahead of it if the database lost commits. So the next start notices a truncated or deleted
    /// log, which SQLite itself takes for a clean shutdown.
    pub fn note_commits(&self, commits: i64) {
        // A failed write makes the check weaker, not wrong.
        let _ = self.file.write_all_at(format!("{commits:0width$}\n", width = NOTE - 1).as_bytes(), 0);
    }

    /// Creates the lock file again if somebody deleted it. Nobody else can have taken the database meanwhile, because
    /// its own file is locked too.
    fn check(&mut self, commits: i64) -> Result<(), Lost> {
        if at(&self.path)? == Some(self.id) {
            return Ok(());
        }
        let lost = || Lost::Lock(self.path.clone());
        let file = paths::try_take_lock_file(&self.path)?.ok_or_else(lost)?;
        let (new, _) = Self::locked(self.path.clone(), file).map_err(|_| lost())?;
        new.note_commits(commits);
        warn!(path = %self.path.display(), "the lock file was removed; it was created again");
        *self = new;
        Ok(())
    }
}

/// The length of the number in a lock file, in bytes: 20 digits and a newline.
const NOTE: usize = 21;

/// The locks on a database, or on the place of one that does not exist yet. Nothing was changed, except that a missing
/// lock file was created.
pub struct Claim {
    path: PathBuf,
    lock: LockFile,
    /// The number of commits in the lock file.
    pub noted: i64,
    database: Option<File>,
}

impl Claim {
    /// Takes the locks. Must not be called while SQLite has the database open in this process.
    ///
    /// # Errors
    /// Another process has the database, or one of the files is not a regular file of this user, root or the folder's owner.
    pub async fn take(path: &Path) -> Result<Self, OpenError> {
        let (lock, noted) = LockFile::take(path).await?;
        let database = paths::open_own(path, &mut OpenOptions::new())?;
        if let Some(database) = &database {
            lock_database(path, database).await?;
        }
        for path in beside(path) {
            paths::open_own(&path, &mut OpenOptions::new())?;
        }
        Ok(Self { path: path.to_owned(), lock, noted, database })
    }

    /// Gives the place up. Removes a lock file that no database ever used, so that nothing stays beside a refused file.
    pub fn give_up(self) {
        if self.lock.file.metadata().is_ok_and(|lock| lock.len() == 0) {
            let _ = fs::remove_file(&self.lock.path);
        }
    }

    /// The lock file's path.
    pub fn lock_path(&self) -> &Path {
        &self.lock.path
    }

    /// Keeps the database, or creates an empty file if there is none. From now on only this user has rights to its
    /// files.
    pub async fn hold(self) -> Result<Place, OpenError> {
        let Self { path, lock, noted: _, database } = self;
        let database = match database {
            Some(database) => database,
            None => {
                let made = make(&path)?;
                lock_database(&path, &made).await?;
                made
            }
        };
        let id = file_id(&path, &database)?;
        for (path, file) in [(&path, &database), (&lock.path, &lock.file)] {
            make_private(path, file)?;
        }
        for path in beside(&path) {
            // A killed daemon left this file behind.
            if let Some(file) = paths::open_own(&path, &mut OpenOptions::new())? {
                make_private(&path, &file)?;
            }
        }
        let beside = beside(&path).map(|path| (path, None));
        Ok(Place { path, _database: database, id, lock, beside })
    }
}

fn make_private(path: &Path, file: &File) -> Result<(), OpenError> {
    let made = paths::make_private(file);
    made.map_err(|source| OpenError::Io {
        doing: "remove other users' permissions from",
        path: path.to_owned(),
        source,
    })
}

fn file_id(path: &Path, file: &File) -> Result<FileId, OpenError> {
    let metadata = file.metadata();
    let failed = |source| OpenError::Io { doing: "look at", path: path.to_owned(), source };
    Ok(FileId::of(&metadata.map_err(failed)?))
}

async fn lock_database(path: &Path, database: &File) -> Result<(), OpenError> {
    match paths::lock(database).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(OpenError::InUse { path: path.to_owned() }),
        Err(source) => Err(OpenError::Io { doing: "lock", path: path.to_owned(), source }),
    }
}

/// The write-ahead log and its index.
fn beside(path: &Path) -> [PathBuf; 2] {
    ["-wal", "-shm"].map(|suffix| with_suffix(path, suffix))
}

impl Place {
    /// Records which files SQLite has open. All connections must already be open, and none may be opened later.
    pub fn opened(&mut self) -> Result<(), OpenError> {
        for (path, id) in &mut self.beside {
            *id = at(path)?;
        }
        Ok(())
    }

    /// Checks that all files are in their places. `commits` is the number of commits so far.
    pub fn check(&mut self, commits: i64) -> Result<(), Lost> {
        match at(&self.path)? {
            Some(id) if id == self.id => {}
            Some(_) => return Err(Lost::Replaced(self.path.clone())),
            None => return Err(Lost::Database(self.path.clone())),
        }
        for (path, id) in &self.beside {
            if at(path)? != *id {
                return Err(Lost::Beside(path.clone()));
            }
        }
        self.lock.check(commits)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn note_commits(&self, commits: i64) {
        self.lock.note_commits(commits);
    }
}

fn at(path: &Path) -> Result<Option<FileId>, PathError> {
    FileId::at(path).map_err(|source| PathError::Io { doing: "look at", path: path.to_owned(), source })
}

/// Creates an empty file for a database, for this user only. SQLite creates its other files with the same mode.
pub fn make(path: &Path) -> Result<File, OpenError> {
    let made = paths::open_own(path, OpenOptions::new().create(true))?;
    made.ok_or_else(|| OpenError::Io {
        doing: "make",
        path: path.to_owned(),
        source: io::ErrorKind::NotFound.into(),
    })
}

pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
