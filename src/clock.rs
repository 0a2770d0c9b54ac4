//! Time, at one seam: wall time for what people read and what outlives the process, monotonic time for
//! everything that is waited for.
//!
//! The monotonic side is tokio's clock, so tests pause and advance it. The wall side can jump at any moment:
//! it may date a record and tell the age of a PIN at start-up, and decides nothing else.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// A point on the daemon's monotonic timeline, in microseconds since the daemon's start; negative for what
/// was before. 8 bytes, where an `Instant` has 16 and can't reach back before the machine's boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(i64);

impl Moment {
    /// The daemon's start.
    pub const START: Self = Self(0);

    /// The moment `later` after this one, saturating.
    pub fn after(self, later: Duration) -> Self {
        Self(self.0.saturating_add(micros(later)))
    }

    /// The moment `earlier` before this one, saturating.
    pub fn before(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(micros(earlier)))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Where the wall time comes from: the system, or a test's own idea of it.
pub trait Wall: Send + Sync + 'static {
    /// The wall-clock time now.
    fn now(&self) -> Timestamp;
}

/// The system's wall clock.
pub struct SystemWall;

impl Wall for SystemWall {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// What both clocks say at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Both {
    pub now: Moment,
    pub wall: Timestamp,
}

impl Both {
    /// The moment that the wall clock, as it stands, calls `time`. A time in the future counts as now: the clock
    /// went back since it was written.
    pub fn moment_of_past(&self, time: Timestamp) -> Moment {
        let age = self.wall.duration_since(time);
        self.now.before(Duration::try_from(age).unwrap_or(Duration::ZERO))
    }
}

/// Both clocks of the daemon.
#[derive(Clone)]
pub struct Clock {
    start: Instant,
    wall: std::sync::Arc<dyn Wall>,
}

impl Clock {
    /// A clock whose monotonic timeline begins now.
    pub fn new(wall: impl Wall) -> Self {
        Self { start: Instant::now(), wall: std::sync::Arc::new(wall) }
    }

    /// The daemon's clock: tokio's and the system's.
    pub fn system() -> Self {
        Self::new(SystemWall)
    }

    /// Now, for waiting.
    pub fn now(&self) -> Moment {
        Moment(micros(self.start.elapsed()))
    }

    /// Now, for people and for what outlives the process.
    pub fn wall(&self) -> Timestamp {
        self.wall.now()
    }

    /// The instant that tokio can sleep until.
    pub fn instant(&self, moment: Moment) -> Instant {
        self.start + Duration::from_micros(u64::try_from(moment.0).unwrap_or(0))
    }

    /// The moment that tokio calls `instant`; the start for what was before it.
    pub fn moment(&self, instant: Instant) -> Moment {
        Moment(micros(instant.saturating_duration_since(self.start)))
    }

    /// Both clocks, as they stand now: for what is worked out a million times.
    pub fn both(&self) -> Both {
        Both { now: self.now(), wall: self.wall() }
    }

    /// See [`Both::moment_of_past`].
    pub fn moment_of_past(&self, time: Timestamp) -> Moment {
        self.both().moment_of_past(time)
    }

    /// What the wall clock, as it stands now, calls `moment`.
    pub fn wall_of(&self, moment: Moment) -> Timestamp {
        let ahead = SignedDuration::from_micros(moment.0.saturating_sub(self.now().0));
        self.wall().saturating_add(ahead).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Timestamp);

    impl Wall for Fixed {
        fn now(&self) -> Timestamp {
            self.0
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_age_is_taken_over_from_the_wall_clock_and_a_future_one_is_zero() {
        let wall: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let clock = Clock::new(Fixed(wall));
        let hour = Duration::from_secs(3600);
        let past = clock.moment_of_past(wall - hour);
        assert_eq!(clock.now().since(past), hour);
        assert_eq!(clock.moment_of_past(wall + hour), clock.now());
        assert_eq!(clock.wall_of(past), wall - hour);
    }
}
