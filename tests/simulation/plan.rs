//! The plan: everything that will happen in a simulation, computed from its seed.

use std::num::NonZeroU32;
use std::time::Duration;

use fastrand::Rng;
use pinwatch::config::{Adapt, Completion, Schedule};
use pinwatch::simulate::LifeSettings;

use super::clocks::{BEGIN, Time};
use super::conditions::{Conditions, span};
use super::pin_history::PinHistory;

pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);

/// How the API's rate limiter words `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    Seconds,
    /// A date, beside the server's own `Date`.
    Date,
    /// A date, to be read by the daemon's clock.
    BareDate,
    Garbage,
    Absent,
    Zero,
    /// A day, of which an hour is obeyed.
    Day,
}

/// What happens to the daemon and its machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PlannedEvent {
    Submit {
        pin: usize,
        again: bool,
    },
    Cancel {
        pin: usize,
    },
    /// The process dies, and is started again so much later.
    Crash {
        down: Duration,
    },
    Suspend(Duration),
    /// SIGHUP.
    Reload,
    Jump {
        forward: bool,
        by: Duration,
    },
}

/// A PIN before it is submitted.
#[derive(Debug)]
pub struct PinPlan {
    /// Its own time to live, instead of `schedule.deadline`.
    pub deadline: Option<Duration>,
    pub pin_history: PinHistory,
}

/// A period with a fault.
pub type Window = (Time, Time);

#[derive(Debug)]
pub struct Plan {
    pub seed: u64,
    pub schedule: Schedule,
    pub rate: Option<NonZeroU32>,
    pub concurrency: usize,
    /// `api.timeout`
    pub timeout: Duration,
    /// Half of the answers take no longer than this without a fault.
    pub latency: Duration,
    pub retry_after: RetryAfter,
    /// The requests that the API accepts in a second.
    pub limit: Option<u32>,
    /// The share of kept connections on which a stray refusal waits for the next request.
    pub strays: f64,
    pub conditions: Conditions,
    pub pins: Vec<PinPlan>,
    pub happenings: Vec<(Time, PlannedEvent)>,
    /// When the store can't be written.
    pub store_fails: Vec<Window>,
    /// When each sink accepts nothing.
    pub sinks_fail: [Vec<Window>; 2],
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let rng = &mut rng;
        let (count, horizon, polls_a_pin) = match rng.u32(..100) {
            0..60 => (rng.usize(1..30), span(24 * HOUR, 120 * HOUR, rng), 120),
            60..97 => (rng.usize(30..150), span(6 * HOUR, 48 * HOUR, rng), 40),
            _ => (rng.usize(800..2500), span(HOUR, 8 * HOUR, rng), 10),
        };
        let adapt = [(3, Adapt::Sooner), (7, Adapt::Fewer)].into_iter().find(|(rest, _)| seed % 8 == *rest);
        let adapt = adapt.map_or(Adapt::Off, |(_, adapt)| adapt);
        let schedule = Schedule { adapt, ..schedule(horizon, polls_a_pin, rng) };
        let lives = LifeSettings {
            seed,
            median: span(2 * SECOND, HOUR, rng),
            sigma: 0.5 + rng.f64() * 1.5,
            call_share: rng.f64() * 0.5,
            empty_share: rng.f64() * 0.3,
            unknown_share: rng.f64() * 0.1,
        };
        let end = BEGIN + horizon;
        let timeout = span(2 * SECOND, 30 * SECOND, rng);
        let retry_after = match rng.u32(..7) {
            0 => RetryAfter::Date,
            1 => RetryAfter::BareDate,
            2 => RetryAfter::Garbage,
            3 => RetryAfter::Absent,
            4 => *rng.choice(&[RetryAfter::Zero, RetryAfter::Day]).expect("two"),
            _ => RetryAfter::Seconds,
        };
        let troubled = if rng.u32(..3) == 0 { rng.u32(1..50) } else { 0 };
        let pins: Vec<_> = (0..count)
            .map(|pin| PinPlan {
                deadline: (rng.u32(..10) == 0).then(|| span(MINUTE, 2 * schedule.deadline.max(MINUTE), rng)),
                pin_history: PinHistory::draw(&lives, pin, schedule.completion, troubled, rng),
            })
            .collect();
        Self {
            seed,
            rate: (rng.u32(..10) < 6).then(|| log_uniform(1, 300, rng)).and_then(NonZeroU32::new),
            concurrency: log_uniform(1, 64, rng) as usize,
            timeout,
            latency: span(Duration::from_millis(1), timeout.min(2 * SECOND) / 4, rng),
            retry_after,
            strays: if rng.u32(..4) == 0 { rng.f64() * 0.3 } else { 0.0 },
            limit: (rng.u32(..5) == 0).then(|| log_uniform(2, 100, rng)),
            conditions: Conditions::draw(end, rng),
            happenings: happenings(count, end, &schedule, rng),
            pins,
            schedule,
            store_fails: windows(2, end, rng),
            sinks_fail: [windows(3, end, rng), windows(3, end, rng)],
        }
    }

    /// The longest that an answer takes without a fault.
    pub fn slowest(&self) -> Duration {
        (self.latency * 4).min(self.timeout)
    }

    /// Whether the API's limiter is in force: until the last fault ends.
    pub fn is_limited(&self, truth: Time) -> bool {
        self.limit.is_some() && truth < self.conditions.end()
    }

    /// How long a PIN is waited for.
    pub fn lifetime(&self, pin: usize) -> Duration {
        self.pins[pin].deadline.unwrap_or(self.schedule.deadline)
    }
}

fn schedule(horizon: Duration, polls_a_pin: u32, rng: &mut Rng) -> Schedule {
    let deadline = span(5 * MINUTE, horizon.min(48 * HOUR), rng);
    let initial = span(SECOND / 4, 20 * SECOND, rng);
    let max = span(initial.max(10 * SECOND), HOUR, rng).max(deadline / polls_a_pin);
    let multiplier = 1.3 + rng.f64() * 2.0;
    let constant = rng.u32(..20) == 0;
    Schedule {
        initial_interval: if constant { max } else { initial },
        multiplier: if constant { 1.0 } else { multiplier },
        max_interval: max,
        randomization_factor: if rng.u32(..10) == 0 { 0.0 } else { rng.f64() * 0.9 },
        deadline,
        deadline_grace: if rng.u32(..5) == 0 { Duration::ZERO } else { span(SECOND, 3 * HOUR, rng) },
        not_found_grace: if rng.u32(..5) == 0 { Duration::ZERO } else { span(SECOND, HOUR, rng) },
        completion: if rng.bool() { Completion::All } else { Completion::Any },
        // Set by the seed alone.
        adapt: Adapt::Off,
    }
}

fn happenings(count: usize, end: Time, schedule: &Schedule, rng: &mut Rng) -> Vec<(Time, PlannedEvent)> {
    let mut all = Vec::new();
    let last = BEGIN + (end - BEGIN).mul_f64(0.7);
    let mut burst = between(BEGIN, last, rng);
    for pin in 0..count {
        if rng.u32(..count as u32) < 4 {
            burst = between(BEGIN, last, rng);
        }
        let at = if rng.bool() { burst } else { between(BEGIN, last, rng) };
        all.push((at, PlannedEvent::Submit { pin, again: false }));
        match rng.u32(..20) {
            0 => all.push((at + span(SECOND, schedule.deadline, rng), PlannedEvent::Cancel { pin })),
            1 => all.push((at + span(SECOND, MINUTE, rng), PlannedEvent::Submit { pin, again: false })),
            2 => all
                .push((at + span(SECOND, schedule.deadline, rng), PlannedEvent::Submit { pin, again: true })),
            _ => {}
        }
    }
    let mut now_and_then = |most: u32, rng: &mut Rng, draw: &mut dyn FnMut(&mut Rng) -> PlannedEvent| {
        for _ in 0..rng.u32(..=most) {
            let at = between(BEGIN, end, rng);
            all.push((at, draw(rng)));
        }
    };
    now_and_then(4, rng, &mut |rng| {
        let longest = if rng.bool() { 10 * SECOND } else { 3 * HOUR };
        PlannedEvent::Crash { down: span(SECOND / 10, longest, rng) }
    });
    now_and_then(2, rng, &mut |rng| PlannedEvent::Suspend(span(SECOND, 10 * HOUR, rng)));
    now_and_then(1, rng, &mut |_| PlannedEvent::Reload);
    now_and_then(3, rng, &mut |rng| PlannedEvent::Jump {
        forward: rng.bool(),
        by: span(SECOND, 12 * HOUR, rng),
    });
    all
}

fn windows(most: u32, end: Time, rng: &mut Rng) -> Vec<Window> {
    (0..rng.u32(..=most))
        .map(|_| {
            let begin = between(BEGIN, end, rng);
            (begin, begin + span(SECOND, (end - BEGIN) / 4, rng))
        })
        .collect()
}

/// When the last of the windows that are open at `now` closes.
pub fn closes(windows: &[Window], now: Time) -> Option<Time> {
    windows.iter().filter(|(begin, end)| *begin <= now && now < *end).map(|(_, end)| *end).max()
}

fn between(begin: Time, end: Time, rng: &mut Rng) -> Time {
    let micros = u64::try_from((end - begin).as_micros()).expect("some days");
    begin + Duration::from_micros(rng.u64(..micros))
}

fn log_uniform(least: u32, most: u32, rng: &mut Rng) -> u32 {
    let (least, most) = (f64::from(least).ln(), f64::from(most).ln());
    (least + (most - least) * rng.f64()).exp().round() as u32
}
