//! Splits bytes into lines of a limited length. Reports a line that is too long once, and skips the rest of it.
//!
//! Guarantees that the buffer holds no more than [`MAX_LINE`] bytes of an unfinished line and what was read last.
//! Must not know what a line means.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;

use crate::protocol::{Code, MAX_LINE, Refusal};

/// A line found in the bytes read so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A complete line, without its newline.
    Whole(Bytes),
    /// A line longer than [`MAX_LINE`]; reported once, as soon as the bytes show it.
    TooLong,
}

/// The answer to a line that is too long.
pub fn too_long() -> Refusal {
    Code::LineTooLong.because(format!("a line has at most {} KiB; this one was skipped", MAX_LINE / 1024))
}

/// Splits bytes into lines.
#[derive(Debug, Default)]
pub struct Lines {
    /// The bytes that are not split yet; the caller reads into it.
    pub buffer: BytesMut,
    /// The number of bytes at the start of `buffer` that hold no newline.
    searched: usize,
    skipping: bool,
}

impl Lines {
    /// Returns the next line, if it is complete or too long.
    pub fn next_line(&mut self) -> Option<Line> {
        loop {
            let newline = memchr(b'\n', &self.buffer[self.searched..]).map(|at| self.searched + at);
            match newline {
                Some(end) => {
                    let line = self.buffer.split_to(end).freeze();
                    self.buffer.advance(1);
                    self.searched = 0;
                    if std::mem::take(&mut self.skipping) {
                        continue;
                    }
                    return Some(if line.len() > MAX_LINE { Line::TooLong } else { Line::Whole(line) });
                }
                None if self.skipping => {
                    self.buffer.clear();
                    self.searched = 0;
                    return None;
                }
                None if self.buffer.len() > MAX_LINE => {
                    self.buffer.clear();
                    self.searched = 0;
                    self.skipping = true;
                    return Some(Line::TooLong);
                }
                None => {
                    self.searched = self.buffer.len();
                    return None;
                }
            }
        }
    }

    /// Returns the last line, whose newline may be missing. Only for input that ended as it should.
    pub fn last_line(&mut self) -> Option<Line> {
        let is_line = !std::mem::take(&mut self.skipping) && !self.buffer.is_empty();
        self.searched = 0;
        is_line.then(|| Line::Whole(self.buffer.split().freeze()))
    }

    /// Returns whether a line has begun and not ended.
    pub fn in_the_middle(&self) -> bool {
        self.skipping || !self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(chunks: &[&[u8]]) -> (Vec<Line>, bool) {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for chunk in chunks {
            lines.buffer.extend_from_slice(chunk);
            found.extend(std::iter::from_fn(|| lines.next_line()));
        }
        (found, lines.in_the_middle())
    }

    fn whole(text: &str) -> Line {
        Line::Whole(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn lines_are_found_even_if_reads_split_them() {
        assert_eq!(cut(&[b"a\nb", b"c\n", b"\n"]), (vec![whole("a"), whole("bc"), whole("")], false));
        assert_eq!(cut(&[b"a\nb"]), (vec![whole("a")], true));
    }

    #[test]
    fn a_line_that_is_too_long_is_reported_once_and_the_next_one_is_read() {
        let longest = "x".repeat(MAX_LINE);
        assert_eq!(cut(&[longest.as_bytes(), b"\n"]), (vec![whole(&longest)], false));
        for tail in [&b"x\nok\n"[..], b"xxx\nok\n"] {
            assert_eq!(cut(&[longest.as_bytes(), tail]), (vec![Line::TooLong, whole("ok")], false));
        }
        let endless = vec![b'x'; MAX_LINE];
        let (found, middle) = cut(&[&endless, &endless, &endless]);
        assert_eq!((found, middle), (vec![Line::TooLong], true));
    }

    proptest! {
        #[test]
        fn the_lines_do_not_depend_on_where_the_chunks_end(text in "[ab\n]{0,60}", at in 0usize..60) {
            let at = at.min(text.len());
            let (head, rest) = text.as_bytes().split_at(at);
            prop_assert_eq!(cut(&[head, rest]), cut(&[text.as_bytes()]));
        }
    }
}
