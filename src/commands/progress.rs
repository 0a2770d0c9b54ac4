//! A progress bar on a terminal's stderr; nothing elsewhere.
//!
//! Promises that notes and rows printed through it appear whole, above the bar.

use std::fmt;

use indicatif::{ProgressBar, ProgressStyle};

use super::output::note;

/// A progress bar, or nothing.
pub struct Progress(ProgressBar);

impl Progress {
    /// Shows no bar.
    pub fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// Shows how many bytes of a file are read. Hidden if stderr is not a terminal, like all bars.
    pub fn of_bytes(total: u64) -> Self {
        Self::styled(total, "{bar:30} {percent}% {msg}  {elapsed}, {eta} left")
    }

    /// Shows how many of the PINs have an outcome.
    pub fn of_outcomes(total: u64) -> Self {
        Self::styled(total, "{bar:30} {pos}/{len} outcomes  {elapsed}")
    }

    /// Shows how many of the matches are done.
    pub fn of_matches(total: u64) -> Self {
        Self::styled(total, "{bar:30} {pos}/{len}  {elapsed}, {eta} left")
    }

    /// Shows how many of the rows are moved.
    pub fn of_rows() -> Self {
        Self::styled(0, "{bar:30} {percent}% {pos}/{len} rows  {elapsed}, {eta} left")
    }

    /// Shows the lines that [`Self::message`] sets.
    pub fn of_lines() -> Self {
        Self::styled(0, "{msg}")
    }

    /// Whether the bar is visible.
    pub fn is_shown(&self) -> bool {
        !self.0.is_hidden()
    }

    fn styled(total: u64, template: &str) -> Self {
        let bar = ProgressBar::new(total);
        // If one of these fixed templates can't be parsed, the default style stays.
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

    /// Writes a line to stderr, above the bar.
    pub fn note(&self, message: impl fmt::Display) {
        self.0.suspend(|| note(message));
    }

    /// Hides the bar while `write` writes to the terminal.
    pub fn above<T>(&self, write: impl FnOnce() -> T) -> T {
        self.0.suspend(write)
    }

    /// Removes the bar.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}
