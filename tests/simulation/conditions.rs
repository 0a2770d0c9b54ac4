//! The conditions of the whole API over time: its faults, and when they occur. In the end it works, and stays so.

use std::time::Duration;

use fastrand::Rng;

use super::clocks::{BEGIN, Time};

/// The condition of the API at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Condition {
    Normal,
    /// 5xx, and what else says "not now".
    Errors,
    /// No answer within the time-out.
    Silence,
    /// Connections are refused or reset.
    Resets,
    /// 401 or 403 for every PIN.
    Refused(u16),
    /// 429 at any rate.
    Busy,
    /// 200 that can't be understood.
    Garbage,
    /// Any of these, for this share of the requests.
    Flaky(f64),
    /// Right answers, late or too late.
    Slow,
    /// A load balancer's own answer for every PIN: 404, 405 or 421.
    Misrouted(u16),
    /// The daemon's machine can send nothing.
    CannotSend,
}

#[derive(Debug)]
pub struct Conditions {
    /// When each begins, in true time.
    turns: Vec<(Time, Condition)>,
    end: Time,
}

impl Conditions {
    pub fn draw(end: Time, rng: &mut Rng) -> Self {
        let minute = Duration::from_secs(60);
        let all = end - BEGIN;
        let (mut turns, mut at) = (vec![(BEGIN, Condition::Normal)], BEGIN);
        let is_calm = rng.u32(..12) == 0;
        loop {
            at += span(minute, all / 3, rng);
            if is_calm || at >= end {
                break;
            }
            let condition = match rng.u32(..13) {
                0 | 1 => Condition::Errors,
                2 => Condition::Silence,
                3 => Condition::Resets,
                4 => Condition::Refused(if rng.bool() { 401 } else { 403 }),
                5 => Condition::Busy,
                6 => Condition::Garbage,
                7 => Condition::Slow,
                8 | 9 => Condition::Misrouted(*rng.choice(&[404, 404, 405, 421]).expect("some")),
                10 => Condition::CannotSend,
                _ => Condition::Flaky(rng.f64()),
            };
            turns.push((at, condition));
            at += span(Duration::from_secs(5), all / 2, rng);
            turns.push((at, Condition::Normal));
        }
        let end = end.max(at);
        Self { turns, end }
    }

    pub fn at(&self, truth: Time) -> Condition {
        let next = self.turns.partition_point(|(begin, _)| *begin <= truth);
        self.turns[next - 1].1
    }

    /// When it changed last.
    pub fn since(&self, truth: Time) -> Time {
        let next = self.turns.partition_point(|(begin, _)| *begin <= truth);
        self.turns[next - 1].0
    }

    /// When it changes next.
    pub fn turns(&self, truth: Time) -> Option<Time> {
        self.turns.iter().map(|(begin, _)| *begin).chain([self.end]).find(|begin| *begin > truth)
    }

    /// From then on the API works and accepts any rate.
    pub fn end(&self) -> Time {
        self.end
    }
}

/// A time between the two; each order of magnitude is as likely.
pub fn span(least: Duration, most: Duration, rng: &mut Rng) -> Duration {
    let most = most.max(least);
    let factor = most.as_secs_f64() / least.as_secs_f64();
    let micros = least.as_secs_f64() * factor.powf(rng.f64()) * 1e6;
    Duration::from_micros(micros as u64)
}
