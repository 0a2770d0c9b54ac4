//! The daemon's three kinds of time: monotonic time for waits, steady time for ages and waits that outlive the process,
//! and wall time for people.
//!
//! Promises that the wall clock only dates records, because anybody can set it at any moment. It decides only how long to wait
//! for a `Retry-After` that is a date. Monotonic time is tokio's clock, so tests can pause and advance it. Knows nothing of PINs
//! or the store.

mod steady;

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

pub use self::steady::{Anchor, Boot, Dated, Steady};

/// A point in monotonic time, in microseconds since the daemon's start; negative before it. Has 8 bytes; an `Instant`
/// has 16 and can't represent a time before the machine's boot.
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

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The machine's clocks: the system's, or those that a test sets.
pub trait Machine: Send + Sync + 'static {
    /// The wall-clock time now.
    fn wall(&self) -> Timestamp;

    /// Which boot of the machine this is, and how long ago it was.
    fn boot(&self) -> Boot;
}

/// The system's clocks.
pub struct System;

/// The kernel's boot ID. Where systemd hides it (`ProcSubset=pid`), the unit passes it in `PINWATCH_BOOT_ID`.
static BOOT_ID: LazyLock<Option<Arc<str>>> = LazyLock::new(|| {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    // systemd writes it without dashes.
    let id = kernel.or_else(|| std::env::var("PINWATCH_BOOT_ID").ok())?.trim().replace('-', "");
    (!id.is_empty()).then(|| id.into())
});

impl Machine for System {
    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }

    fn boot(&self) -> Boot {
        let time = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default();
        Boot { id: BOOT_ID.clone(), time }
    }
}

/// A reading of the monotonic and the steady clock at the same moment.
#[derive(Debug, Clone, Copy)]
pub struct ClockReading {
    pub now: Moment,
    pub steady: Steady,
}

impl ClockReading {
    /// Converts a past steady time to a moment. A time in the future counts as now: another machine wrote it, or it is
    /// newer than the last anchor before a reboot.
    pub fn moment_of_past(&self, time: Steady) -> Moment {
        self.now.before(self.steady.since(time))
    }
}

/// All clocks of the daemon.
#[derive(Clone)]
pub struct Clock {
    start: Instant,
    machine: Arc<dyn Machine>,
    /// The steady time, in milliseconds, at which the machine booted.
    steady_at_boot: Arc<AtomicI64>,
    has_gap: Arc<AtomicBool>,
}

impl Clock {
    /// A clock whose monotonic time begins now and whose steady time is the wall clock's time.
    pub fn new(machine: impl Machine) -> Self {
        let clock = Self {
            start: Instant::now(),
            machine: Arc::new(machine),
            steady_at_boot: Arc::default(),
            has_gap: Arc::default(),
        };
        clock.set(Steady::from_millis(clock.wall().as_millisecond()), &clock.machine.boot());
        clock
    }

    /// The daemon's clock: tokio's and the system's.
    pub fn system() -> Self {
        Self::new(System)
    }

    /// Continues the steady time from these anchors, if there are any. Call it before anything is dated.
    pub fn go_on(&self, anchors: &[Anchor]) {
        let boot = self.machine.boot();
        if let Some(now) = steady::now(anchors, &boot) {
            self.set(now, &boot);
            self.has_gap.store(!anchors.iter().any(|anchor| anchor.is_of(&boot)), Ordering::Relaxed);
        }
    }

    /// Whether a reboot or a change of machine lies between the anchors and now. If so, an unknown time elapsed that
    /// the steady clock did not count.
    pub fn has_gap(&self) -> bool {
        self.has_gap.load(Ordering::Relaxed)
    }

    fn set(&self, now: Steady, boot: &Boot) {
        self.steady_at_boot.store(now.before(boot.time).millis(), Ordering::Relaxed);
    }

    fn steady_by(&self, boot: &Boot) -> Steady {
        Steady::from_millis(self.steady_at_boot.load(Ordering::Relaxed)).after(boot.time)
    }

    /// Now, for waiting.
    pub fn now(&self) -> Moment {
        Moment(micros(self.start.elapsed()))
    }

    /// Now, for people.
    pub fn wall(&self) -> Timestamp {
        self.machine.wall()
    }

    /// Now, for ages and waits that outlive the process.
    pub fn steady(&self) -> Steady {
        self.steady_by(&self.machine.boot())
    }

    /// Now, in wall time and steady time, for records.
    pub fn date(&self) -> Dated {
        Dated { wall: self.wall(), steady: self.steady() }
    }

    /// An anchor from which another process can continue the steady time.
    pub fn anchor(&self) -> Anchor {
        let boot = self.machine.boot();
        Anchor { steady: self.steady_by(&boot), boot }
    }

    /// The tokio instant of a moment, for sleeping.
    pub fn instant(&self, moment: Moment) -> Instant {
        self.start + Duration::from_micros(u64::try_from(moment.0).unwrap_or(0))
    }

    /// The moment of a tokio instant; the start for an earlier instant.
    pub fn moment(&self, instant: Instant) -> Moment {
        Moment(micros(instant.saturating_duration_since(self.start)))
    }

    /// Reads both clocks once, for converting many times.
    pub fn reading(&self) -> ClockReading {
        ClockReading { now: self.now(), steady: self.steady() }
    }

    /// See [`ClockReading::moment_of_past`].
    pub fn moment_of_past(&self, time: Steady) -> Moment {
        self.reading().moment_of_past(time)
    }

    /// Converts a future moment to a steady time; a past moment becomes now.
    pub fn steady_of_future(&self, moment: Moment) -> Steady {
        self.steady().after(moment.since(self.now()))
    }

    /// The wall time of `moment`, by the wall clock as it is set now.
    pub fn wall_of(&self, moment: Moment) -> Timestamp {
        let ahead = SignedDuration::from_micros(moment.0.saturating_sub(self.now().0));
        self.wall().saturating_add(ahead).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A machine whose clocks are set by a test.
    #[derive(Clone)]
    struct Fixed(Arc<Mutex<(Timestamp, Boot)>>);

    impl Machine for Fixed {
        fn wall(&self) -> Timestamp {
            self.0.lock().unwrap().0
        }

        fn boot(&self) -> Boot {
            self.0.lock().unwrap().1.clone()
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    fn machine() -> Fixed {
        let wall = "2026-01-02T00:00:00Z".parse().unwrap();
        Fixed(Arc::new(Mutex::new((wall, Boot { id: Some("one".into()), time: 5 * HOUR }))))
    }

    #[tokio::test(start_paused = true)]
    async fn an_age_is_the_elapsed_time_and_zero_for_a_time_in_the_future() {
        let machine = machine();
        let clock = Clock::new(machine.clone());
        let begun = clock.date();
        assert_eq!(begun.ahead(), 0, "a new store's steady time begins with the wall clock");
        {
            let mut clocks = machine.0.lock().unwrap();
            clocks.0 += 72 * HOUR;
            clocks.1.time += HOUR;
        }
        let past = clock.moment_of_past(begun.steady);
        assert_eq!(clock.now().since(past), HOUR);
        assert_eq!(clock.moment_of_past(clock.steady().after(HOUR)), clock.now());
        assert_eq!(clock.wall_of(past), clock.wall() - HOUR);
        assert_eq!(clock.date().ahead(), 71 * 3_600_000);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_process_continues_the_steady_time_even_if_the_wall_clock_was_set() {
        let machine = machine();
        let first = Clock::new(machine.clone());
        let (begun, noted) = (first.steady(), first.anchor());
        {
            let mut clocks = machine.0.lock().unwrap();
            clocks.0 -= 24 * HOUR;
            clocks.1.time += 2 * HOUR;
        }
        let second = Clock::new(machine);
        second.go_on(&[]);
        assert_eq!(second.date().ahead(), 0);
        second.go_on(&[noted]);
        assert_eq!(second.steady().since(begun), 2 * HOUR);
        assert_eq!(second.steady(), first.steady());
    }

    #[test]
    fn the_kernel_tells_the_id_and_duration_of_the_current_boot() {
        let boot = System.boot();
        assert!(boot.id.is_some_and(|id| !id.contains('-')) && boot.time > Duration::ZERO);
    }
}
