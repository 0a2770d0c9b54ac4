//! What the charts show: the last hour and the last 24 hours, as numbers that are sampled at a steady pace.
//!
//! Promises a fixed size, however long the daemon runs and however many PINs there are: two rings of [`STEPS`] samples, together
//! [`SIZE`] bytes. Lives in memory only, so it begins anew with the process; steps that were missed are gaps. Pure: the
//! caller says what time it is and what was counted.

use std::time::Duration;

use crate::metrics::catalogue::LIFETIMES;
use crate::schedule::{Counts, Stats};

/// Samples of a ring: an hour of 10 s each, or 24 hours of 4 minutes each.
pub const STEPS: usize = 360;

/// The sinks whose backlog is kept: the first so many by name.
pub const SINKS: usize = 8;

/// The bytes of all samples.
pub const SIZE: usize = 2 * STEPS * size_of::<Option<Sample>>();

/// What the polls of a step meant, in the order of [`MEANINGS`].
pub const MEANINGS: [&str; 8] = [
    "understood",
    "unreadable",
    "rejected",
    "unauthorized",
    "not found",
    "throttled (429)",
    "no usable answer",
    "not sent",
];

/// A span that a chart shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Span {
    #[default]
    Hour,
    Day,
}

impl Span {
    /// The time between two samples.
    pub const fn step(self) -> Duration {
        match self {
            Self::Hour => Duration::from_secs(10),
            Self::Day => Duration::from_mins(4),
        }
    }
}

/// What was seen at the end of a step, and counted during it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sample {
    pub in_flight: u32,
    /// The rate limit in force, in polls per second; NaN without a limit.
    pub rate: f32,
    /// Polls per second, by [`MEANINGS`].
    pub polls: [f32; MEANINGS.len()],
    /// Outcomes per minute, by [`crate::outcome::Ending`].
    pub outcomes: [f32; 5],
    /// Seconds from submission to final, of the PINs that became final in the step: half of them took less, and 95 of 100;
    /// NaN if there were none. Each is interpolated within its bucket of [`LIFETIMES`].
    pub time_to_final: [f32; 2],
    /// Seconds from final to noticed, on average; NaN if there were none.
    pub notice_delay: f32,
    /// The outcomes that each sink still has to get.
    pub backlog: [u32; SINKS],
}

/// The samples of both spans.
#[derive(Debug, Default)]
pub struct History {
    hour: Ring,
    day: Ring,
    sinks: Vec<String>,
}

/// The last samples of a span.
#[derive(Debug, Default)]
struct Ring {
    samples: Vec<Option<Sample>>,
    /// The number of the newest step, counted from the start.
    newest: u64,
    /// What had been counted when it ended.
    counted: Counts,
}

impl History {
    /// Notes the numbers at the time `now` since the start. To be called at least once in each step of [`Span::Hour`].
    pub fn note(&mut self, now: Duration, stats: &Stats, backlog: &[(String, i64)]) {
        for (sink, _) in backlog {
            if self.sinks.len() < SINKS && !self.sinks.contains(sink) {
                self.sinks.push(sink.clone());
            }
        }
        let mut of_sinks = [0; SINKS];
        for (index, sink) in self.sinks.iter().enumerate() {
            let behind = backlog.iter().find(|(name, _)| name == sink).map_or(0, |(_, behind)| *behind);
            of_sinks[index] = behind.clamp(0, i64::from(u32::MAX)) as u32;
        }
        self.hour.note(now, Span::Hour.step(), stats, of_sinks);
        self.day.note(now, Span::Day.step(), stats, of_sinks);
    }

    /// The names of the sinks whose backlog is kept.
    pub fn sinks(&self) -> &[String] {
        &self.sinks
    }

    /// The samples of a span, oldest first; `None` where there is a gap.
    pub fn samples(&self, span: Span) -> Vec<Option<Sample>> {
        let ring = match span {
            Span::Hour => &self.hour,
            Span::Day => &self.day,
        };
        let missing = STEPS - ring.samples.len();
        let next = (ring.newest as usize + 1) % STEPS;
        let mut samples = vec![None; missing];
        if missing > 0 {
            samples.extend(&ring.samples);
        } else {
            samples.extend(ring.samples[next..].iter().chain(&ring.samples[..next]));
        }
        samples
    }
}

impl Ring {
    fn note(&mut self, now: Duration, step: Duration, stats: &Stats, backlog: [u32; SINKS]) {
        let number = (now.as_millis() / step.as_millis()) as u64;
        if number <= self.newest && !self.samples.is_empty() {
            return;
        }
        let steps = number - self.newest.min(number);
        let is_first = self.samples.is_empty();
        // A gap is no longer than the ring.
        for missed in (self.newest + 1..number).rev().take(if is_first { 0 } else { STEPS }) {
            self.put(missed, None);
        }
        let seconds = step.as_secs_f32() * if is_first { 1.0 } else { steps as f32 };
        self.put(number, Some(sample(stats, &self.counted, seconds, backlog)));
        self.newest = number;
        self.counted = stats.counts.clone();
    }

    fn put(&mut self, number: u64, sample: Option<Sample>) {
        let index = number as usize % STEPS;
        if self.samples.len() < STEPS && index >= self.samples.len() {
            // The first sample is at the index of its step, so that all others are too.
            self.samples.resize(index, None);
            self.samples.push(sample);
        } else {
            self.samples[index] = sample;
        }
    }
}

/// Makes a sample from what was counted until the step before and until now.
fn sample(stats: &Stats, before: &Counts, seconds: f32, backlog: [u32; SINKS]) -> Sample {
    let now = &stats.counts;
    let meanings = |of: &Counts| {
        [
            of.understood,
            of.unreadable,
            of.rejected,
            of.unauthorized,
            of.not_found,
            of.throttled,
            of.unavailable,
            of.not_sent,
        ]
    };
    let per_second = |(now, before): (u64, u64)| now.saturating_sub(before) as f32 / seconds;
    let (polls, polls_before) = (meanings(now), meanings(before));
    let mut ages = now.final_ages;
    ages.iter_mut().zip(before.final_ages).for_each(|(now, before)| *now = now.saturating_sub(before));
    let noticed = now.noticed.saturating_sub(before.noticed);
    let delay = now.notice_delay.saturating_sub(before.notice_delay).as_secs_f32();
    Sample {
        in_flight: stats.in_flight.min(u32::MAX as usize) as u32,
        rate: stats.rate.map_or(f32::NAN, |rate| rate as f32),
        polls: std::array::from_fn(|meaning| per_second((polls[meaning], polls_before[meaning]))),
        outcomes: std::array::from_fn(|ending| {
            60.0 * per_second((now.outcomes[ending], before.outcomes[ending]))
        }),
        time_to_final: [0.5, 0.95].map(|share| quantile(&ages, share)),
        notice_delay: if noticed == 0 { f32::NAN } else { delay / noticed as f32 },
        backlog,
    }
}

/// The age by which this share of PINs was final, interpolated within its bucket; NaN if there is none. Ages beyond the last
/// limit count as that limit.
fn quantile(counts: &[u64; LIFETIMES.len() + 1], share: f64) -> f32 {
    let all: u64 = counts.iter().sum();
    let mut left = share * all as f64;
    let mut from = 0.0;
    for (count, limit) in counts.iter().zip(LIFETIMES.iter().chain(LIFETIMES.last())) {
        if *count > 0 && left <= *count as f64 {
            return (from + (limit - from) * left / *count as f64) as f32;
        }
        left -= *count as f64;
        from = *limit;
    }
    f32::NAN
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Span::Hour.step();

    fn stats(in_flight: usize, understood: u64) -> Stats {
        let counts = Counts { understood, ..Counts::default() };
        Stats {
            in_flight,
            due: 0,
            polling: 0,
            finishing: 0,
            brake: None,
            brake_since: None,
            refused_everywhere: None,
            rate: None,
            counts,
            learned: None,
        }
    }

    #[test]
    fn the_history_takes_less_than_a_megabyte_however_long_it_is_kept() {
        let mut history = History::default();
        for step in 0..10_000 {
            history.note(step * STEP, &stats(step as usize, 0), &[]);
        }
        assert_eq!(SIZE, 80_640);
        for span in [Span::Hour, Span::Day] {
            assert_eq!(history.samples(span).len(), STEPS);
        }
        let samples = history.samples(Span::Hour);
        let in_flight: Vec<_> = samples.iter().map(|sample| sample.unwrap().in_flight).collect();
        assert_eq!(in_flight, (9640..10_000).collect::<Vec<_>>());
        let day = history.samples(Span::Day);
        assert_eq!(day.last().unwrap().unwrap().in_flight, 9984);
    }

    #[test]
    fn what_was_counted_in_a_step_is_a_rate_and_missed_steps_are_a_gap() {
        let mut history = History::default();
        history.note(STEP, &stats(1, 100), &[("file".into(), 3)]);
        history.note(STEP + STEP / 2, &stats(9, 150), &[]);
        history.note(2 * STEP, &stats(2, 200), &[("file".into(), 5)]);
        history.note(5 * STEP, &stats(3, 500), &[("hook".into(), -1)]);
        let samples: Vec<_> = history.samples(Span::Hour).into_iter().skip(STEPS - 4).collect();
        let polls: Vec<_> = samples.iter().map(|sample| sample.map(|sample| sample.polls[0])).collect();
        assert_eq!(polls, [Some(10.0), None, None, Some(10.0)]);
        assert_eq!(history.sinks(), ["file", "hook"]);
        assert_eq!(samples[0].unwrap().backlog[..2], [5, 0]);
        assert_eq!(samples[3].unwrap().backlog[..2], [0, 0]);
    }

    #[test]
    fn a_pause_longer_than_the_ring_leaves_only_gaps() {
        let mut history = History::default();
        history.note(STEP, &stats(1, 0), &[]);
        history.note(10_000 * STEP, &stats(2, 0), &[]);
        let samples = history.samples(Span::Hour);
        assert_eq!(samples.iter().flatten().count(), 1);
        assert_eq!(samples.last().unwrap().unwrap().in_flight, 2);
    }

    #[test]
    fn the_median_lies_within_its_bucket() {
        let mut counts = [0; LIFETIMES.len() + 1];
        assert!(quantile(&counts, 0.5).is_nan());
        // Ten PINs between 10 s and 20 s, and ten between 60 s and 120 s.
        counts[4] = 10;
        counts[7] = 10;
        assert_eq!(quantile(&counts, 0.5), 20.0);
        assert_eq!(quantile(&counts, 0.25), 15.0);
        assert_eq!(quantile(&counts, 0.95), 114.0);
    }
}
