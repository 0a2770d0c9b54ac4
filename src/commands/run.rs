//! `pinwatch run` and `pinwatch simulate`: the long-running commands.
//!
//! Read the configuration, start the log and the runtime, and start the daemon. Must not know what the daemon does or how it
//! stops.

use std::num::NonZeroUsize;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::config;
use super::error::CommandError;
use super::exit::Exit;
use super::globals::Globals;
use super::logging::Log;
use crate::config::{Log as LogSettings, LogFormat};
use crate::daemon::{self, DaemonError, Inherited, Outside, Signals};
use crate::simulate::{self, SimulateArgs};
use crate::text::printable;

/// The environment variable that sets tokio's number of threads.
const WORKER_THREADS: &str = "TOKIO_WORKER_THREADS";

/// The most threads: no machine needs more, and each takes memory.
const MOST_THREADS: usize = 1024;

/// How long file operations in progress may still take after the daemon has ended.
const LAST_TIMEOUT: Duration = Duration::from_millis(500);

pub fn run(globals: &Globals) -> Result<Exit, CommandError> {
    // Must come first, because it changes the environment, which is safe only before other threads run.
    let inherited = Inherited::take().map_err(DaemonError::Socket)?;
    let runtime = runtime()?;
    let signals = runtime.block_on(async { Signals::listen() }).map_err(DaemonError::Signals)?;
    let configured = config::explain(globals)?;
    let (log, set_log) = Log::start(&configured.config.log)?;
    let outside = Outside { inherited, sources: config::sources(globals), set_log };
    let ended = runtime.block_on(daemon::run(configured, outside, signals));
    // A blocked write, to a pipe that nobody reads or to a file server that is gone, must not keep the process alive.
    runtime.shutdown_timeout(LAST_TIMEOUT);
    Ok(log.end(ended))
}

pub fn simulate(args: SimulateArgs) -> Result<Exit, CommandError> {
    let runtime = runtime()?;
    let (log, _) = Log::start(&LogSettings { level: "info".to_owned(), format: LogFormat::Text })?;
    Ok(log.end(runtime.block_on(simulate::run(args))))
}

/// Creates a runtime with as many threads as the machine has processors, or as tokio's environment variable says. Checks that
/// variable first, because tokio panics if its value is invalid.
fn runtime() -> Result<Runtime, CommandError> {
    let threads = match std::env::var_os(WORKER_THREADS) {
        None => thread::available_parallelism().map_or(1, NonZeroUsize::get),
        Some(given) => {
            let threads = given.to_str().and_then(|given| given.trim().parse().ok());
            threads.filter(|threads| (1..=MOST_THREADS).contains(threads)).ok_or_else(|| {
                let given = printable(&given.to_string_lossy()).into_owned();
                CommandError::Usage(format!(
                    "{WORKER_THREADS}={given} in the environment: must be a whole number from 1 to {MOST_THREADS}, or \
                     not set: then there are as many threads as processors"
                ))
            })?
        }
    };
    Builder::new_multi_thread().worker_threads(threads).enable_all().build().map_err(CommandError::Runtime)
}
