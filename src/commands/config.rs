//! Reads the configuration for a command: `--config` and `--set`, on top of this process's environment.
//!
//! No other command module reads the environment for it.

use std::path::{Path, PathBuf};

use super::globals::Globals;
pub use crate::config::ConfigError;
use crate::config::{Config, Environment, Explained, Sources, StoreUrl};

/// The packaged unit takes credentials from this folder (LoadCredential=).
const CREDENTIALS: &str = "/etc/pinwatch";

/// Reads the daemon's configuration: the file, then the environment, then `--set`, with the origin of each value.
pub fn explain(globals: &Globals) -> Result<Explained, ConfigError> {
    Config::explain(&sources(globals))
}

/// As [`explain`], for a process other than the daemon: systemd passes credentials only to the daemon, so they are read from
/// the folder from which systemd takes them.
pub fn explain_beside_daemon(globals: &Globals) -> Result<Explained, ConfigError> {
    let mut sources = sources(globals);
    let credential = Path::new(CREDENTIALS).join("api-key");
    // Only if the file can be read. All others get the message that there are no credentials.
    if std::fs::File::open(credential).is_ok() {
        let variables = &mut sources.environment.variables;
        variables.entry("CREDENTIALS_DIRECTORY".to_owned()).or_insert_with(|| CREDENTIALS.into());
    }
    Config::explain(&sources)
}

/// Returns the socket to connect to: the given one, the one that PINWATCH_SOCKET names, or the one of the configuration. An empty
/// variable counts as none: a script may have set it from a command that failed.
pub fn client_socket(globals: &Globals, given: Option<&PathBuf>) -> Result<PathBuf, ConfigError> {
    let named = std::env::var_os("PINWATCH_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from);
    match given.cloned().or(named) {
        Some(path) => Ok(path),
        None => crate::config::client_socket(&sources(globals)),
    }
}

/// Returns the URL of the daemon's store.
pub fn store_url(globals: &Globals) -> Result<StoreUrl, ConfigError> {
    crate::config::store_url(&sources(globals))
}

/// Returns the sources of the configuration.
pub fn sources(globals: &Globals) -> Sources {
    Sources {
        file: globals.config.clone(),
        environment: Environment::of_process(),
        set: globals.sets.clone(),
    }
}
