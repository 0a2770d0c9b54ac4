//! Fault points: places where a test has the process killed, to see that nothing is lost there.
//!
//! Only with the feature `fault-points`, which nothing is released with; without it a [`fault_point!`] is no code
//! and no string. With it, `PINWATCH_FAULT=name` kills the process with -9 where it passes the point of that name
//! for the first time, and `PINWATCH_FAULT=name:3` where it passes it for the third.

/// Dies here, if a test says so; with last words, after having said them.
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

    /// The one point where this process is to die, and the passes until then.
    static FAULT: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();

    /// Counts a pass.
    pub fn is_due(point: &str) -> bool {
        let fault = FAULT.get_or_init(|| {
            let text = std::env::var("PINWATCH_FAULT").ok()?;
            let (name, pass) = text.split_once(':').unwrap_or((&text, "1"));
            let pass = pass.parse().expect("PINWATCH_FAULT is a name, or a name, a colon and a number");
            Some((name.to_owned(), AtomicU64::new(pass)))
        });
        fault.as_ref().is_some_and(|(name, left)| name == point && left.fetch_sub(1, Ordering::Relaxed) == 1)
    }

    /// As `kill -9` does it: nothing is flushed, dropped or unwound.
    pub fn die() -> ! {
        let _ = kill_process(getpid(), Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}
