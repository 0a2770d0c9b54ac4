//! Whether deliveries may go out: all of them, one at a time to see whether the endpoint is back, or none.
//!
//! The gate shuts when the last [`ENOUGH`] tries of different outcomes failed, or when the endpoint asked to be
//! left alone. Then one probe at a time goes through, less and less often, until one gets an answer. Promises
//! that an endpoint that is down is asked at most once in [`MAX_PROBE_INTERVAL`], give or take a fifth. Pure: moments and the generator of
//! the jitter are passed in. Knows nothing of what is delivered.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::clock::Moment;

/// So many different outcomes in a row must fail before it is the endpoint's fault and not theirs.
pub const ENOUGH: usize = 5;

/// So many tries in a row, of whatever outcomes, must fail before people are told.
const WORTH_TELLING: u32 = 3;

const FIRST_PROBE_AFTER: Duration = Duration::from_secs(1);
/// With jitter, an endpoint that is back is noticed within a minute.
pub const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(50);

/// What may start now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admits {
    Everything,
    /// One delivery, to see whether the endpoint is back.
    Probe,
    Nothing,
}

#[derive(Debug)]
pub struct Gate {
    state: State,
    /// The outcomes that failed since the last answer that was none of "later"; each once, [`ENOUGH`] at most.
    failed: Vec<i64>,
    /// Tries that failed since then.
    in_a_row: u32,
    last_error: Option<String>,
    probes: Backoff,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Open,
    Shut { until: Moment, failed_probes: u32, probing: bool },
}

impl Gate {
    pub fn new() -> Self {
        let probes = Backoff::new(FIRST_PROBE_AFTER, 2.0, MAX_PROBE_INTERVAL, 0.2);
        Self { state: State::Open, failed: Vec::new(), in_a_row: 0, last_error: None, probes }
    }

    /// Whether it is not open.
    pub fn is_shut(&self) -> bool {
        matches!(self.state, State::Shut { .. })
    }

    /// What may start now.
    pub fn admits(&self, now: Moment) -> Admits {
        match self.state {
            State::Open => Admits::Everything,
            State::Shut { until, probing: false, .. } if until <= now => Admits::Probe,
            State::Shut { .. } => Admits::Nothing,
        }
    }

    /// When a probe may start, if that only takes time.
    pub fn probe_at(&self) -> Option<Moment> {
        match self.state {
            State::Shut { until, probing: false, .. } => Some(until),
            State::Open | State::Shut { .. } => None,
        }
    }

    /// The probe that was admitted starts.
    pub fn probe_started(&mut self) {
        if let State::Shut { probing, .. } = &mut self.state {
            *probing = true;
        }
    }

    /// A try was answered, delivered or refused: the endpoint lives. A try from before the gate shut tells
    /// nothing about now, so only the probe opens it.
    pub fn answered(&mut self, probe: bool) {
        if probe {
            self.state = State::Open;
        }
        if !self.is_shut() {
            self.failed.clear();
            self.in_a_row = 0;
            self.last_error = None;
        }
    }

    /// A try of this outcome failed. `hold` is how long the endpoint wants to be left alone.
    pub fn failed(
        &mut self,
        outcome: i64,
        probe: bool,
        hold: Option<Duration>,
        error: &str,
        now: Moment,
        random: &mut fastrand::Rng,
    ) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.last_error = Some(error.to_owned());
        if self.failed.len() < ENOUGH && !self.failed.contains(&outcome) {
            self.failed.push(outcome);
        }
        let held = hold.map(|hold| now.after(hold));
        self.state = match self.state {
            State::Open if held.is_none() && self.failed.len() < ENOUGH => return,
            State::Open => State::Shut {
                until: held.unwrap_or(now).max(self.next_probe(0, now, random)),
                failed_probes: 0,
                probing: false,
            },
            State::Shut { until, failed_probes, .. } if probe => {
                let failed_probes = failed_probes.saturating_add(1);
                let next = self.next_probe(failed_probes, now, random);
                State::Shut { until: held.unwrap_or(now).max(next).max(until), failed_probes, probing: false }
            }
            // It was under way when the gate shut, and can only lengthen the wait.
            State::Shut { until, failed_probes, probing } => {
                State::Shut { until: held.unwrap_or(until).max(until), failed_probes, probing }
            }
        };
    }

    fn next_probe(&self, failed_probes: u32, now: Moment, random: &mut fastrand::Rng) -> Moment {
        now.after(self.probes.jittered(self.probes.nth(failed_probes), random))
    }

    /// What people should know: why nothing is delivered.
    pub fn trouble(&self) -> Option<&str> {
        let told = self.is_shut() || self.in_a_row >= WORTH_TELLING;
        self.last_error.as_deref().filter(|_| told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const T0: Moment = Moment::START;

    struct Trial(Gate, fastrand::Rng);

    impl Trial {
        fn new() -> Self {
            Self(Gate::new(), fastrand::Rng::with_seed(7))
        }

        fn fail(&mut self, outcome: i64, probe: bool, hold: Option<u64>, now: Moment) {
            self.0.failed(outcome, probe, hold.map(Duration::from_secs), "503", now, &mut self.1);
        }
    }

    #[test]
    fn one_bad_outcome_never_shuts_the_gate_however_often_it_fails() {
        let mut trial = Trial::new();
        for _ in 0..100 {
            trial.fail(1, false, None, T0);
        }
        assert_eq!(trial.0.admits(T0), Admits::Everything);
        assert_eq!(trial.0.trouble(), Some("503"), "though people are told");
    }

    #[test]
    fn different_outcomes_that_fail_in_a_row_shut_it_and_an_answer_between_them_does_not() {
        let mut trial = Trial::new();
        for outcome in 0..4 {
            trial.fail(outcome, false, None, T0);
        }
        trial.0.answered(false);
        assert_eq!(trial.0.trouble(), None);
        for outcome in 4..8 {
            trial.fail(outcome, false, None, T0);
        }
        assert_eq!(trial.0.admits(T0), Admits::Everything);
        trial.fail(8, false, None, T0);
        assert_eq!(trial.0.admits(T0), Admits::Nothing);
    }

    #[test]
    fn a_shut_gate_lets_one_probe_through_at_a_time_at_growing_intervals() {
        let mut trial = Trial::new();
        (0..5).for_each(|outcome| trial.fail(outcome, false, None, T0));
        let mut now = T0;
        for wait in [1u64, 2, 4, 8, 16, 32, 50, 50, 50] {
            let at = trial.0.probe_at().unwrap();
            let least = Duration::from_millis(wait * 800);
            let most = Duration::from_millis(wait * 1200);
            assert!((least..=most).contains(&at.since(now)), "{:?} for {wait} s", at.since(now));
            assert_eq!(trial.0.admits(at.before(Duration::from_micros(1))), Admits::Nothing);
            now = at;
            assert_eq!(trial.0.admits(now), Admits::Probe);
            trial.0.probe_started();
            assert_eq!(
                (trial.0.admits(now.after(3600 * SECOND)), trial.0.probe_at()),
                (Admits::Nothing, None)
            );
            trial.0.answered(false);
            assert!(trial.0.is_shut(), "a delivery from before the gate shut does not open it");
            trial.fail(9, true, None, now);
        }
        trial.0.probe_started();
        trial.0.answered(true);
        assert_eq!((trial.0.admits(now), trial.0.trouble()), (Admits::Everything, None));
    }

    #[test]
    fn an_endpoint_that_asks_to_be_left_alone_is_left_alone_and_then_probed() {
        let mut trial = Trial::new();
        trial.fail(1, false, Some(30), T0);
        trial.fail(2, false, Some(10), T0);
        assert_eq!(trial.0.admits(T0.after(29 * SECOND)), Admits::Nothing);
        assert_eq!(trial.0.admits(T0.after(30 * SECOND)), Admits::Probe);
        trial.fail(3, false, Some(60), T0);
        assert_eq!(trial.0.admits(T0.after(59 * SECOND)), Admits::Nothing, "the longest wait counts");
        trial.0.probe_started();
        trial.fail(4, true, Some(3600), T0.after(60 * SECOND));
        assert_eq!(trial.0.admits(T0.after(3659 * SECOND)), Admits::Nothing);
        assert_eq!(trial.0.admits(T0.after(3660 * SECOND)), Admits::Probe);
    }
}
