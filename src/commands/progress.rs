//! A progress bar on a terminal's stderr; nothing elsewhere.
//!
//! Promises that notes and rows printed through it appear whole, above the bar.

use std::fmt;

use indicatif::{ProgressBar, ProgressStyle};

use super::output::note;

/// A bar, or none.
pub struct Progress(ProgressBar);

impl Progress {
    /// No bar.
    pub fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// How much of a file's bytes is read; hides itself where stderr is no terminal.
    pub fn of_bytes(total: u64) -> Self {
        Self::styled(total, "{bar:30} {percent}% {msg}  {elapsed}, {eta} left")
    }

    /// How many of the PINs have an outcome.
    pub fn of_outcomes(total: u64) -> Self {
        Self::styled(total, "{bar:30} {pos}/{len} outcomes  {elapsed}")
    }

    /// How many of the rows are moved.
    pub fn of_rows() -> Self {
        Self::styled(0, "{bar:30} {percent}% {pos}/{len} rows  {elapsed}, {eta} left")
    }

    /// Lines that change, given by [`Self::message`].
    pub fn of_lines() -> Self {
        Self::styled(0, "{msg}")
    }

    /// Whether anybody sees it.
    pub fn is_shown(&self) -> bool {
        !self.0.is_hidden()
    }

    fn styled(total: u64, template: &str) -> Self {
        let bar = ProgressBar::new(total);
        // The templates are ours; one that can't be read leaves the default style.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self(bar)
    }

    pub fn set(&self, position: u64) {
        self.0.set_position(position);
    }

    pub fn set_of(&self, position: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(position);
    }

    pub fn message(&self, message: impl FnOnce() -> String) {
        if self.is_shown() {
            self.0.set_message(message());
        }
    }

    /// A line on stderr.
    pub fn note(&self, message: impl fmt::Display) {
        self.0.suspend(|| note(message));
    }

    /// Does something that writes to the terminal.
    pub fn above<T>(&self, write: impl FnOnce() -> T) -> T {
        self.0.suspend(write)
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}
