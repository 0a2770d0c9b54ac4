//! `pinwatch run` and `pinwatch simulate`: the commands that stay.
//!
//! Reads the configuration, starts the log and the runtime, and hands over. What the daemon does, and how it
//! stops, is the daemon's.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::cli::Globals;
use super::config;
use super::error::CommandError;
use super::exit::Exit;
use super::logging;
use crate::config::{Log, LogFormat};
use crate::daemon::{DaemonError, Outside};
use crate::intake::Passed;
use crate::simulate::{self, SimulateArgs};

/// How long file work that is under way may take once the daemon has ended.
const LAST_PATIENCE: Duration = Duration::from_millis(500);

pub fn run(globals: &Globals) -> Result<Exit, CommandError> {
    // First of all: it changes the environment, which must not have threads yet.
    let socket = Passed::take().map_err(DaemonError::Socket)?;
    let configured = config::explain(globals)?;
    let set_log = logging::start(&configured.config.log)?;
    let outside = Outside { socket, sources: config::sources(globals), set_log };
    let runtime = runtime()?;
    let ended = runtime.block_on(crate::daemon::run(configured, outside));
    // A write that hangs, to a pipe that nobody reads or a file server that is gone, must not keep the process.
    runtime.shutdown_timeout(LAST_PATIENCE);
    ended?;
    Ok(Exit::Done)
}

pub fn simulate(args: SimulateArgs) -> Result<Exit, CommandError> {
    let _unchanged = logging::start(&Log { level: "info".to_owned(), format: LogFormat::Text })?;
    runtime()?.block_on(simulate::run(args))?;
    Ok(Exit::Done)
}

fn runtime() -> Result<Runtime, CommandError> {
    Builder::new_multi_thread().enable_all().build().map_err(CommandError::Runtime)
}
