//! Writes results to stdout: JSON lines for programs, text for people.
//!
//! Promises that a closed pipe is an error that [`CommandError::is_broken_pipe`] recognises, never a panic, and that everything
//! is written when [`Output::flush`] returns. Notes and errors go to stderr, through [`note`].

use std::fmt;
use std::io::{BufWriter, IsTerminal, Stdout, Write};

use clap::error::ContextValue;
use rustix::termios::tcgetwinsize;
use serde_json::{Map, Value, json};

use super::error::CommandError;
use super::exit::Exit;
use super::human::OutcomeRows;
use super::table::{self, Column};
use crate::protocol::{Code, Refusal};
use crate::text::{json_line, printable};

/// Writes the results of a command.
pub struct Output {
    out: BufWriter<Stdout>,
    is_json: bool,
    room: Option<usize>,
}

/// The note if a part of a table is left out.
const CUT: &str = "cut to fit the terminal: --wide shows all";

impl Output {
    /// Writes to stdout, as JSON or as text. Tables are as wide as the terminal, unless `is_wide`.
    pub fn new(is_json: bool, is_wide: bool) -> Self {
        let stdout = std::io::stdout();
        // There is no size without a terminal, and a terminal that does not know its width reports 0.
        let size = tcgetwinsize(&stdout).ok().filter(|size| !is_wide && size.ws_col > 0);
        let room = size.map(|size| usize::from(size.ws_col));
        Self { out: BufWriter::with_capacity(64 << 10, stdout), is_json, room }
    }

    /// Writes to stdout as text, even if it is not a terminal.
    pub fn for_people() -> Self {
        Self::new(false, false)
    }

    /// How many columns a line may have; `None` means no limit.
    pub fn room(&self) -> Option<usize> {
        self.room
    }

    /// Writes a table, and notes if columns are left out.
    pub fn table<const N: usize>(
        &mut self,
        columns: [Column; N],
        rows: &[[String; N]],
    ) -> Result<(), CommandError> {
        let (text, is_cut) = table::table(columns, rows, self.room);
        self.text(&text)?;
        if is_cut {
            self.flush()?;
            note(CUT);
        }
        Ok(())
    }

    /// Creates a table of outcomes that gets its rows one by one; notes if columns are left out.
    pub fn outcome_rows(&self, pin_width: usize) -> OutcomeRows {
        let rows = OutcomeRows::new(pin_width, self.room);
        if !self.is_json && rows.leaves_out() {
            note(CUT);
        }
        rows
    }

    /// Writes names with their values.
    pub fn pairs(&mut self, rows: &[(String, String)]) -> Result<(), CommandError> {
        self.text(&table::pairs(rows, self.room))
    }

    /// Whether results are written as lines of JSON.
    pub fn is_json(&self) -> bool {
        self.is_json
    }

    /// Writes a line of JSON and a newline.
    pub fn json(&mut self, line: &[u8]) -> Result<(), CommandError> {
        writeln!(self.out, "{}", json_line(String::from_utf8_lossy(line))).map_err(CommandError::Output)
    }

    /// Reports to a program that there is no result, and why: the protocol's error, with the members of `named` that identify the
    /// subject. Prints nothing for people; the caller writes the note.
    pub fn refused(&mut self, named: Value, refusal: &Refusal) -> Result<(), CommandError> {
        if !self.is_json {
            return Ok(());
        }
        let mut line = Map::from_iter([("ok".to_owned(), false.into())]);
        if let Value::Object(named) = named {
            line.extend(named);
        }
        line.insert("error".to_owned(), json!(refusal));
        self.json(Value::from(line).to_string().as_bytes())
    }

    /// Ends a list. If it has more pages, a program gets the position in a last line, and people get a note.
    pub fn end_list(&mut self, next: Option<&str>) -> Result<(), CommandError> {
        let Some(next) = next else { return self.flush() };
        if self.is_json {
            self.json(json!({"next": next}).to_string().as_bytes())?;
        }
        self.flush()?;
        note(format_args!("there are more: --after {next}"));
        Ok(())
    }

    /// Writes text that ends with its newline.
    pub fn text(&mut self, text: &str) -> Result<(), CommandError> {
        self.out.write_all(text.as_bytes()).map_err(CommandError::Output)
    }

    /// Flushes what was written.
    pub fn flush(&mut self) -> Result<(), CommandError> {
        self.out.flush().map_err(CommandError::Output)
    }
}

/// Writes a line that is not a result to stderr.
pub fn note(message: impl fmt::Display) {
    let line = format!("{}\n", printable(&message.to_string()));
    // If stderr is closed, nobody can be notified.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Prints clap's answer to a command line that is not run: help or the version on stdout, an error on stderr, and an error on
/// stdout too for a program that reads JSON.
pub fn clap(mut answer: clap::Error, is_json: bool) -> Result<Exit, CommandError> {
    // clap quotes the arguments, and a script may have got them from anywhere.
    let quoted: Vec<_> = answer
        .context()
        .filter_map(|(kind, value)| match value {
            ContextValue::String(text) => Some((kind, printable(text).into_owned())),
            _ => None,
        })
        .collect();
    for (kind, text) in quoted {
        answer.insert(kind, ContextValue::String(text));
    }
    let printed = answer.print();
    if answer.use_stderr() {
        if is_json {
            let text = answer.to_string();
            let what = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            let mut output = Output::new(true, false);
            output.refused(Value::Null, &Code::Other("usage".to_owned()).because(what.to_owned()))?;
            output.flush()?;
        }
        return Ok(Exit::Usage);
    }
    printed.and_then(|()| std::io::stdout().flush()).map_err(CommandError::Output)?;
    Ok(Exit::Done)
}

/// Whether text for this stream may have colours: it is a terminal, and NO_COLOR is unset or empty
/// (<https://no-color.org>).
pub fn wants_colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether the locale says that the terminal shows Unicode; POSIX defines which variable decides it.
pub fn shows_unicode() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(std::env::var_os)
        .find(|value| !value.is_empty());
    let locale = locale.unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}
