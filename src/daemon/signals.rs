//! Turns the process's signals into requests to the daemon.
//!
//! Promises that after [`Signals::listen`] no signal that the kernel or an administrator is likely to send kills the
//! process in mid-work. Rust's own start-up code ignores SIGPIPE.

use std::io;

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// A request made by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, from systemd; SIGINT, from Ctrl-C; SIGXCPU, from the kernel. With the signal's name.
    Stop(&'static str),
    /// SIGHUP, from logrotate or `systemctl reload`.
    Reload,
    /// SIGUSR1, in test builds: makes the schedule hang.
    #[cfg(feature = "fault-points")]
    Stall,
}

/// Signals that would kill the process without a reason to.
///
/// With a handler for SIGXFSZ, a write beyond RLIMIT_FSIZE fails with EFBIG, like a write to a full disk. People send
/// SIGUSR1 and SIGUSR2 because they make other daemons reopen their logs or report their state.
const IGNORED: &[Number] = &[
    Number::XFSZ,
    #[cfg(not(feature = "fault-points"))]
    Number::USR1,
    Number::USR2,
];

/// The signal handlers.
pub struct Signals {
    terminate: Stream,
    interrupt: Stream,
    hang_up: Stream,
    /// The kernel repeats SIGXCPU every second, so it does not force an immediate end.
    cpu_time: Stream,
    #[cfg(feature = "fault-points")]
    user: Stream,
}

fn kind(number: Number) -> SignalKind {
    SignalKind::from_raw(number.as_raw())
}

impl Signals {
    /// Installs the handlers. A signal that comes before [`Self::next`] is not lost. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub fn listen() -> io::Result<Self> {
        for number in IGNORED {
            // The handler stays installed when its stream is dropped, and does nothing.
            drop(signal(kind(*number))?);
        }
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            cpu_time: signal(kind(Number::XCPU))?,
            #[cfg(feature = "fault-points")]
            user: signal(SignalKind::user_defined1())?,
        })
    }

    /// Waits for the next request.
    pub async fn next(&mut self) -> Signal {
        #[cfg(feature = "fault-points")]
        let stall = futures_util::FutureExt::map(self.user.recv(), |_| Signal::Stall);
        #[cfg(not(feature = "fault-points"))]
        let stall = std::future::pending();
        tokio::select! {
            name = Self::first_stop(&mut self.terminate, &mut self.interrupt) => Signal::Stop(name),
            _ = self.cpu_time.recv() => Signal::Stop("SIGXCPU (the limit of CPU time, RLIMIT_CPU)"),
            _ = self.hang_up.recv() => Signal::Reload,
            signal = stall => signal,
        }
    }

    async fn first_stop(terminate: &mut Stream, interrupt: &mut Stream) -> &'static str {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    }

    /// Waits for a signal to stop and returns its name. Other signals stay pending.
    pub async fn stop(&mut self) -> &'static str {
        Self::first_stop(&mut self.terminate, &mut self.interrupt).await
    }
}
