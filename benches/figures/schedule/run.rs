//! The schedule's core with its learner, as its task drives it, on a paused clock that jumps from one event to the next.
//!
//! PINs are submitted at random moments, one a second on average, and polled whenever the core says so. Each answer comes
//! at once and tells the truth. Promises that the same PINs and settings give the same polls. What is real: the core, its
//! learner, jitter, queue and rate, and the simulator's lives. What is left out: store, network and real time.

use std::num::NonZeroU32;
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use pinwatch::backoff::Backoff;
use pinwatch::clock::{Boot, Clock, Machine, Moment};
use pinwatch::config::{Adapt, Completion, Schedule};
use pinwatch::outcome::Delivery;
use pinwatch::poll::Meaning;
use pinwatch::schedule::Core;
use pinwatch::schedule::learn::hazard::value;
use pinwatch::schedule::learn::plan::{Limits, Problem};
use pinwatch::schedule::learn::{Aim, Learner};
use pinwatch::store::InFlight;
use tokio::time::Instant;

use super::lives::Drawn;

/// `schedule.deadline`
pub const DEADLINE: Duration = Duration::from_secs(48 * 3600);

/// How PINs are polled: the defaults, but for these.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub adapt: Adapt,
    pub max_interval: Duration,
    /// `api.rate`
    pub rate: Option<NonZeroU32>,
    /// PINs submitted a second, on average.
    pub submits: f64,
    /// What a learned schedule may need, as a part of what backoff needs, instead of what the learner says.
    pub budget: Option<f64>,
    pub seed: u64,
}

impl Settings {
    pub fn new(seed: u64) -> Self {
        let max_interval = Duration::from_secs(3600);
        Self { adapt: Adapt::Off, max_interval, rate: None, submits: 1.0, budget: None, seed }
    }

    pub fn adapt(self, aim: Aim) -> Self {
        let adapt = match aim {
            Aim::Sooner => Adapt::Sooner,
            Aim::Fewer => Adapt::Fewer,
        };
        Self { adapt, ..self }
    }

    /// `[schedule]`
    fn schedule(&self) -> Schedule {
        Schedule {
            initial_interval: Duration::from_secs(1),
            multiplier: 1.5,
            max_interval: self.max_interval,
            randomization_factor: 0.2,
            deadline: DEADLINE,
            not_found_grace: Duration::from_secs(120),
            deadline_grace: Duration::from_secs(3600),
            completion: Completion::All,
            adapt: self.adapt,
        }
    }

    pub fn backoff(&self) -> Backoff {
        let Schedule { initial_interval, multiplier, max_interval, randomization_factor, .. } =
            self.schedule();
        Backoff::new(initial_interval, multiplier, max_interval, randomization_factor)
    }

    pub fn limits(&self) -> Limits {
        Limits { shortest: self.schedule().initial_interval, longest: self.max_interval, deadline: DEADLINE }
    }

    /// The random pauses between submits.
    pub fn pauses(&self) -> impl Iterator<Item = Duration> {
        let (mut rng, submits) = (Rng::with_seed(!self.seed), self.submits);
        std::iter::repeat_with(move || Duration::from_secs_f64(-(1.0 - rng.f64()).ln() / submits))
    }
}

/// What one PIN cost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Fate {
    pub polls: f64,
    /// Seconds from when it became final to when that was noticed; zero if it never became final.
    pub delay: f64,
    /// The same, times what a second is worth at that age.
    pub weighted: f64,
    /// How many PINs had ended when it was submitted.
    pub endings_before: usize,
}

impl Fate {
    /// Of a PIN that became final at an age and ended at another.
    pub fn new(polls: f64, final_at: f64, ended_at: f64) -> Self {
        if final_at.is_infinite() {
            return Self { polls, ..Self::default() };
        }
        let delay = ended_at - final_at;
        Self { polls, delay, weighted: delay * value(final_at), endings_before: 0 }
    }
}

/// What became of all PINs.
pub struct Run {
    /// One for each PIN, in the order in which they were submitted.
    pub fates: Vec<Fate>,
    /// Which PIN was polled, and when, in the order of the polls.
    pub polls: Vec<(usize, Moment)>,
    /// What was learned in the end, unless `schedule.adapt` is "off".
    pub learner: Option<Learner>,
}

/// Clocks that go with tokio's.
struct Simulated(Instant);

impl Machine for Simulated {
    fn wall(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + self.0.elapsed()
    }

    fn boot(&self) -> Boot {
        Boot { id: Some("simulated".into()), time: self.0.elapsed() }
    }
}

/// Submits these PINs and polls them until all have ended.
pub fn run(pins: &[Drawn], settings: &Settings) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(drive(pins, settings))
}

async fn drive(pins: &[Drawn], settings: &Settings) -> Run {
    let clock = Clock::new(Simulated(Instant::now()));
    let mut core = Core::new(settings.schedule(), settings.rate, clock.clone(), settings.seed);
    let mut pauses = settings.pauses();
    let mut run = Run { fates: vec![Fate::default(); pins.len()], polls: Vec::new(), learner: None };
    let mut submitted: Vec<Moment> = Vec::with_capacity(pins.len());
    let (mut ended, mut next_submit) = (0, Moment::START);
    while ended < pins.len() {
        let wake = match core.next_poll() {
            Ok(ticket) => {
                let (pin, now) = (ticket.pin.clone(), clock.now());
                let n: usize = pin.as_str().parse().expect("a PIN's number");
                run.polls.push((n, now));
                let age = now.since(submitted[n]);
                if let Some(verdict) = core.answered(ticket, answer(pins[n], age)) {
                    let fate = Fate::new(f64::from(verdict.polls), pins[n].final_at, age.as_secs_f64());
                    run.fates[n] = Fate { endings_before: run.fates[n].endings_before, ..fate };
                    ended += 1;
                    core.finished(&pin);
                    if let Some(problem) = core.problem() {
                        let budget = settings.budget.unwrap_or(problem.budget);
                        core.adopt(Problem { budget, ..problem }.solve());
                    }
                }
                continue;
            }
            Err(wake) => wake,
        };
        let submit = (submitted.len() < pins.len()).then_some(next_submit);
        let next = wake.into_iter().chain(submit).min().expect("a PIN is in flight or is to be submitted");
        tokio::time::advance(next.since(clock.now())).await;
        if submit == Some(next) {
            let now = clock.date();
            let pin = submitted.len().to_string().parse().expect("a PIN ID");
            core.accept(&InFlight { pin, submitted_at: now, deadline_at: now.wall + DEADLINE });
            run.fates[submitted.len()].endings_before = ended;
            submitted.push(next);
            next_submit = next.after(pauses.next().unwrap_or_default());
        }
    }
    run.learner = core.learner().cloned();
    run
}

/// The status that the API reports for a PIN at an age.
fn answer(pin: Drawn, age: Duration) -> Meaning {
    let life = pin.life();
    let reported = life.at(age).map(|delivery| Delivery {
        status: delivery.status.status(),
        description: None,
        final_status: delivery.status.is_final(),
    });
    Meaning::Deliveries(reported.collect())
}

/// When the same PINs are polled by backoff alone: without the core, and without anything that learns. What `schedule.adapt
/// = "off"` does is to be the same, poll by poll.
pub fn polls_by_backoff(pins: &[Drawn], settings: &Settings) -> Vec<(usize, Moment)> {
    let (backoff, mut jitter) = (settings.backoff(), Rng::with_seed(settings.seed));
    let (mut pauses, mut next_submit) = (settings.pauses(), Moment::START);
    let mut due = std::collections::BTreeSet::new();
    let (mut submitted, mut polls) = (Vec::new(), Vec::new());
    while submitted.len() < pins.len() || !due.is_empty() {
        let next_due = due.first().map(|(moment, _)| *moment);
        if submitted.len() < pins.len() && next_due.is_none_or(|due| next_submit <= due) {
            let first = backoff.jittered(backoff.interval_at(Duration::ZERO), &mut jitter);
            due.insert((next_submit.after(first), submitted.len()));
            submitted.push(next_submit);
            next_submit = next_submit.after(pauses.next().unwrap_or_default());
        } else if let Some((now, n)) = due.pop_first() {
            polls.push((n, now));
            let age = now.since(submitted[n]);
            if age.as_secs_f64() < pins[n].final_at && age < DEADLINE {
                let interval = backoff.jittered(backoff.interval_at(age), &mut jitter);
                due.insert((now.after(interval).min(submitted[n].after(DEADLINE)), n));
            }
        }
    }
    polls
}
