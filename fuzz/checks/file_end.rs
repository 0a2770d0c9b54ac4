//! A result file with any end, and a file that it may have been renamed to: what is not ours stays to the last byte, no line
//! of ours is lost or doubled, and every line that is written begins at the beginning of a line.
//!
//! Bytes of the input with a meaning: 1 to 3 insert a whole line of this store; 4 to 6, each followed by a length, insert the
//! beginning of one; 7 starts the renamed file. All other bytes are content.

use std::path::Path;

use pinwatch::clock::Clock;
use pinwatch::config::Fsync;
use pinwatch::outcome::{Ending, Verdict};
use pinwatch::sinks::{FileSink, Ordered};
use pinwatch::store::{self, Committed, NewPin, Store, Writer};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

const OUTCOMES: usize = 3;

/// How every line of ours begins.
const LINE_START: &[u8] = b"{\"seq\":";

/// A store with three outcomes.
pub struct Files {
    runtime: Runtime,
    folder: TempDir,
    store: Store,
    /// The lines of the outcomes, with their newlines.
    ours: Vec<Vec<u8>>,
}

impl Files {
    pub fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = runtime.block_on(filled(&folder.path().join("db")));
        let outcomes = runtime.block_on(store.outcomes_after(0, 9)).unwrap();
        let ours: Vec<_> =
            outcomes.iter().map(|outcome| [outcome.record.as_bytes(), b"\n"].concat()).collect();
        assert_eq!(ours.len(), OUTCOMES);
        Self { runtime, folder, store, ours }
    }

    pub fn check(&self, input: &[u8]) {
        let (file, renamed) = self.contents(input);
        let folder = tempfile::tempdir_in(self.folder.path()).unwrap();
        let path = folder.path().join("outcomes.jsonl");
        let renamed_path = folder.path().join("outcomes.jsonl.1");
        std::fs::write(&path, &file).unwrap();
        std::fs::write(&renamed_path, &renamed).unwrap();
        let mut sink = FileSink::new(path.clone(), Fsync::Never, &[], false);
        let reached = self.runtime.block_on(sink.open(&self.store, 0)).unwrap();

        let of_file = self.number_of(last_line(&file));
        let expected = of_file.or_else(|| self.number_of(last_line(&renamed)));
        assert_eq!(reached, expected.map(|number| number as i64), "how far the files are");
        let left = self.runtime.block_on(self.store.outcomes_after(reached.unwrap_or(0), 9)).unwrap();
        let (count, result) = self.runtime.block_on(sink.deliver(left));
        let next = expected.unwrap_or(0);
        assert_eq!((count, result), (OUTCOMES - next, Ok(())));

        let written = std::fs::read(&path).unwrap();
        let begun =
            self.check_kept(&file, &written[..written.len() - self.ours[next..].concat().len()], of_file);
        assert_eq!(written[begun..], self.ours[next..].concat(), "what is written is the rest of the lines");
        assert!(begun == 0 || written[begun - 1] == b'\n', "a line begins in the middle of another");
        let renamed_now = std::fs::read(&renamed_path).unwrap();
        let half = half(&renamed);
        if renamed_now != renamed {
            assert_eq!(renamed_now, renamed[..renamed.len() - half.len()], "only a half line is cut off");
            assert!(of_file.is_none() && self.begins_ours(half), "a half line of ours");
        }
    }

    /// Checks what became of the old content, and gives where the new begins.
    fn check_kept(&self, before: &[u8], after: &[u8], of_file: Option<usize>) -> usize {
        let half = half(before);
        let whole = &before[..before.len() - half.len()];
        if half.is_empty() || after.len() > whole.len() {
            let ended: &[u8] = if half.is_empty() { b"" } else { b"\n" };
            assert_eq!(after, [before, ended].concat(), "what was there stays");
        } else {
            assert_eq!(after, whole, "only a half line is cut off");
            let zeros = half.iter().all(|byte| *byte == 0);
            let like_ours = half.starts_with(LINE_START) || LINE_START.starts_with(half);
            let may_go = match of_file {
                Some(_) => zeros || like_ours,
                None => self.begins_ours(half) || zeros && whole.is_empty(),
            };
            assert!(may_go, "a half line that is not ours was cut off");
        }
        after.len()
    }

    /// The content of the result file, and of the one that it was renamed to.
    fn contents(&self, input: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (mut file, mut renamed, mut is_renamed) = (Vec::new(), Vec::new(), false);
        let mut bytes = input.iter().map(|byte| usize::from(*byte));
        while let Some(byte) = bytes.next() {
            let content = if is_renamed { &mut renamed } else { &mut file };
            match byte {
                1..=3 => content.extend_from_slice(&self.ours[byte - 1]),
                4..=6 => {
                    let line = &self.ours[byte - 4];
                    content.extend_from_slice(&line[..bytes.next().unwrap_or(40).min(line.len() - 1)]);
                }
                7 => is_renamed = true,
                byte => content.push(byte as u8),
            }
        }
        (file, renamed)
    }

    fn number_of(&self, line: Option<&[u8]>) -> Option<usize> {
        let at = self.ours.iter().position(|ours| Some(&ours[..ours.len() - 1]) == line)?;
        Some(at + 1)
    }

    fn begins_ours(&self, half: &[u8]) -> bool {
        self.ours.iter().any(|line| line[..line.len() - 1].starts_with(half))
    }
}

/// The bytes after the last newline.
fn half(content: &[u8]) -> &[u8] {
    &content[content.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)..]
}

fn last_line(content: &[u8]) -> Option<&[u8]> {
    let end = content.iter().rposition(|byte| *byte == b'\n')?;
    content[..end].rsplit(|byte| *byte == b'\n').next()
}

async fn filled(database: &Path) -> Store {
    let clock = Clock::system();
    let unloaded = store::open_sqlite(database, &clock).await.unwrap();
    let (store, connection) = unloaded.load(|_| {}).await.unwrap();
    // Nobody reads the notices of commits.
    let (committed, _) = mpsc::channel::<Committed>(1);
    let (writer, task) = Writer::new(connection, committed, usize::MAX);
    tokio::spawn(task.run());
    let now = clock.date();
    for n in 0..OUTCOMES {
        let pin: pinwatch::pin::PinId = format!("PIN-{n}").parse().unwrap();
        let (reference, metadata) = (None, None);
        let new = NewPin {
            pin: pin.clone(),
            reference,
            metadata,
            submitted_at: now,
            deadline_at: now.wall,
            submitter: None,
            again: false,
        };
        writer.submit(vec![new]).await.unwrap();
        let (ending, deliveries, error) = (Ending::Final, None, None);
        writer.try_finish(Verdict { pin, ending, deliveries, error, polls: 1, finished_at: now }).unwrap();
    }
    writer.flush().await.unwrap();
    store
}
