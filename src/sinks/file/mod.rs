//! The sink `file`: writes one line per outcome, and another one for each replay.
//!
//! Promises that no line is lost, duplicated or torn by a crash or a rotation; with `fsync = "never"`, a power cut can lose lines.
//! After a crash the file's last line shows the position, or the last line of the file that it was renamed to. Writes only to
//! the place that it opened: if the folder is replaced or the disk unmounted, the sink waits. Changes and trusts only files that
//! are provably its own: the one that it has open, or one that ends in a line, or in enough of a line, that the store knows. So
//! one kind of incomplete line stays: a few bytes alone in a file that was renamed before the next start, because they could be
//! another program's. Never makes a folder. Must not know polls.

mod earlier;
mod end;
mod known;
mod place;

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::process::{getegid, geteuid};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use self::earlier::Earlier;
use self::end::End;
pub use self::place::Unsafe;
use self::place::{Folder, Moved, Place};
use super::{Ordered, Trouble};
use crate::config::Fsync;
use crate::fault::fault_point;
use crate::paths::{FileId, folder_of};
use crate::store::{Outcome, Store};

/// Appends to a file.
#[derive(Debug)]
pub struct FileSink {
    path: PathBuf,
    fsync: Fsync,
    /// Files of other sinks with names that this file may be renamed to.
    others: Arc<[PathBuf]>,
    state: State,
}

#[derive(Debug, Default)]
struct State {
    /// Kept until the next file is open: even if it was renamed, this one is ours.
    open: Option<Open>,
    /// Where the file was when it was last opened.
    place: Option<Place>,
    /// The file's last line, if pinwatch wrote it.
    last_line: Option<Vec<u8>>,
    /// Whether the file may have been renamed, with our lines in it, before this process first opened it.
    has_history: bool,
    /// Accept any file that the path leads to now.
    adopts: bool,
}

#[derive(Debug)]
struct Open {
    file: File,
    id: FileId,
    length: u64,
}

/// An open file that is not changed yet.
struct Opening {
    folder: Arc<Folder>,
    file: File,
    id: FileId,
    end: End,
    /// The file that was open before, if it is another one.
    before: Option<End>,
    /// Whether it is this one.
    is_held: bool,
}

/// The incomplete lines to cut off.
#[derive(Default)]
struct Halves {
    /// Cut off the end of the file itself; otherwise end it with a newline.
    own: bool,
    /// Cut off the end of the file that ours was renamed to.
    earlier: Option<Earlier>,
}

impl FileSink {
    /// Creates a sink that appends to the file at `path` and makes the file if there is none. `others` are files of other sinks
    /// with names that this one may be renamed to. `is_new`: the sink never received an outcome.
    pub fn new(path: PathBuf, fsync: Fsync, others: &[PathBuf], is_new: bool) -> Self {
        let state = State { has_history: !is_new, ..State::default() };
        Self { path, fsync, others: others.into(), state }
    }

    /// Checks what is at a path now, for a daemon that runs as `user`. A missing file or folder is no error.
    ///
    /// # Errors
    /// A sink would refuse what is there.
    pub fn check(path: &Path, user: u32) -> Result<(), Unsafe> {
        let Ok(folder) = fs::metadata(folder_of(path)) else { return Ok(()) };
        Unsafe::check(path, &folder, fs::symlink_metadata(path).ok().as_ref(), user)
    }

    fn name(&self) -> &OsStr {
        // The configuration refuses a path without a folder.
        self.path.file_name().unwrap_or_default()
    }

    /// Opens the file, or makes it, in the same place as before.
    fn begin(&mut self) -> Result<Opening, Trouble> {
        let adopts = mem::take(&mut self.state.adopts);
        let folder = Folder::open(folder_of(&self.path)).map_err(|error| self.no_folder(&error))?;
        let there = folder.look(self.name()).map_err(|error| self.trouble("looked up", &error))?;
        if let Some(moved) =
            self.state.place.as_ref().and_then(|place| place.moved(&folder.metadata, there.as_ref()))
        {
            if !(adopts && moved == Moved::Replaced || self.recognises(&folder)) {
                return Err(self.moved(moved));
            }
            info!(path = %self.path.display(), "the path now leads to another place, and outcomes are written there");
        }
        self.check_open(&folder.metadata, there.as_ref())?;
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE;
        let file = folder.open_file(self.name(), flags).map_err(|error| self.trouble("opened", &error))?;
        fault_point!("file-opened");
        let metadata = file.metadata().map_err(|error| self.trouble("read", &error))?;
        // Check again: another file may be there by now.
        self.check_open(&folder.metadata, Some(&metadata))?;
        let id = FileId::of(&metadata);
        let held = self.state.open.as_ref();
        let before = held.filter(|open| open.id != id).and_then(|open| {
            let end = End::of(&open.file);
            end.inspect_err(|error| warn!(%error, "the file that was open before can't be read")).ok()
        });
        Ok(Opening {
            end: End::of(&file).map_err(|error| self.trouble("read", &error))?,
            before,
            is_held: held.is_some_and(|open| open.id == id),
            folder: Arc::new(folder),
            file,
            id,
        })
    }

    fn check_open(&self, folder: &fs::Metadata, file: Option<&fs::Metadata>) -> Result<(), Trouble> {
        let checked = Unsafe::check(&self.path, folder, file, geteuid().as_raw());
        checked.map_err(|found| Trouble::Later(found.to_string()))
    }

    /// Whether the file there ends with the last line that we wrote, as ours does when its disk is mounted again under another
    /// device number.
    fn recognises(&self, folder: &Folder) -> bool {
        let Some(last_line) = &self.state.last_line else { return false };
        let is_file = folder.look(self.name()).ok().flatten().is_some_and(|there| there.is_file());
        let end = || End::of(&folder.open_file(self.name(), OFlags::RDONLY).ok()?).ok();
        is_file && end().is_some_and(|end| end.line.as_ref() == Some(last_line))
    }

    /// Cuts off incomplete lines, makes the content durable, and starts to use the file.
    fn finish(&mut self, opening: Opening, halves: &Halves, is_ours: bool) -> Result<(), Trouble> {
        let Opening { folder, file, id, end, before, is_held: _ } = opening;
        if !end.half.is_empty() {
            mend(&file, &self.path, &end, halves.own).map_err(|error| self.trouble("mended", &error))?;
        }
        if let (Some(before), Some(open)) = (before, &self.state.open)
            && !before.half.is_empty()
            && before.begins_like_ours()
        {
            log_cut(&self.path, &before, before.cut(&open.file));
        }
        if let Some(earlier) = &halves.earlier {
            log_cut(&earlier.beside(&self.path), &earlier.end, earlier.cut(&folder));
        }
        if self.fsync == Fsync::Batch {
            // Lines that a killed process wrote but did not sync count from now on, and so does a new file's name.
            let synced = file.sync_all().and_then(|()| folder.sync());
            synced.map_err(|error| self.trouble("synced", &error))?;
        }
        let metadata = file.metadata().map_err(|error| self.trouble("read", &error))?;
        self.state.place = Some(Place::of(folder_of(&self.path), &folder.metadata, &metadata));
        self.state.last_line = end.line.filter(|_| is_ours);
        self.state.open = Some(Open { file, id, length: metadata.len() });
        Ok(())
    }

    /// Compares the file at the path with the open one. If the path leads elsewhere, closes the file, so that its disk can be
    /// unmounted.
    fn verify(&mut self) -> Result<Option<fs::Metadata>, Trouble> {
        let Some(place) = &self.state.place else { return Ok(None) };
        let there = match fs::symlink_metadata(&self.path) {
            Ok(there) => Some(there),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => None,
            Err(error) => return Err(self.trouble("looked up", &error)),
        };
        let trouble = match fs::metadata(folder_of(&self.path)) {
            Ok(folder) => match place.moved(&folder, there.as_ref()) {
                Some(moved) => self.moved(moved),
                None => return Ok(there),
            },
            Err(error) => self.no_folder(&error),
        };
        self.state.open = None;
        Err(trouble)
    }

    /// Appends each line with one write; returns how many are written, and synced unless `fsync` is `never`.
    fn append(&mut self, outcomes: &[Outcome]) -> (usize, Result<(), Trouble>) {
        let there = match self.verify() {
            Ok(there) => there,
            Err(trouble) => return (0, Err(trouble)),
        };
        let Some(open) = &mut self.state.open else {
            return (0, Err(Trouble::Later(format!("{} is not open", self.path.display()))));
        };
        // Renamed or removed: start a new file.
        let Some(there) = there.filter(|there| FileId::of(there) == open.id) else {
            return (0, Err(Trouble::Rotated));
        };
        if there.len() < open.length {
            warn!(
                path = %self.path.display(),
                "another program truncated the file (copytruncate?): lines may have been lost in between; \
                 rename it and send SIGHUP instead"
            );
        }
        open.length = there.len();

        let mut line = Vec::new();
        let mut result = Ok(());
        let mut count = 0;
        for outcome in outcomes {
            line.clear();
            line.extend_from_slice(outcome.record.as_bytes());
            line.push(b'\n');
            fault_point!("half-a-line", open.file.write_all(&line[..line.len() / 2]));
            if let Err(error) = open.file.write_all(&line) {
                // If the incomplete line can't be cut off now, the next open does it.
                let _ = cut_back(&open.file, open.length, &line);
                result = Err(error);
                break;
            }
            open.length += line.len() as u64;
            count += 1;
            fault_point!("line-written");
        }
        if let Some(last) = outcomes[..count].last() {
            self.state.last_line = Some(last.record.as_bytes().to_vec());
            self.state.has_history = true;
        }
        fault_point!("file-not-synced");
        if count > 0
            && self.fsync == Fsync::Batch
            && let Err(error) = open.file.sync_data()
        {
            // What the disk has is unknown: the next open finds the position.
            return (0, Err(self.trouble("synced", &error)));
        }
        fault_point!("file-synced");
        (count, result.map_err(|error| self.trouble("written", &error)))
    }

    /// Makes a missing file, but not a missing folder: the operator knows who should own it.
    fn no_folder(&self, error: &io::Error) -> Trouble {
        if error.kind() != ErrorKind::NotFound {
            return self.trouble("opened", error);
        }
        let (path, folder) = (self.path.display(), folder_of(&self.path).display());
        if self.state.place.is_some() {
            return Trouble::Later(format!(
                "{path} can't be written: its folder is not there any more. Mount its disk, or put the folder back; if you \
                 make a new one, reload pinwatch (SIGHUP)"
            ));
        }
        let (user, group) = (geteuid().as_raw(), getegid().as_raw());
        Trouble::Later(format!(
            "{path} can't be opened, because its folder does not exist; create it, for the user that pinwatch runs as: \
             install -d -o {user} -g {group} -m 0750 {folder}"
        ))
    }

    fn moved(&self, moved: Moved) -> Trouble {
        let path = self.path.display();
        Trouble::Later(match moved {
            Moved::Unmounted => format!(
                "{path} can't be written: its disk is not mounted any more. Mount it; or, if outcomes are to go to the disk \
                 beneath, restart pinwatch"
            ),
            Moved::Replaced => format!(
                "{path} can't be written: its folder was replaced, or another disk was mounted there. Put the old one back; \
                 or, if outcomes are to go to this one, reload pinwatch (SIGHUP)"
            ),
        })
    }

    fn trouble(&self, done: &str, error: &io::Error) -> Trouble {
        let what = format!("{} can't be {done}: {error}", self.path.display());
        Trouble::Later(match error.kind() {
            ErrorKind::FileTooLarge => {
                format!(
                    "{what}: it is as large as this process may make files; raise LimitFSIZE= (ulimit -f), or rotate it"
                )
            }
            _ => what,
        })
    }

    /// Runs file operations where they may block.
    async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        let state = mem::take(&mut self.state);
        let mut sink =
            Self { path: self.path.clone(), fsync: self.fsync, others: self.others.clone(), state };
        let done = spawn_blocking(move || {
            let result = work(&mut sink);
            (sink, result)
        });
        let (sink, result) = done.await.map_err(|failure| Trouble::Later(failure.to_string()))?;
        *self = sink;
        result
    }

    /// Searches the folder for the file that ours was renamed to before this process: the one furthest ahead among those that end
    /// in a line of this store. Returns the last whole line's `seq`, and the file with an incomplete line that is provably ours.
    async fn find_earlier(
        &mut self,
        folder: &Arc<Folder>,
        store: &Store,
        cursor: i64,
    ) -> Result<(Option<i64>, Option<Earlier>), Trouble> {
        let opened = folder.clone();
        let names = self.blocking(move |sink| {
            earlier::names(&opened, sink.name(), &sink.others)
                .map_err(|error| sink.trouble("looked for", &error))
        });
        let (mut last_line, mut furthest, mut candidate) = (None, None, None);
        for name in names.await? {
            let opened = folder.clone();
            let Some(earlier) = self.blocking(move |_| Ok(Earlier::read(&opened, name))).await? else {
                continue;
            };
            let mut whole = known::seq_of(store, earlier.end.line.as_deref()).await?;
            last_line = last_line.max(whole);
            if whole.is_none() && earlier.end.is_one_half() {
                whole = known::seq_before(store, &earlier.end.half).await?;
            }
            let Some(seq) = whole else { continue };
            let reached = Some((seq, earlier.end.half.len()));
            match reached.cmp(&furthest) {
                Ordering::Less => {}
                Ordering::Greater => (furthest, candidate) = (reached, Some(earlier)),
                // One is a copy of the other; which one can't be known.
                Ordering::Equal => candidate = None,
            }
        }
        let Some((seq, half_length)) = furthest else { return Ok((last_line, None)) };
        let torn = candidate.filter(|_| half_length > 0 && seq >= cursor);
        let is_ours = match &torn {
            Some(earlier) => known::begins_the_next(store, seq, &earlier.end.half).await?,
            None => false,
        };
        Ok((last_line, torn.filter(|_| is_ours)))
    }
}

impl Ordered for FileSink {
    async fn open(&mut self, store: &Store, cursor: i64) -> Result<Option<i64>, Trouble> {
        let opening = self.blocking(Self::begin).await?;
        let mut reached = known::seq_of(store, opening.end.line.as_deref()).await?;
        let is_ours = reached.is_some();
        let mut halves = Halves::default();
        if let Some(before) = &opening.before {
            reached = reached.max(known::seq_of(store, before.line.as_deref()).await?);
        } else if !is_ours && !opening.is_held && self.state.has_history {
            (reached, halves.earlier) = self.find_earlier(&opening.folder, store, cursor).await?;
        }
        let end = &opening.end;
        halves.own = if is_ours || opening.is_held {
            end.begins_like_ours() || end.is_zeros()
        } else {
            let next_after = end.is_one_half().then_some(reached.unwrap_or(0).max(cursor));
            end.is_empty() || known::begins_a_record(store, &end.half, next_after).await?
        };
        self.blocking(move |sink| sink.finish(opening, &halves, is_ours)).await?;
        Ok(reached)
    }

    async fn deliver(&mut self, outcomes: Vec<Outcome>) -> (usize, Result<(), Trouble>) {
        let appended = self.blocking(move |sink| Ok(sink.append(&outcomes))).await;
        appended.unwrap_or_else(|failure| (0, Err(failure)))
    }

    async fn check(&mut self) -> Result<(), Trouble> {
        self.blocking(|sink| sink.verify().map(|_| ())).await
    }

    fn adopt(&mut self) {
        self.state.adopts = true;
    }
}

/// Cuts off an incomplete line of ours; ends any other with a newline.
fn mend(mut file: &File, path: &Path, end: &End, is_ours: bool) -> io::Result<()> {
    if is_ours {
        end.cut(file)?;
        log_cut(path, end, Ok(()));
        return Ok(());
    }
    warn!(path = %path.display(), "the file ends in the middle of a line that pinwatch did not write; a newline is appended");
    file.write_all(b"\n")
}

fn log_cut(path: &Path, end: &End, done: io::Result<()>) {
    let (path, bytes) = (path.display(), end.half.len());
    match done {
        Ok(()) => info!(%path, bytes, "a half-written line was cut off"),
        Err(error) => warn!(%path, bytes, %error, "a half-written line can't be cut off"),
    }
}

/// Cuts off a partly written line, unless something else was written after it.
fn cut_back(file: &File, length: u64, line: &[u8]) -> io::Result<()> {
    let written = end::read(file, length, file.metadata()?.len())?;
    if line.starts_with(&written) { file.set_len(length) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
