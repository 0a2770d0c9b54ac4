//! A machine whose wall clock is wrong, and is set while the daemon runs. The other clocks are right.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use super::not_run::not_run;

/// Makes programs see another wall-clock time: Debian's package `faketime`. CI must have it.
pub struct WrongClock {
    library: PathBuf,
    /// The library looks into it at each question.
    offset: PathBuf,
}

impl WrongClock {
    /// `what` is not tested where the package is missing. `offset` is as in `+30d` or `-2h`.
    pub fn new(what: &str, folder: &Path, offset: &str) -> Option<Self> {
        let folders = fs::read_dir("/usr/lib").ok()?.flatten();
        let found = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1"));
        let Some(library) = found.into_iter().find(|path| path.exists()) else {
            not_run(what, "the package faketime");
            return None;
        };
        let clock = Self { library, offset: folder.join("offset") };
        clock.set(offset).expect("the test's folder can be written");
        Some(clock)
    }

    /// Sets the clock, to be off by so much.
    pub fn set(&self, offset: &str) -> io::Result<()> {
        // Under another name first, so that nobody reads an incomplete file.
        let new = self.offset.with_extension("new");
        fs::write(&new, offset)?;
        fs::rename(new, &self.offset)
    }

    /// Runs the command by this clock.
    pub fn on(&self, mut command: Command) -> Command {
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.env("FAKETIME_TIMESTAMP_FILE", &self.offset).env("FAKETIME_NO_CACHE", "1");
        command
    }
}
