//! The end of a result file: its last whole line, and the bytes after it.
//!
//! A crash or a full disk can leave the first part of a line. Promises to cut off only what it has read. Must not decide whose
//! the incomplete line is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The beginning of every line of ours.
pub const LINE_START: &[u8] = b"{\"seq\":";

/// The size in bytes of the first piece that is read from the end; the next pieces are larger.
const FIRST_PIECE: u64 = 64 * 1024;

/// The longest possible line of ours, in bytes: intake limits the submitter's data, and the poll limits the API's.
const LONGEST_LINE: u64 = 16 * 1024 * 1024;

/// The end of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct End {
    /// The file's length in bytes.
    pub length: u64,
    /// The last whole line, without its newline.
    pub line: Option<Vec<u8>>,
    /// The bytes after the last newline.
    pub half: Vec<u8>,
}

impl End {
    /// Reads the end of a file.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn of(file: &File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let mut size = FIRST_PIECE;
        loop {
            let start = length.saturating_sub(size);
            let piece = read(file, start, length)?;
            let half_start = piece.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let lines = &piece[..half_start.saturating_sub(1)];
            let line_start = match lines.iter().rposition(|byte| *byte == b'\n') {
                Some(at) => Some(at + 1),
                None => (start == 0 && half_start > 0).then_some(0),
            };
            if line_start.is_none() && start > 0 && size < LONGEST_LINE {
                size *= 4;
                continue;
            }
            let line = line_start.map(|at| lines[at..].to_vec());
            return Ok(Self { length, line, half: piece[half_start..].to_vec() });
        }
    }

    /// Whether the bytes after the last line look like the beginning of a line of ours.
    pub fn begins_like_ours(&self) -> bool {
        // Otherwise the line began before the part that was read.
        let is_whole = self.line.is_some() || self.is_one_half();
        is_whole && (self.half.starts_with(LINE_START) || LINE_START.starts_with(&self.half))
    }

    /// Whether these bytes are all zero, which some file systems leave after a power cut during a write.
    pub fn is_zeros(&self) -> bool {
        self.half.iter().all(|byte| *byte == 0)
    }

    /// Cuts off everything after the last newline.
    ///
    /// # Errors
    /// The file has changed since its end was read, or can't be cut.
    pub fn cut(&self, file: &File) -> io::Result<()> {
        if file.metadata()?.len() != self.length {
            return Err(io::Error::other("somebody else is writing to it"));
        }
        file.set_len(self.length - self.half.len() as u64)
    }

    /// Whether there is no newline in the whole file.
    pub fn is_one_half(&self) -> bool {
        self.length == self.half.len() as u64
    }

    /// Whether the whole file contains only [zeros](Self::is_zeros).
    pub fn is_empty(&self) -> bool {
        self.is_one_half() && self.is_zeros()
    }
}

/// The bytes from `start` to `end`, or to the end of the file if somebody truncated it meanwhile.
pub fn read(file: &File, start: u64, end: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(end.saturating_sub(start)).map_err(io::Error::other)?];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], start + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end_of(content: &[u8]) -> End {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&path, content).unwrap();
        End::of(path.as_file()).unwrap()
    }

    #[test]
    fn the_last_whole_line_is_told_apart_from_the_incomplete_one_after_it() {
        for (content, line, half) in [
            ("", None, ""),
            ("half", None, "half"),
            ("\n", Some(""), ""),
            ("one\n", Some("one"), ""),
            ("one\ntwo\n", Some("two"), ""),
            ("one\ntwo\nhalf", Some("two"), "half"),
            ("one\n\n", Some(""), ""),
        ] {
            let end = end_of(content.as_bytes());
            assert_eq!(end.line.as_deref(), line.map(str::as_bytes), "{content:?}");
            assert_eq!(
                (end.half.as_slice(), end.length),
                (half.as_bytes(), content.len() as u64),
                "{content:?}"
            );
        }
    }

    #[test]
    fn lines_longer_than_one_read_are_read_completely() {
        for size in [FIRST_PIECE - 1, FIRST_PIECE, 5 * FIRST_PIECE] {
            let long = "x".repeat(usize::try_from(size).unwrap());
            let end = end_of(format!("one\n{long}\n{long}").as_bytes());
            assert!(end.line.as_deref() == Some(long.as_bytes()) && end.half == long.as_bytes(), "{size}");
        }
    }

    #[test]
    fn an_incomplete_line_counts_as_ours_if_it_begins_like_a_record() {
        for (half, ours) in
            [("{", true), ("{\"seq\":", true), ("{\"seq\":12,\"", true), ("{\"a\"", false), ("x", false)]
        {
            assert_eq!(end_of(half.as_bytes()).begins_like_ours(), ours, "{half}");
        }
        assert!(end_of(b"\0\0").is_empty() && end_of(b"").is_empty());
        assert!(!end_of(b"one\n\0\0").is_empty() && end_of(b"one\n\0\0").is_zeros());
    }
}
