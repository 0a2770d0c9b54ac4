//! Steady time: it follows the time that elapses, whatever the wall clock is set to. Ages and waits in the store use
//! it.
//!
//! Promises that no change of the wall clock moves it, that it never goes back when the daemon restarts, and that it is
//! never ahead of the time that really elapsed. `CLOCK_BOOTTIME` advances it while a machine runs. From the last anchor
//! before a reboot to the next start it stands still: only the wall clock could measure that gap, and after a reboot
//! the wall clock is most often wrong. So a PIN can get more time, but never less. Pure: the caller passes readings in;
//! knows nothing of the store.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

/// A point in steady time, in milliseconds. When a store is created, its steady time is the wall clock's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Steady(i64);

impl Steady {
    /// The point that the store holds as this number of milliseconds.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// The number of milliseconds that the store holds.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// The point `later` after this one, saturating.
    pub fn after(self, later: Duration) -> Self {
        Self(self.0.saturating_add(millis(later)))
    }

    /// The point `earlier` before this one, saturating.
    pub fn before(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(millis(earlier)))
    }

    /// The time from `earlier` to this point; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// When something happened: the wall clock's time, for people, and the steady time, for its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dated {
    pub wall: Timestamp,
    pub steady: Steady,
}

impl Dated {
    /// How far the wall clock was ahead of steady time, in milliseconds; 0 until the wall clock is set or the machine
    /// reboots.
    pub fn ahead(self) -> i64 {
        self.wall.as_millisecond().saturating_sub(self.steady.0)
    }

    /// The date from the two values that the store holds: the wall time and [`Dated::ahead`].
    pub fn with_ahead(wall: Timestamp, ahead: i64) -> Self {
        Self { wall, steady: Steady(wall.as_millisecond().saturating_sub(ahead)) }
    }
}

/// The date while wall clock and steady time are the same: until the wall clock is set or the machine reboots.
impl From<Timestamp> for Dated {
    fn from(wall: Timestamp) -> Self {
        Self::with_ahead(wall, 0)
    }
}

/// Which boot of which machine this is, and the time since then, including suspended time.
#[derive(Debug, Clone)]
pub struct Boot {
    /// `None` if the machine does not report it. Every process then counts as one on another machine.
    pub id: Option<Arc<str>>,
    pub time: Duration,
}

impl Boot {
    /// The time since boot as the store holds it, in milliseconds.
    pub fn millis(&self) -> i64 {
        millis(self.time)
    }
}

/// A stored reading of steady time, from which another process continues.
#[derive(Debug, Clone)]
pub struct Anchor {
    pub boot: Boot,
    pub steady: Steady,
}

impl Anchor {
    /// Whether it was taken in this boot of this machine.
    pub fn is_of(&self, boot: &Boot) -> bool {
        boot.id.is_some() && boot.id == self.boot.id
    }

    /// The earliest time that it can be now.
    fn now(&self, boot: &Boot) -> Steady {
        if !self.is_of(boot) {
            return self.steady;
        }
        self.steady.after(boot.time.saturating_sub(self.boot.time))
    }
}

/// The steady time now, from the anchor that yields the latest; `None` without anchors.
pub fn now(anchors: &[Anchor], boot: &Boot) -> Option<Steady> {
    anchors.iter().map(|anchor| anchor.now(boot)).max()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn boot(id: Option<&str>, seconds: u64) -> Boot {
        Boot { id: id.map(Arc::from), time: Duration::from_secs(seconds) }
    }

    fn noted(id: Option<&str>, seconds: u64, steady: i64) -> Anchor {
        Anchor { boot: boot(id, seconds), steady: Steady(steady * 1000) }
    }

    #[test]
    fn steady_time_counts_the_elapsed_time_within_one_boot() {
        let anchors = [noted(Some("a"), 100, 5000)];
        assert_eq!(now(&anchors, &boot(Some("a"), 130)), Some(Steady(5_030_000)));
    }

    #[test]
    fn steady_time_stands_still_over_a_reboot_and_on_another_machine() {
        // The other machine may have been up for longer than this anchor is old.
        for time in [1, 100_000] {
            let anchors = [noted(Some("a"), 100, 5000)];
            assert_eq!(now(&anchors, &boot(Some("b"), time)), Some(Steady(5_000_000)));
            // Without an ID nobody knows whether it is the same machine.
            let anchors = [noted(None, 100, 5000)];
            assert_eq!(now(&anchors, &boot(None, time)), Some(Steady(5_000_000)));
        }
    }

    #[test]
    fn of_several_anchors_the_one_with_the_latest_time_counts() {
        let anchors = [noted(Some("a"), 100, 5000), noted(Some("b"), 7, 5010), noted(Some("c"), 7, 4000)];
        assert_eq!(now(&anchors, &boot(Some("a"), 105)), Some(Steady(5_010_000)));
        assert_eq!(now(&anchors, &boot(Some("a"), 115)), Some(Steady(5_015_000)));
        assert_eq!(now(&[], &boot(Some("a"), 115)), None);
    }

    #[test]
    fn a_date_is_the_same_after_it_was_saved_in_two_columns() {
        let wall: Timestamp = "2026-01-02T03:04:05.006Z".parse().unwrap();
        let date = Dated { wall, steady: Steady(17) };
        assert_eq!(Dated::with_ahead(wall, date.ahead()), date);
        assert_eq!(Dated::from(wall).ahead(), 0);
    }

    proptest! {
        /// Whatever restarts, reboots and anchors there are, steady time never goes back before an anchor, is never
        /// ahead of the elapsed time, and counts all of it until the first reboot.
        #[test]
        fn steady_time_never_exceeds_the_elapsed_time_and_never_goes_back(
            steps in prop::collection::vec((0u64..100_000, any::<bool>()), 1..50),
        ) {
            let (mut elapsed, mut booted_at, mut reboots) = (0, 0, 0);
            let mut anchor = noted(Some("0"), 0, 0);
            for (wait, reboot) in steps {
                elapsed += wait;
                if reboot {
                    reboots += 1;
                    booted_at = elapsed;
                }
                let name = reboots.to_string();
                let boot = boot(Some(&name), elapsed - booted_at);
                let found = now(std::slice::from_ref(&anchor), &boot).unwrap();
                prop_assert!(found >= anchor.steady);
                prop_assert!(found.since(Steady(0)) <= Duration::from_secs(elapsed));
                prop_assert!(reboots > 0 || found.since(Steady(0)) == Duration::from_secs(elapsed));
                anchor = Anchor { boot, steady: found };
            }
        }
    }
}
