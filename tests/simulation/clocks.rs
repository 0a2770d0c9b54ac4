//! The simulation's three clocks: monotonic (tokio's, paused), true time (what the API lives in), and the
//! machine's wall clock, which jumps. A suspended machine's monotonic clock stands still and the others go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pinwatch::clock::{Anchor, Boot, Dated, Machine, Steady};
use tokio::time::Instant;

/// Since long before the simulation's first moment, so that what a clock that jumps calls the past still has
/// a place on the timeline. Whole microseconds.
pub type Time = Duration;

/// When the simulation begins.
pub const BEGIN: Time = Duration::from_secs(1000 * 86_400);

/// What the wall clock says when the simulation begins.
const WALL_AT_BEGIN: i64 = 1_767_355_200;

/// All three. Clones show the same time.
#[derive(Clone)]
pub struct Clocks {
    epoch: Instant,
    suspended: Arc<AtomicU64>,
    jumped: Arc<AtomicI64>,
}

impl Clocks {
    pub fn new() -> Self {
        Self { epoch: Instant::now(), suspended: Arc::default(), jumped: Arc::default() }
    }

    /// Monotonic time.
    pub fn now(&self) -> Time {
        BEGIN + self.epoch.elapsed()
    }

    /// True time.
    pub fn truth(&self) -> Time {
        self.now() + self.suspended()
    }

    /// How long the machine slept so far.
    pub fn suspended(&self) -> Duration {
        Duration::from_micros(self.suspended.load(Ordering::Relaxed))
    }

    /// What a clock that is right shows at this true time.
    pub fn right_wall(truth: Time) -> Timestamp {
        let begin = Timestamp::from_second(WALL_AT_BEGIN).expect("a time of this century");
        begin + SignedDuration::try_from(truth - BEGIN).expect("some days")
    }

    /// What the machine's clock shows now.
    pub fn wall(&self) -> Timestamp {
        Self::right_wall(self.truth()) + SignedDuration::from_micros(self.jumped.load(Ordering::Relaxed))
    }

    /// What the store knows of the time, at whichever commit.
    pub fn anchor() -> Anchor {
        let boot = Boot { id: Some("simulation".into()), time: BEGIN };
        Anchor { boot, steady: Dated::from(Self::right_wall(BEGIN)).steady }
    }

    /// Now in steady time, which keeps to true time.
    pub fn steady(&self) -> Steady {
        Dated::from(Self::right_wall(self.truth())).steady
    }

    /// The monotonic time of an instant.
    pub fn time_of(&self, instant: Instant) -> Time {
        BEGIN + instant.saturating_duration_since(self.epoch)
    }

    pub async fn advance_to(&self, time: Time) {
        let ahead = time.saturating_sub(self.now());
        if !ahead.is_zero() {
            tokio::time::advance(ahead).await;
        }
    }

    pub fn suspend(&self, time: Duration) {
        self.suspended.fetch_add(micros(time), Ordering::Relaxed);
    }

    pub fn jump(&self, forward: bool, by: Duration) {
        let by = micros(by).cast_signed();
        self.jumped.fetch_add(if forward { by } else { -by }, Ordering::Relaxed);
    }
}

impl Machine for Clocks {
    fn wall(&self) -> Timestamp {
        Self::wall(self)
    }

    fn boot(&self) -> Boot {
        Boot { id: Some("simulation".into()), time: self.truth() }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).expect("some days")
}
