//! A client of the socket: lines out, lines in.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use super::{AMPLE, json};

pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(AMPLE))?;
        stream.set_write_timeout(Some(AMPLE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Writes lines, each with its newline, without reading anything.
    pub fn write(&mut self, lines: &str) -> io::Result<()> {
        self.stream.get_mut().write_all(lines.as_bytes())
    }

    /// The next whole line, without its newline; `None` where the daemon ended, in the middle of a line or not.
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(_) if line.pop() == Some('\n') => Some(line),
            Ok(_) => None,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                panic!("the daemon did not answer for {AMPLE:?}")
            }
            Err(_) => None,
        }
    }

    /// Asks, and gives the answer; `None` if the daemon ended first.
    pub fn try_ask(&mut self, request: &str) -> Option<Value> {
        self.write(&format!("{request}\n")).ok()?;
        Some(json(&self.line()?))
    }

    #[track_caller]
    pub fn ask(&mut self, request: &str) -> Value {
        self.try_ask(request).unwrap_or_else(|| panic!("the daemon ended before it answered {request}"))
    }

    /// What `stats` says.
    #[track_caller]
    pub fn stats(&mut self) -> Value {
        self.ask(r#"{"op":"stats"}"#)["stats"].take()
    }

    /// Every outcome record that the store has, as its line.
    #[track_caller]
    pub fn outbox(&mut self) -> Vec<String> {
        self.write("{\"op\":\"tail\",\"from\":1}\n").expect("the daemon takes a request");
        let mut records = Vec::new();
        loop {
            let line = self.line().expect("the daemon runs to the end of the tail");
            if json(&line)["end"] == true {
                return records;
            }
            records.push(line);
        }
    }
}
