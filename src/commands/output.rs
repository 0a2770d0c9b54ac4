//! Where results go: lines of JSON for programs, text for people, on stdout and nowhere else.
//!
//! Promises that a reader who goes away is an error that [`CommandError::is_broken_pipe`] knows, never a
//! panic, and that what was written is out when [`Output::flush`] returns. Notes and errors go to stderr, by
//! [`note`].

use std::fmt;
use std::io::{BufWriter, IsTerminal, Stdout, Write};

use super::error::CommandError;

/// The results of a command.
pub struct Output {
    out: BufWriter<Stdout>,
    is_json: bool,
}

impl Output {
    /// To stdout: as JSON where that was asked for, or where no person looks.
    pub fn new(json: bool) -> Self {
        let is_json = json || !std::io::stdout().is_terminal();
        Self { is_json, ..Self::for_people() }
    }

    /// To stdout, as text whoever looks.
    pub fn for_people() -> Self {
        Self { out: BufWriter::with_capacity(64 << 10, std::io::stdout()), is_json: false }
    }

    /// Whether results are lines of JSON.
    pub fn is_json(&self) -> bool {
        self.is_json
    }

    /// Writes a line of JSON as it came over the socket.
    pub fn json(&mut self, line: &[u8]) -> Result<(), CommandError> {
        self.out.write_all(line).and_then(|()| self.out.write_all(b"\n")).map_err(CommandError::Output)
    }

    /// Writes text, which has its newlines.
    pub fn text(&mut self, text: &str) -> Result<(), CommandError> {
        self.out.write_all(text.as_bytes()).map_err(CommandError::Output)
    }

    /// Sends what was written.
    pub fn flush(&mut self) -> Result<(), CommandError> {
        self.out.flush().map_err(CommandError::Output)
    }
}

/// Tells the person at the terminal something that is no result.
pub fn note(message: impl fmt::Display) {
    // Nobody left to tell that stderr is closed.
    let _ = writeln!(std::io::stderr(), "{message}");
}
