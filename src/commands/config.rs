//! Reads the configuration for a command: `--config` and `--set`, on top of this process's environment.
//!
//! No other command module reads the environment for it.

use std::path::{Path, PathBuf};

use super::globals::Globals;
pub use crate::config::ConfigError;
use crate::config::{Config, Environment, Explained, Sources, StoreUrl};

/// Where the packaged unit takes credentials from (LoadCredential=).
const CREDENTIALS: &str = "/etc/pinwatch";

/// The daemon's configuration, file, then environment, then `--set`, with where each value came from.
pub fn explain(globals: &Globals) -> Result<Explained, ConfigError> {
    Config::explain(&sources(globals))
}

/// The same for somebody who is not the daemon: credentials that systemd hands to it alone are looked for where
/// systemd takes them from.
pub fn explain_beside_daemon(globals: &Globals) -> Result<Explained, ConfigError> {
    let mut sources = sources(globals);
    let credential = Path::new(CREDENTIALS).join("api-key");
    // Only what can be read: for all others the message is that there are no credentials.
    if std::fs::File::open(credential).is_ok() {
        let variables = &mut sources.environment.variables;
        variables.entry("CREDENTIALS_DIRECTORY".to_owned()).or_insert_with(|| CREDENTIALS.into());
    }
    Config::explain(&sources)
}

/// The socket that a client connects to: the given one, or where the daemon's configuration puts it.
pub fn client_socket(globals: &Globals, given: Option<&PathBuf>) -> Result<PathBuf, ConfigError> {
    match given {
        Some(path) => Ok(path.clone()),
        None => crate::config::client_socket(&sources(globals)),
    }
}

/// Where the daemon keeps its PINs.
pub fn store_url(globals: &Globals) -> Result<StoreUrl, ConfigError> {
    crate::config::store_url(&sources(globals))
}

/// Where the configuration is read.
pub fn sources(globals: &Globals) -> Sources {
    Sources {
        file: globals.config.clone(),
        environment: Environment::of_process(),
        set: globals.sets.clone(),
    }
}
