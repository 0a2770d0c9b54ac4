//! `pinwatch simulate`: a stand-in for the API, for tests, load and trying things out without an account.
//!
//! It answers like Infobip's "PIN: Get status", knows every PIN ID from the first time that it is asked for,
//! and does to its answers what APIs, proxies and networks do, when asked to. The same seed makes the same
//! lives and faults. It shares the words of the API with the daemon, and no code that reads them: what both got
//! wrong in the same way would be seen by nobody. It is no API to rely on, and has neither TLS nor secrets.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use pinwatch::simulate::{Settings, Simulator};
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let simulator = Simulator::start(Settings::default(), listener)?;
//! // … poll at simulator.base_url() with the key "demo-key" …
//! let counts = simulator.stop().await;
//! assert_eq!(counts.bad_keys, 0);
//! # Ok(())
//! # }
//! ```

mod answers;
mod counts;
mod faults;
mod life;
mod pins;
mod script;
mod server;
mod settings;

use std::io::{self, Write};
use std::net::SocketAddr;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

pub use counts::Counts;
pub use faults::{Fault, FaultRate, InvalidFault};
pub use life::{FinalForm, Known, Life, LifeSettings, Reported};
pub use server::{Simulator, StartError};
pub use settings::{Settings, SimulateArgs};

/// Why `pinwatch simulate` ended badly.
#[derive(Debug, Error)]
pub enum SimulateError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("can't listen at {addr}: {source}")]
    Listen { addr: SocketAddr, source: io::Error },
    #[error("can't wait for signals: {0}")]
    Signals(#[source] io::Error),
    #[error("can't write the base URL to standard output: {0}")]
    Output(#[source] io::Error),
}

impl SimulateError {
    /// Whether the command line was wrong, and not the machine.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Start(StartError::Fault(_) | StartError::Path(_) | StartError::Credentials))
    }
}

/// Serves until SIGINT or SIGTERM. The base URL is the one line on standard output, written when connections
/// are taken; all that is for people goes to standard error.
///
/// # Errors
/// If the arguments make no sense together, or the address can't be had.
pub async fn run(args: SimulateArgs) -> Result<(), SimulateError> {
    let SimulateArgs { listen: addr, settings } = args;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(SimulateError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(SimulateError::Signals)?;
    let listener = TcpListener::bind(addr).await.map_err(|source| SimulateError::Listen { addr, source })?;
    let greeting = settings.clone();
    let simulator = Simulator::start(settings, listener)?;

    let base = simulator.base_url();
    writeln!(io::stdout(), "{base}").and_then(|()| io::stdout().flush()).map_err(SimulateError::Output)?;
    greet(&base, &greeting);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    print(&simulator.stop().await.to_string());
    Ok(())
}

/// How to use it, as lines to copy.
fn greet(base: &str, settings: &Settings) {
    let key = &settings.key;
    let path = settings.path.replace("{pinId}", "sim-5s-1");
    print(&format!("A stand-in for the API listens at {base} and expects the key {key:?}."));
    print(&format!("  curl -H 'Authorization: App {key}' {base}{path}"));
    print(&format!("  PINWATCH__API__KEY={key} pinwatch run --set api.base_url={base}"));
}

/// A line for people. Where nobody reads them any more, the simulator goes on.
fn print(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
