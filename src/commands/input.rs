//! Reads the PINs for `submit`: arguments, a file or stdin, one entry each.
//!
//! Reads on its own thread through a bounded queue: files and terminals block, and a file of a million PINs is never in memory.
//! Promises that every entry that it accepts makes a valid request, and that no line takes more memory than the bound. Must not
//! know sockets.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Stdin};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;

use super::error::CommandError;
use crate::outcome::Metadata;
use crate::protocol::submit::Request;
use crate::protocol::{Code, MAX_LINE, Refusal, parse_fields, parse_pin_id};

/// How many entries are read ahead.
const AHEAD: usize = 1024;

/// Where the PINs come from.
pub enum Source {
    Arguments(Vec<String>),
    Stdin(Stdin),
    File { file: File, path: PathBuf },
}

/// One PIN to submit.
pub struct Entry {
    /// Its line in the file; `None` for an argument.
    pub line: Option<u64>,
    /// The file's bytes up to the end of this entry.
    pub bytes: u64,
    /// The request; or the entry's text, shortened, and why it can't be submitted.
    pub what: Result<Request, (String, Refusal)>,
}

/// The entries in order. An error is always the last item.
pub type Entries = mpsc::Receiver<Result<Entry, CommandError>>;

/// The values for entries that do not have their own.
#[derive(Debug, Clone, Default)]
pub struct Defaults {
    pub reference: Option<String>,
    pub metadata: Option<Metadata>,
    pub deadline: Option<Duration>,
    pub again: bool,
}

impl Defaults {
    fn fill(&self, request: Request) -> Request {
        Request {
            pin_id: request.pin_id,
            reference: request.reference.or_else(|| self.reference.clone()),
            metadata: request.metadata.or_else(|| self.metadata.clone()),
            deadline: request.deadline.or(self.deadline),
            again: request.again || self.again,
        }
    }
}

/// Reads all entries of `source`.
pub fn entries(source: Source, defaults: Defaults) -> Entries {
    let (sender, receiver) = mpsc::channel(AHEAD);
    // Detached on purpose: a thread that waits for a terminal can't be joined. It ends with the queue or the process.
    std::thread::spawn(move || {
        // Fails only if the receiver is gone and needs no more entries.
        let _unwanted = match source {
            Source::Arguments(ids) => arguments(ids, &defaults, &sender),
            Source::Stdin(stdin) => lines(BufReader::new(stdin), Path::new("stdin"), &defaults, &sender),
            Source::File { file, path } => {
                lines(BufReader::with_capacity(256 << 10, file), &path, &defaults, &sender)
            }
        };
    });
    receiver
}

type Queue = mpsc::Sender<Result<Entry, CommandError>>;

/// The receiver of the entries is gone.
struct Unwanted;

fn arguments(ids: Vec<String>, defaults: &Defaults, queue: &Queue) -> Result<(), Unwanted> {
    ids.into_iter().try_for_each(|id| {
        let what = parse_pin_id(&id)
            .map(|pin| defaults.fill(Request::of(pin)))
            .map_err(|refusal| (shortened(&id), refusal));
        send(queue, Ok(Entry { line: None, bytes: 0, what }))
    })
}

fn send(queue: &Queue, entry: Result<Entry, CommandError>) -> Result<(), Unwanted> {
    queue.blocking_send(entry).map_err(|_| Unwanted)
}

fn lines(mut reader: impl BufRead, path: &Path, defaults: &Defaults, queue: &Queue) -> Result<(), Unwanted> {
    let (mut number, mut bytes, mut line) = (0, 0, Vec::new());
    loop {
        line.clear();
        let taken = match bounded_line(&mut reader, &mut line) {
            Ok(0) => return Ok(()),
            Ok(taken) => taken,
            Err(error) => {
                return send(queue, Err(CommandError::File { what: "read", path: path.to_owned(), error }));
            }
        };
        number += 1;
        bytes += taken;
        let text = String::from_utf8_lossy(&line);
        // Windows editors put a byte order mark at the beginning of a file.
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let what = entry(text, taken, defaults).map_err(|refusal| (shortened(text), refusal));
        send(queue, Ok(Entry { line: Some(number), bytes, what }))?;
    }
}

/// Reads a line and returns its length in bytes; skips the part beyond the bound.
fn bounded_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<u64> {
    let mut taken = reader.by_ref().take(MAX_LINE as u64).read_until(b'\n', line)? as u64;
    if taken < MAX_LINE as u64 || line.ends_with(b"\n") {
        return Ok(taken);
    }
    loop {
        let rest = reader.fill_buf()?;
        let end = memchr::memchr(b'\n', rest).map(|end| end + 1);
        let skipped = end.unwrap_or(rest.len());
        let is_over = end.is_some() || rest.is_empty();
        reader.consume(skipped);
        taken += skipped as u64;
        if is_over {
            return Ok(taken);
        }
    }
}

fn entry(text: &str, bytes: u64, defaults: &Defaults) -> Result<Request, Refusal> {
    if bytes > MAX_LINE as u64 {
        let problem = format!("a line has at most {MAX_LINE} bytes, and this one has {bytes}");
        return Err(Code::LineTooLong.because(problem));
    }
    let request = if text.starts_with('{') { parse_fields(text)? } else { Request::of(parse_pin_id(text)?) };
    Ok(defaults.fill(request))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Entry> {
        let (sender, mut receiver) = mpsc::channel(100);
        let defaults = Defaults { reference: Some("default".into()), ..Defaults::default() };
        assert!(lines(text.as_bytes(), Path::new("test"), &defaults, &sender).is_ok());
        drop(sender);
        std::iter::from_fn(|| receiver.blocking_recv()).map(Result::unwrap).collect()
    }

    #[test]
    fn blank_lines_and_comments_are_skipped_and_lines_keep_their_numbers() {
        let read = read("\u{feff}# mine\r\n\r\n  9C81 \r\n\n{\"pinId\":\"9C82\",\"reference\":\"r\"}");
        let given: Vec<_> = read
            .into_iter()
            .map(|entry| {
                entry.what.map(|given| (entry.line, given.pin_id.to_string(), given.reference)).unwrap()
            })
            .collect();
        assert_eq!(given[0], (Some(3), "9C81".into(), Some("default".into())));
        assert_eq!(given[1], (Some(5), "9C82".into(), Some("r".into())));
    }

    #[test]
    fn a_line_that_the_daemon_would_refuse_is_refused_with_the_same_code() {
        for (line, code) in [
            ("a/b", "invalid_pin_id"),
            ("{\"pinId\":\"..\"}", "invalid_pin_id"),
            ("{\"pinId\":", "invalid_json"),
            ("{\"pinID\":\"9C81\"}", "invalid_request"),
            ("{\"pinId\":\"9C81\",\"deadline\":\"30\"}", "invalid_request"),
        ] {
            let (_, refusal) = read(line).remove(0).what.unwrap_err();
            assert_eq!(refusal.code.to_string(), code, "{line}");
        }
    }

    #[test]
    fn an_endless_line_is_refused_within_the_bound_and_the_next_one_is_read() {
        let mut read = read(&format!("{}\n9C81\n", "x".repeat(3 * MAX_LINE)));
        assert_eq!(read.remove(0).what.unwrap_err().1.code, Code::LineTooLong);
        assert_eq!(read.remove(0).what.unwrap().pin_id.as_str(), "9C81");
    }
}
