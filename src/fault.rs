//! Fault points: places where a test kills the process, to check that no data is lost there.
//!
//! Active only with the feature `fault-points`, which no release has. Without it, a [`fault_point!`] compiles to
//! nothing. With it, `PINWATCH_FAULT=name` kills the process (SIGKILL) when it first reaches the point of that name,
//! and `PINWATCH_FAULT=name:3` when it reaches it for the third time. Must not know what the code around a point
//! does.

/// Kills the process here if `PINWATCH_FAULT` says so, after evaluating the second argument if there is one.
macro_rules! fault_point {
    ($name:literal) => {
        fault_point!($name, ())
    };
    ($name:literal, $last_words:expr) => {
        #[cfg(feature = "fault-points")]
        {
            if crate::fault::is_due($name) {
                let _ = $last_words;
                crate::fault::die();
            }
        }
    };
}
pub(crate) use fault_point;

#[cfg(feature = "fault-points")]
pub(crate) use armed::{die, is_due};

#[cfg(feature = "fault-points")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    /// The point at which this process dies, and how many more times it must be reached.
    static FAULT: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();

    /// Counts a pass of `point`; returns whether the process must die at this pass.
    pub fn is_due(point: &str) -> bool {
        let fault = FAULT.get_or_init(|| {
            let text = std::env::var("PINWATCH_FAULT").ok()?;
            let (name, pass) = text.split_once(':').unwrap_or((&text, "1"));
            let pass = pass.parse().expect("PINWATCH_FAULT is a name, or a name, a colon and a number");
            Some((name.to_owned(), AtomicU64::new(pass)))
        });
        fault.as_ref().is_some_and(|(name, left)| name == point && left.fetch_sub(1, Ordering::Relaxed) == 1)
    }

    /// Kills the process as `kill -9` does: nothing is flushed, dropped or unwound.
    pub fn die() -> ! {
        let _ = kill_process(getpid(), Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}
