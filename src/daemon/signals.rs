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
            name = Self::first_stop(terminate, interrupt) => Signal::Stop(name),
            _ = hang_up.recv() => Signal::Reload,
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
