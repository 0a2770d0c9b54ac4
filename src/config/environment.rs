//! The properties of the process that a configuration depends on.
//!
//! Only [`Environment::of_process`] reads the process's real environment; tests pass their own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// The configuration file without `--config`.
pub const SYSTEM_FILE: &str = "/etc/pinwatch/pinwatch.toml";

/// The origin of a value given by `--set`.
pub(super) const COMMAND_LINE: &str = "--set";

/// The properties of the process that the configuration depends on. Has no `Debug`, because variables may hold secrets.
#[derive(Clone)]
pub struct Environment {
    pub variables: BTreeMap<String, OsString>,
    /// The effective user ID; 0 is root.
    pub uid: u32,
    /// The file that is read without `--config`, if it exists.
    pub system_file: PathBuf,
    /// Relative paths from the environment and `--set` are relative to this folder. If it is empty, they are refused.
    pub working_directory: PathBuf,
}

impl Default for Environment {
    /// Root without any variables.
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
    /// Reads the environment of this process.
    pub fn of_process() -> Self {
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect();
        Self {
            variables,
            uid: rustix::process::geteuid().as_raw(),
            system_file: SYSTEM_FILE.into(),
            // Without a working directory, only absolute paths are accepted.
            working_directory: std::env::current_dir().unwrap_or_default(),
        }
    }

    /// Returns the variable's absolute path. Ignores relative paths, as XDG's specification demands, and paths that are not
    /// UTF-8, because those can't be shown or written into a configuration.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.variables.get(name)?.to_str().map(PathBuf::from).filter(|path| path.is_absolute())
    }
}
