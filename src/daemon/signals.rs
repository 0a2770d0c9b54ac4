//! The signals of this process, as words of the daemon.
//!
//! Promises that from [`Signals::listen`] on no signal that the kernel or an administrator is likely to send ends the
//! process out of order. SIGPIPE is ignored by Rust's own start.

use std::io;

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, from systemd; SIGINT, from Ctrl-C; SIGXCPU, from the kernel. With the signal's name.
    Stop(&'static str),
    /// SIGHUP, from logrotate or `systemctl reload`.
    Reload,
    /// SIGUSR1, in test builds: the schedule is to stand still.
    #[cfg(feature = "stall")]
    Stall,
}

/// Signals that would end the process and ask for nothing.
///
/// With a handler for SIGXFSZ, a write beyond RLIMIT_FSIZE fails with EFBIG instead, as on a full disk. SIGUSR1 and
/// SIGUSR2 make other daemons reopen their logs or tell their state, so people send them.
const IGNORED: &[Number] = &[
    Number::XFSZ,
    #[cfg(not(feature = "stall"))]
    Number::USR1,
    Number::USR2,
];

/// The signals that are listened to.
pub struct Signals {
    terminate: Stream,
    interrupt: Stream,
    hang_up: Stream,
    /// The kernel repeats it every second, so it is not one that ends a stop at once.
    cpu_time: Stream,
    #[cfg(feature = "stall")]
    user: Stream,
}

fn kind(number: Number) -> SignalKind {
    SignalKind::from_raw(number.as_raw())
}

impl Signals {
    /// Starts to listen: from now on none of them ends the process by itself. A signal that comes before [`Self::next`]
    /// is not lost. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub fn listen() -> io::Result<Self> {
        for number in IGNORED {
            // The handler stays when its stream is dropped, and does nothing then.
            drop(signal(kind(*number))?);
        }
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            cpu_time: signal(kind(Number::XCPU))?,
            #[cfg(feature = "stall")]
            user: signal(SignalKind::user_defined1())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Signal {
        #[cfg(feature = "stall")]
        let stall = futures_util::FutureExt::map(self.user.recv(), |_| Signal::Stall);
        #[cfg(not(feature = "stall"))]
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

    /// Waits for a signal to stop, and gives its name; the others can still be asked for.
    pub async fn stop(&mut self) -> &'static str {
        Self::first_stop(&mut self.terminate, &mut self.interrupt).await
    }
}
