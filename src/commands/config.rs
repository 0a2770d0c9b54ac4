//! The configuration as the command line gives it: `--config` and `--set`, over this process's environment.
//!
//! The one place of the commands that knows the process's environment.

use std::path::PathBuf;

use super::cli::Globals;
pub use crate::config::ConfigError;
use crate::config::{Config, Environment, Explained, Sources};

/// The daemon's configuration, file, then environment, then `--set`, with where each value came from.
pub fn explain(globals: &Globals) -> Result<Explained, ConfigError> {
    Config::explain(&sources(globals))
}

/// The socket that a client connects to: as told, or where the daemon's configuration puts it.
pub fn client_socket(globals: &Globals, told: Option<&PathBuf>) -> Result<PathBuf, ConfigError> {
    match told {
        Some(path) => Ok(path.clone()),
        None => crate::config::client_socket(&sources(globals)),
    }
}

/// Where the configuration is read.
pub fn sources(globals: &Globals) -> Sources {
    Sources {
        file: globals.config.clone(),
        environment: Environment::of_process(),
        set: globals.sets.clone(),
    }
}
