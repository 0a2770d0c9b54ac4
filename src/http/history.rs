//! The numbers of the last hour and the last day, for the charts of the status page.
//!
//! Guarantees a fixed size, whatever the daemon does: two rings of 360 points, in memory only, 161,280 bytes together, and a few
//! kB for the names of sinks and the counts that the next point is compared with. A step without a sample (the schedule did not
//! answer, the machine slept) stays a gap. Points are placed by steady time, so setting the wall clock moves none. Must not count
//! anything itself, nor know how a number is shown.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock::Steady;
use crate::metrics::catalogue::LIFETIMES;
use crate::metrics::{self, STATUSES};
use crate::schedule::Counts;
use crate::services::Services;

/// How often a sample is taken.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);

/// How long the schedule may take to report its numbers; then the step is a gap.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The points of a ring.
const STEPS: usize = 360;

/// The most sinks whose backlog is kept.
const SINKS: usize = 16;

/// How much of the past a series shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// One hour, in steps of 10 s.
    Hour,
    /// 24 hours, in steps of 4 min.
    Day,
}

impl Span {
    /// The time between two points.
    pub fn step(self) -> Duration {
        match self {
            Self::Hour => SAMPLE_EVERY,
            Self::Day => Duration::from_mins(4),
        }
    }
}

/// One value for each step, oldest first; `None` is a gap.
pub type Values = Vec<Option<f64>>;

/// Values with a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub name: Cow<'static, str>,
    pub values: Values,
}

/// What a chart shows. All values have the same length, and are empty before the first sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub step: Duration,
    pub in_flight: Values,
    /// The rate limit in force, in polls per second; also `None` where there was no limit.
    pub rate: Values,
    /// Polls per second, by what the answer meant.
    pub polls: Vec<Line>,
    /// PINs that ended in the step, by the status that decided; only statuses that occur.
    pub statuses: Vec<Line>,
    /// The median seconds from the submission until a PIN was known to be final, for the PINs that became final in the step. An
    /// estimate from the buckets [`LIFETIMES`]: ages count as evenly spread within a bucket, and none as beyond the last limit.
    pub final_median: Values,
    pub final_p95: Values,
    /// The average estimated seconds from a PIN becoming final to the poll that reported it, for the same PINs.
    pub notice_delay: Values,
    /// How many seqs each sink's cursor is behind the newest outcome.
    pub backlog: Vec<Line>,
}

/// The present numbers.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    pub in_flight: u64,
    pub rate: Option<f64>,
    pub counts: Counts,
    /// Each sink's name, and how far it is behind.
    pub backlog: Vec<(String, u64)>,
}

/// Both rings. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Mutex<Rings>>);

impl History {
    /// Takes the numbers of this moment; `None` if they are not known.
    pub fn record(&self, now: Steady, sample: Option<Sample>) {
        let Rings { hour, day, sinks } = &mut *self.lock();
        let places = sample.as_ref().map_or([None; SINKS], |sample| sinks.places(&sample.backlog));
        for ring in [hour, day] {
            ring.record(now, sample.as_ref(), &places);
        }
    }

    /// The numbers of the time until the last sample.
    pub fn series(&self, span: Span) -> Series {
        let rings = self.lock();
        let ring = match span {
            Span::Hour => &rings.hour,
            Span::Day => &rings.day,
        };
        ring.series(&rings.sinks)
    }

    fn lock(&self) -> MutexGuard<'_, Rings> {
        // A panic elsewhere can leave at most one point half-written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a sample at every step until `stop`.
pub async fn sample(history: History, services: Services, stop: CancellationToken) {
    let mut ticks = interval(SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let stats = timeout(ANSWER_WITHIN, services.schedule.stats()).await.ok().and_then(Result::ok);
        let newest = *services.writer.newest().borrow();
        let behind = |cursor: i64| u64::try_from(newest - cursor).unwrap_or(0);
        let backlog = services.health.all().into_iter().map(|(name, health)| (name, behind(health.cursor)));
        let sample = stats.map(|stats| Sample {
            in_flight: stats.in_flight as u64,
            rate: stats.rate,
            counts: stats.counts,
            backlog: backlog.collect(),
        });
        history.record(services.clock.steady(), sample);
    }
}

#[derive(Debug)]
struct Rings {
    hour: Ring,
    day: Ring,
    sinks: Sinks,
}

impl Default for Rings {
    fn default() -> Self {
        Self { hour: Ring::new(Span::Hour), day: Ring::new(Span::Day), sinks: Sinks::default() }
    }
}

/// Which place of [`Point::backlog`] belongs to which sink. A sink beyond [`SINKS`] has none.
#[derive(Debug, Default)]
struct Sinks([Option<String>; SINKS]);

impl Sinks {
    /// Returns the backlog at each place. A new sink takes a free place and keeps it: a place that passed to another sink would
    /// show the numbers of both as one line.
    fn places(&mut self, backlog: &[(String, u64)]) -> [Option<u64>; SINKS] {
        let mut places = [None; SINKS];
        for (name, behind) in backlog {
            let own = self.0.iter().position(|sink| sink.as_ref() == Some(name));
            let Some(place) = own.or_else(|| self.0.iter().position(Option::is_none)) else { continue };
            self.0[place].get_or_insert_with(|| name.clone());
            places[place] = Some(*behind);
        }
        places
    }
}

/// The values of one step; NaN where there is none.
#[derive(Debug, Clone, Copy)]
struct Point {
    in_flight: f32,
    rate: f32,
    polls: [f32; 8],
    statuses: [f32; STATUSES],
    final_median: f32,
    final_p95: f32,
    notice_delay: f32,
    backlog: [f32; SINKS],
}

impl Point {
    const GAP: Self = Self {
        in_flight: f32::NAN,
        rate: f32::NAN,
        polls: [f32::NAN; 8],
        statuses: [f32::NAN; STATUSES],
        final_median: f32::NAN,
        final_p95: f32::NAN,
        notice_delay: f32::NAN,
        backlog: [f32::NAN; SINKS],
    };

    /// The point of this sample. What happened in the step is the difference to the counts before, `elapsed` ago; without
    /// them it is a gap.
    fn of(sample: &Sample, before: Option<(&Counts, Duration)>, backlog: &[Option<u64>; SINKS]) -> Self {
        let now = Self {
            in_flight: sample.in_flight as f32,
            rate: sample.rate.map_or(f32::NAN, |rate| rate as f32),
            backlog: backlog.map(|behind| behind.map_or(f32::NAN, |behind| behind as f32)),
            ..Self::GAP
        };
        let Some((before, elapsed)) = before else { return now };
        let counts = &sample.counts;
        let (polls, earlier) = (counts.by_meaning(), before.by_meaning());
        let seconds = elapsed.as_secs_f32();
        let ages: Vec<u64> = counts
            .final_ages
            .iter()
            .zip(before.final_ages)
            .map(|(now, then)| now.saturating_sub(then))
            .collect();
        let noticed = counts.noticed.saturating_sub(before.noticed);
        let delay = counts.notice_delay.saturating_sub(before.notice_delay);
        Self {
            polls: std::array::from_fn(|n| polls[n].1.saturating_sub(earlier[n].1) as f32 / seconds),
            statuses: std::array::from_fn(|n| counts.statuses[n].saturating_sub(before.statuses[n]) as f32),
            final_median: quantile(&ages, 0.5).map_or(f32::NAN, |age| age as f32),
            final_p95: quantile(&ages, 0.95).map_or(f32::NAN, |age| age as f32),
            notice_delay: if noticed == 0 { f32::NAN } else { delay.as_secs_f32() / noticed as f32 },
            ..now
        }
    }
}

/// The age that this share of the PINs did not exceed, in seconds; `None` without PINs. `counts` has them by [`LIFETIMES`],
/// then the older ones.
fn quantile(counts: &[u64], share: f64) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    let rank = share * total as f64;
    let (mut below, mut lower) = (0.0, 0.0);
    for (count, upper) in counts.iter().zip(LIFETIMES) {
        let count = *count as f64;
        if count > 0.0 && below + count >= rank {
            return Some(lower + (upper - lower) * (rank - below) / count);
        }
        (below, lower) = (below + count, *upper);
    }
    (total > 0).then_some(lower)
}

/// One span's points. The point of step n is at n modulo [`STEPS`].
#[derive(Debug)]
struct Ring {
    step: Duration,
    points: Box<[Point]>,
    /// When step 0 ended.
    begun: Option<Steady>,
    newest: Option<u64>,
    /// The step and the counts of the last sample, and when it was taken.
    last: Option<(u64, Counts, Steady)>,
}

impl Ring {
    fn new(span: Span) -> Self {
        let points = vec![Point::GAP; STEPS].into_boxed_slice();
        Self { step: span.step(), points, begun: None, newest: None, last: None }
    }

    /// Takes the first sample of each step; ignores others.
    fn record(&mut self, now: Steady, sample: Option<&Sample>, backlog: &[Option<u64>; SINKS]) {
        let begun = *self.begun.get_or_insert(now);
        // A sample may be a little early or late.
        let since = now.since(begun) + SAMPLE_EVERY / 2;
        let number = u64::try_from(since.as_millis() / self.step.as_millis()).unwrap_or(u64::MAX);
        let skipped = match self.newest {
            Some(newest) if number <= newest => return,
            Some(newest) => number - newest,
            None => 1,
        };
        for back in 0..skipped.min(STEPS as u64) {
            *self.at(number - back) = Point::GAP;
        }
        self.newest = Some(number);
        let Some(sample) = sample else { return };
        let adjacent = self.last.as_ref().filter(|(step, ..)| step + 1 == number);
        let before = adjacent.map(|(_, counts, taken)| (counts, now.since(*taken)));
        let before = before.filter(|(_, elapsed)| !elapsed.is_zero());
        let point = Point::of(sample, before, backlog);
        *self.at(number) = point;
        self.last = Some((number, sample.counts.clone(), now));
    }

    fn at(&mut self, number: u64) -> &mut Point {
        &mut self.points[place(number)]
    }

    fn series(&self, sinks: &Sinks) -> Series {
        // Without a sample, nothing is shown.
        let shown = self.newest.map_or(0, |_| STEPS);
        let oldest = self.newest.map_or(0, |newest| place(newest + 1));
        let ordered = || self.points[oldest..].iter().chain(&self.points[..oldest]).take(shown);
        let values = |of: &dyn Fn(&Point) -> f32| -> Values {
            ordered().map(|point| Some(f64::from(of(point))).filter(|value| !value.is_nan())).collect()
        };
        let line = |name: Cow<'static, str>, of: &dyn Fn(&Point) -> f32| Line { name, values: values(of) };
        let meanings = Counts::default().by_meaning();
        let occurs = |line: &Line| line.values.iter().flatten().any(|value| *value > 0.0);
        let statuses = metrics::statuses().enumerate();
        let names = sinks.0.iter().enumerate().filter_map(|(n, name)| Some((n, name.clone()?)));
        Series {
            step: self.step,
            in_flight: values(&|point| point.in_flight),
            rate: values(&|point| point.rate),
            polls: (0..8).map(|n| line(meanings[n].0.into(), &|point| point.polls[n])).collect(),
            statuses: statuses
                .map(|(n, name)| line(name.into(), &|point| point.statuses[n]))
                .filter(occurs)
                .collect(),
            final_median: values(&|point| point.final_median),
            final_p95: values(&|point| point.final_p95),
            notice_delay: values(&|point| point.notice_delay),
            backlog: names.map(|(n, name)| line(name.into(), &|point| point.backlog[n])).collect(),
        }
    }
}

/// Where a step's point is in its ring.
fn place(number: u64) -> usize {
    (number % STEPS as u64) as usize
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
