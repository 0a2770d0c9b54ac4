//! The sink `file`: exactly one line an outcome, over any crash and rotation.
//!
//! Promises that no line is lost, doubled or torn. It can, because the file itself tells how far it is: its
//! last line, or that of the file that it was renamed to. Never makes a folder: one that is gone may be a disk
//! that is not mounted.

use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::process::{getegid, geteuid};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use super::{Ordered, Trouble};
use crate::config::Fsync;
use crate::fault::fault_point;
use crate::store::Outcome;

/// Bits of a new file: for its owner, and to be read by its group.
const MODE: u32 = 0o640;

/// How every line of ours begins: what is cut off after a crash must look like one.
const LINE_START: &[u8] = b"{\"seq\":";

/// The end of a file is read in pieces that grow from this size.
const TAIL: u64 = 64 * 1024;

/// A line is never longer than this: the intake bounds what a submitter gives, the poll what the API gives.
const MAX_TAIL: u64 = 16 * 1024 * 1024;

/// Appends to a file.
#[derive(Debug)]
pub struct FileSink {
    path: PathBuf,
    fsync: Fsync,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    identity: (u64, u64),
    length: u64,
}

impl FileSink {
    /// A sink that appends to the file at `path`, which it makes if there is none.
    pub fn new(path: PathBuf, fsync: Fsync) -> Self {
        Self { path, fsync, open: None }
    }

    fn open_file(&mut self) -> Result<Option<String>, Trouble> {
        self.open = None;
        let file = OpenOptions::new().read(true).append(true).create(true).mode(MODE).open(&self.path);
        let mut file = file.map_err(|error| self.cant_open(&error))?;
        fault_point!("file-opened");
        let end = end_of(&mut file).map_err(|error| self.trouble("read", &error))?;
        if end.half > 0 {
            mend(&mut file, &self.path, &end).map_err(|error| self.trouble("mended", &error))?;
        }
        let last = match end.line {
            Some(last) => Some(last),
            // One may be empty: it was begun, and renamed before its first line.
            None => rotated(&self.path).into_iter().find_map(|path| end_of_rotated(&path)),
        };
        if self.fsync == Fsync::Batch {
            // What a killed process had written and not synced counts from now on, and so does a new file's name.
            let synced = file.sync_all().and_then(|()| match self.path.parent() {
                Some(folder) => File::open(folder)?.sync_all(),
                None => Ok(()),
            });
            synced.map_err(|error| self.trouble("synced", &error))?;
        }
        let metadata = file.metadata().map_err(|error| self.trouble("read", &error))?;
        self.open = Some(Open { file, identity: identity(&metadata), length: metadata.len() });
        Ok(last)
    }

    /// Appends each line with one write; gives how many are in the file for good.
    fn append(&mut self, outcomes: &[Outcome]) -> (usize, Result<(), Trouble>) {
        let path = self.path.clone();
        let Some(open) = &mut self.open else {
            return (0, Err(Trouble::Later(format!("{} is not open", path.display()))));
        };
        match std::fs::metadata(&path) {
            Ok(now) if identity(&now) == open.identity => {
                if now.len() < open.length {
                    warn!(
                        path = %path.display(),
                        "the file was cut by somebody else (copytruncate?): lines may have been lost in between; \
                         rename it and send SIGHUP instead"
                    );
                }
                open.length = now.len();
            }
            // Renamed or removed: a new one is begun.
            Ok(_) => return (0, Err(Trouble::Rotated)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return (0, Err(Trouble::Rotated)),
            Err(error) => return (0, Err(self.trouble("found", &error))),
        }

        let mut line = Vec::new();
        let mut result = Ok(());
        let mut count = 0;
        for outcome in outcomes {
            line.clear();
            line.extend_from_slice(outcome.record.as_bytes());
            line.push(b'\n');
            fault_point!("half-a-line", open.file.write_all(&line[..line.len() / 2]));
            if let Err(error) = open.file.write_all(&line) {
                // Half a line may be there. If it can't be cut off now, it is when the file is opened again.
                let _ = open.file.set_len(open.length);
                result = Err(error);
                break;
            }
            open.length += line.len() as u64;
            count += 1;
            fault_point!("line-written");
        }
        fault_point!("file-not-synced");
        if count > 0
            && self.fsync == Fsync::Batch
            && let Err(error) = open.file.sync_data()
        {
            // What the disk has is not known: the file is opened again and says how far it is.
            self.open = None;
            return (0, Err(self.trouble("synced", &error)));
        }
        fault_point!("file-synced");
        if let Err(error) = result {
            self.open = None;
            return (count, Err(self.trouble("written", &error)));
        }
        (count, Ok(()))
    }

    /// A file is made where there is none, but its folder is not: who runs the daemon knows whose it should be.
    fn cant_open(&self, error: &io::Error) -> Trouble {
        let folder = self.path.parent().filter(|folder| !folder.exists());
        let Some(folder) = folder else { return self.trouble("opened", error) };
        let (user, group) = (geteuid().as_raw(), getegid().as_raw());
        Trouble::Later(format!(
            "{} can't be opened, for its folder is not there; make it, for the user that pinwatch runs as: \
             install -d -o {user} -g {group} -m 0750 {}",
            self.path.display(),
            folder.display()
        ))
    }

    fn trouble(&self, done: &str, error: &io::Error) -> Trouble {
        Trouble::Later(format!("{} can't be {done}: {error}", self.path.display()))
    }
}

impl Ordered for FileSink {
    async fn open(&mut self) -> Result<Option<String>, Trouble> {
        self.blocking(FileSink::open_file).await.unwrap_or_else(|failure| Err(Trouble::Later(failure)))
    }

    async fn deliver(&mut self, outcomes: Vec<Outcome>) -> (usize, Result<(), Trouble>) {
        let appended = self.blocking(move |sink| sink.append(&outcomes)).await;
        appended.unwrap_or_else(|failure| (0, Err(Trouble::Later(failure))))
    }
}

impl FileSink {
    /// Runs file work where it may block.
    async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Self) -> T + Send + 'static,
    ) -> Result<T, String> {
        let mut sink = Self { path: self.path.clone(), fsync: self.fsync, open: self.open.take() };
        let done = spawn_blocking(move || {
            let result = work(&mut sink);
            (sink, result)
        });
        let (sink, result) = done.await.map_err(|failure| failure.to_string())?;
        *self = sink;
        Ok(result)
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// How a file ends.
struct End {
    /// Its last whole line, if it has one.
    line: Option<String>,
    /// The bytes behind its last newline.
    half: u64,
    /// Whether those look like the beginning of a line of ours.
    ours: bool,
}

fn end_of(file: &mut File) -> io::Result<End> {
    let length = file.metadata()?.len();
    let mut size = TAIL;
    loop {
        let start = length.saturating_sub(size);
        let mut tail = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        Read::by_ref(file).take(length - start).read_to_end(&mut tail)?;
        let end = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let half = &tail[end..];
        let whole_lines = &tail[..end.saturating_sub(1)];
        let line_start = whole_lines.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
        let found = line_start.or((start == 0 && end > 0).then_some(0));
        let all = start == 0 || size >= MAX_TAIL;
        if found.is_none() && !all {
            size *= 4;
            continue;
        }
        // Zeros are what some file systems leave of a write that a power cut ended.
        let zeros = half.iter().all(|byte| *byte == 0);
        let begins_like_ours = zeros || half.starts_with(LINE_START) || LINE_START.starts_with(half);
        return Ok(End {
            line: found.map(|at| String::from_utf8_lossy(&whole_lines[at..]).into_owned()),
            half: half.len() as u64,
            ours: begins_like_ours && (end > 0 || start == 0),
        });
    }
}

/// Cuts a half line of ours off, and ends any other.
fn mend(file: &mut File, path: &Path, end: &End) -> io::Result<()> {
    if end.ours {
        cut(file, path, end.half)
    } else {
        warn!(path = %path.display(), "the file ends in the middle of a line that is not ours; a newline is put behind it");
        file.write_all(b"\n")
    }
}

fn cut(file: &File, path: &Path, half: u64) -> io::Result<()> {
    file.set_len(file.metadata()?.len().saturating_sub(half))?;
    info!(path = %path.display(), bytes = half, "a half-written line was cut off");
    Ok(())
}

/// The last whole line of a file that ours was renamed to. A crash may have torn the line behind it, which goes
/// into the new file whole.
fn end_of_rotated(path: &Path) -> Option<String> {
    let end = end_of(&mut File::open(path).ok()?).ok()?;
    if end.ours && end.half > 0 {
        let cut = OpenOptions::new().write(true).open(path).and_then(|file| cut(&file, path, end.half));
        if let Err(error) = cut {
            warn!(%error, path = %path.display(), "a half-written line could not be cut off");
        }
    }
    end.line
}

/// The files that the one at `path` was renamed or copied to: logrotate's `.1` or `-20260131`, the newest first.
fn rotated(path: &Path) -> Vec<PathBuf> {
    let is_rotated = |candidate: &OsStr| {
        let name = path.file_name().map_or(&b""[..], OsStr::as_encoded_bytes);
        let rest = candidate.as_encoded_bytes().strip_prefix(name);
        rest.is_some_and(|rest| matches!(rest.first(), Some(b'.' | b'-')))
    };
    let siblings =
        path.parent().and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    let mut found: Vec<_> = siblings
        .filter(|entry| is_rotated(&entry.file_name()))
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            metadata.is_file().then(|| Some((metadata.modified().ok()?, entry.path())))?
        })
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(seq: i64) -> Outcome {
        Outcome { seq, pin: "A".parse().unwrap(), record: format!("{{\"seq\":{seq},\"x\":1}}").into() }
    }

    fn sink_at(path: &Path) -> FileSink {
        FileSink::new(path.to_owned(), Fsync::Batch)
    }

    #[test]
    fn the_last_line_is_told_and_a_half_one_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outcomes.jsonl");
        for half in ["", "{", "{\"seq\":3,\"pinId\":\"9C", "\0\0\0"] {
            std::fs::write(&path, format!("{{\"seq\":1}}\n{{\"seq\":2}}\n{half}")).unwrap();
            let mut sink = sink_at(&path);
            assert_eq!(sink.open_file().unwrap().as_deref(), Some("{\"seq\":2}"));
            assert_eq!(sink.append(&[outcome(3)]), (1, Ok(())));
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text, "{\"seq\":1}\n{\"seq\":2}\n{\"seq\":3,\"x\":1}\n");
        }
    }

    #[test]
    fn a_long_last_line_is_found_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outcomes.jsonl");
        let long = format!("{{\"seq\":2,\"metadata\":\"{}\"}}", "x".repeat(300_000));
        std::fs::write(&path, format!("{{\"seq\":1}}\n{long}\n")).unwrap();
        assert_eq!(sink_at(&path).open_file().unwrap(), Some(long.clone()));
        std::fs::write(&path, format!("{{\"seq\":1}}\n{long}")).unwrap();
        assert_eq!(sink_at(&path).open_file().unwrap().as_deref(), Some("{\"seq\":1}"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"seq\":1}\n");
    }

    #[test]
    fn what_somebody_else_wrote_is_never_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "my notes").unwrap();
        let mut sink = sink_at(&path);
        assert_eq!(sink.open_file(), Ok(None));
        sink.append(&[outcome(1)]).1.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "my notes\n{\"seq\":1,\"x\":1}\n");
    }

    #[test]
    fn a_renamed_file_is_noticed_and_its_last_line_still_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outcomes.jsonl");
        let mut sink = sink_at(&path);
        sink.open_file().unwrap();
        sink.append(&[outcome(1)]).1.unwrap();
        std::fs::rename(&path, folder.path().join("outcomes.jsonl.1")).unwrap();
        assert_eq!(sink.append(&[outcome(2)]), (0, Err(Trouble::Rotated)));
        assert_eq!(sink.open_file().unwrap().as_deref(), Some("{\"seq\":1,\"x\":1}"));
        assert_eq!(sink.append(&[outcome(2)]), (1, Ok(())));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"seq\":2,\"x\":1}\n");
    }

    #[test]
    fn a_line_torn_before_the_rename_is_cut_and_an_empty_file_in_between_hides_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let [path, older, newer] =
            ["outcomes.jsonl", "outcomes.jsonl.2", "outcomes.jsonl.1"].map(|name| folder.path().join(name));
        std::fs::write(&older, "{\"seq\":1}\n{\"seq\":2,\"pinId\":").unwrap();
        let before = std::time::SystemTime::now() - std::time::Duration::from_secs(1);
        File::options().write(true).open(&older).unwrap().set_modified(before).unwrap();
        std::fs::write(&newer, "").unwrap();
        assert_eq!(sink_at(&path).open_file().unwrap().as_deref(), Some("{\"seq\":1}"));
        assert_eq!(std::fs::read_to_string(&older).unwrap(), "{\"seq\":1}\n");
    }

    #[test]
    fn a_file_cut_by_copytruncate_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outcomes.jsonl");
        let mut sink = sink_at(&path);
        sink.open_file().unwrap();
        sink.append(&[outcome(1)]).1.unwrap();
        std::fs::write(&path, "").unwrap();
        assert_eq!(sink.append(&[outcome(2)]), (1, Ok(())));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"seq\":2,\"x\":1}\n");
    }

    #[test]
    fn a_folder_that_is_gone_is_trouble_for_now_and_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone");
        let mut sink = sink_at(&gone.join("outcomes.jsonl"));
        let Err(Trouble::Later(what)) = sink.open_file() else { panic!("opened") };
        assert!(!gone.exists());
        // What it says to do is what helps.
        let (_, command) = what.split_once("install ").unwrap();
        assert!(std::process::Command::new("install").args(command.split(' ')).status().unwrap().success());
        sink.open_file().unwrap();
    }
}
