//! `pinwatch simulate`: a stand-in for the API, for tests, load and trials without an account.
//!
//! Answers like Infobip's "PIN: Get status" or like another preset's API (`preset.rs`), accepts every PIN ID from its first
//! request on, and imitates the faults of APIs, proxies and networks when asked to. Guarantees that the same seed produces the
//! same lives and faults. Shares the names of the API's statuses with the daemon, but no code that reads answers: otherwise no
//! test would notice a misunderstanding that both share. Must not be used as a real API: it has neither TLS nor secrets.
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
mod preset;
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
pub use preset::Preset;
pub use server::{Simulator, StartError};
pub use settings::{Settings, SimulateArgs};

/// Why `pinwatch simulate` failed.
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
    /// Returns whether the command line caused the failure, and not the machine.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Start(StartError::Fault(_) | StartError::Path(_) | StartError::Credentials))
    }
}

/// Serves until SIGINT or SIGTERM. Writes the base URL as the only line on standard output, once it accepts
/// connections; text for people goes to standard error.
///
/// # Errors
/// The arguments contradict each other, or the address is not available.
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

/// Prints how to use the simulator, as lines to copy.
fn greet(base: &str, settings: &Settings) {
    let (username, password) = settings.user();
    let path = settings.path().replace("{pinId}", "sim-5s-1").replace("{username}", username);
    if settings.preset.is_basic() {
        let preset = settings.preset.name();
        print(&format!(
            "A simulated API listens at {base} and expects the user {username:?} with the password {password:?}."
        ));
        print(&format!("  curl -u '{username}:{password}' '{base}{path}'"));
        print(&format!(
            "  PINWATCH__API__USERNAME={username} PINWATCH__API__PASSWORD={password} pinwatch run --set api.preset={preset} \
             --set api.base_url={base}"
        ));
        return;
    }
    let key = &settings.key;
    let preset = if settings.preset == Preset::Infobip2faPin {
        String::new()
    } else {
        format!(" --set api.preset={}", settings.preset.name())
    };
    print(&format!("A simulated API listens at {base} and expects the key {key:?}."));
    print(&format!("  curl -H 'Authorization: App {key}' '{base}{path}'"));
    print(&format!("  PINWATCH__API__KEY={key} pinwatch run{preset} --set api.base_url={base}"));
}

/// Prints a line for people, and ignores a closed standard error.
fn print(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
