//! The parts of the process that a configuration depends on: variables, user, working directory.
//!
//! Reads the process's environment only in [`Environment::of_process`]: tests give their own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// Where a configuration is looked for without `--config`.
pub const SYSTEM_FILE: &str = "/etc/pinwatch/pinwatch.toml";

/// The origin of a value that `--set` gave.
pub(super) const COMMAND_LINE: &str = "--set";

/// The parts of the process that a configuration depends on; tests give their own. No `Debug`: variables may hold secrets.
#[derive(Clone)]
pub struct Environment {
    pub variables: BTreeMap<String, OsString>,
    /// The effective user; 0 is root.
    pub uid: u32,
    /// The file that is taken without `--config`, if it is there.
    pub system_file: PathBuf,
    /// Where relative paths of the environment and of `--set` begin; empty: they are refused.
    pub working_directory: PathBuf,
}

impl Default for Environment {
    /// Root with no variables.
    fn default() -> Self {
        Self {
            variables: BTreeMap::new(),
            uid: 0,
            system_file: SYSTEM_FILE.into(),
            working_directory: PathBuf::new(),
        }
    }
}

impl Environment {
    /// That of this process.
    pub fn of_process() -> Self {
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect();
        Self {
            variables,
            uid: rustix::process::geteuid().as_raw(),
            system_file: SYSTEM_FILE.into(),
            // Without one, only absolute paths are taken.
            working_directory: std::env::current_dir().unwrap_or_default(),
        }
    }

    /// An absolute path; XDG's specification has relative ones ignored. So is one that isn't
    /// UTF-8: it could not be shown, nor written into a configuration.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.variables.get(name)?.to_str().map(PathBuf::from).filter(|path| path.is_absolute())
    }
}
