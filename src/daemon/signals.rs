//! What the operating system tells the daemon, as words of the daemon.

use std::io;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, from systemd; SIGINT, from Ctrl-C. With the signal's name.
    Stop(&'static str),
    /// SIGHUP, from logrotate or `systemctl reload`.
    Reload,
    /// SIGUSR1, in test builds: the schedule is to stand still.
    #[cfg(feature = "stall")]
    Stall,
}

/// The signals of this process, from when it listens.
pub struct Signals {
    terminate: Stream,
    interrupt: Stream,
    hang_up: Stream,
    #[cfg(feature = "stall")]
    user: Stream,
}

impl Signals {
    /// Listens: from now on none of them ends the process by itself.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            #[cfg(feature = "stall")]
            user: signal(SignalKind::user_defined1())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Signal {
        #[cfg(feature = "stall")]
        tokio::select! {
            _ = self.user.recv() => Signal::Stall,
            signal = Self::common(&mut self.terminate, &mut self.interrupt, &mut self.hang_up) => signal,
        }
        #[cfg(not(feature = "stall"))]
        Self::common(&mut self.terminate, &mut self.interrupt, &mut self.hang_up).await
    }

    async fn common(terminate: &mut Stream, interrupt: &mut Stream, hang_up: &mut Stream) -> Signal {
        tokio::select! {
            _ = terminate.recv() => Signal::Stop("SIGTERM"),
            _ = interrupt.recv() => Signal::Stop("SIGINT"),
            _ = hang_up.recv() => Signal::Reload,
        }
    }

    /// Waits for another signal to stop.
    pub async fn stop_again(&mut self) {
        while !matches!(self.next().await, Signal::Stop(_)) {}
    }
}
