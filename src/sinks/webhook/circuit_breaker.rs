//! The webhook's circuit breaker: deliveries may start freely, one at a time as probes, or not at all.
//!
//! It opens when the endpoint accepted nothing while [`ENOUGH`] different outcomes failed, when it accepted nothing while
//! [`ENOUGH_REFUSED`] failed or were refused, or when the endpoint asked for a pause. Then one probe at a time is sent until one
//! is accepted. Promises that the pauses before them double from a second to [`MAX_PROBE_INTERVAL`], each plus or minus a fifth,
//! and are longer if the endpoint asked for that. Pure: the caller passes the time and the random generator for the jitter. Must
//! not know what is delivered.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::clock::Moment;

/// This many different outcomes in a row must fail before the endpoint is blamed instead of the outcomes.
pub const ENOUGH: usize = 5;

/// This many must be refused. The number is higher because a receiver that refuses has seen the outcomes and may have a reason
/// for each.
pub const ENOUGH_REFUSED: usize = 20;

/// This many tries in a row, of any outcomes, must fail before trouble is reported.
const WORTH_REPORTING: u32 = 3;

/// Refusals count against the endpoint only if it has accepted nothing for this long.
const REFUSES_FOR: Duration = Duration::from_secs(10);

const FIRST_PROBE_AFTER: Duration = Duration::from_secs(1);
/// With jitter, pinwatch notices within a minute that an endpoint is back.
pub const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(50);

/// What may start now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admits {
    Everything,
    /// One delivery, to check whether the endpoint works again.
    Probe,
    Nothing,
}

/// A try that did not deliver.
#[derive(Debug, Clone, Copy)]
pub struct Miss<'a> {
    /// The first outcome of the try.
    pub outcome: i64,
    /// The receiver refused the request; it did not fail.
    pub refused: bool,
    /// The pause that the endpoint asked for.
    pub hold: Option<Duration>,
    pub error: &'a str,
}

#[derive(Debug)]
pub struct CircuitBreaker {
    state: State,
    /// The outcomes that failed since the last acceptance; each once, at most [`ENOUGH`].
    failed: Vec<i64>,
    /// The outcomes that were refused since then; each once, at most [`ENOUGH_REFUSED`].
    refused: Vec<i64>,
    /// The tries since then.
    row: Option<Row>,
    /// Numbers the rows of misses; an accepted outcome ends a row.
    row_number: u64,
    /// The last row that stopped deliveries.
    last_long_row: Option<u64>,
    probes: Backoff,
}

/// Consecutive tries that did not deliver.
#[derive(Debug)]
struct Row {
    began: Moment,
    tries: u32,
    last_error: String,
    /// The trouble is to be reported.
    reported: bool,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed,
    Open { since: Moment, until: Moment, failed_probes: u32, probing: bool },
}

impl CircuitBreaker {
    pub fn new() -> Self {
        let probes = Backoff::new(FIRST_PROBE_AFTER, 2.0, MAX_PROBE_INTERVAL, 0.2);
        Self {
            state: State::Closed,
            failed: Vec::new(),
            refused: Vec::new(),
            row: None,
            row_number: 0,
            last_long_row: None,
            probes,
        }
    }

    /// Whether deliveries are stopped, except for probes.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Since when deliveries are stopped, if they are.
    pub fn open_since(&self) -> Option<Moment> {
        match self.state {
            State::Open { since, .. } => Some(since),
            State::Closed => None,
        }
    }

    /// Whether deliveries are stopped because the endpoint refuses what it receives.
    pub fn is_refusing(&self) -> bool {
        self.is_open() && self.refused.len() >= ENOUGH
    }

    pub fn admits(&self, now: Moment) -> Admits {
        match self.state {
            State::Closed => Admits::Everything,
            State::Open { until, probing: false, .. } if until <= now => Admits::Probe,
            State::Open { .. } => Admits::Nothing,
        }
    }

    /// When a probe may start, if only time has to pass.
    pub fn probe_at(&self) -> Option<Moment> {
        match self.state {
            State::Open { until, probing: false, .. } => Some(until),
            State::Closed | State::Open { .. } => None,
        }
    }

    /// Records that the admitted probe starts.
    pub fn probe_started(&mut self) {
        self.set_probing(true);
    }

    /// Records that the probe ended without a request; another may start.
    pub fn probe_was_not_sent(&mut self) {
        self.set_probing(false);
    }

    fn set_probing(&mut self, now_probing: bool) {
        if let State::Open { probing, .. } = &mut self.state {
            *probing = now_probing;
        }
    }

    /// The endpoint accepted a try. Only an accepted probe resumes deliveries: any other try began before they stopped and says
    /// nothing about now.
    pub fn accepted(&mut self, probe: bool) {
        if probe {
            self.state = State::Closed;
        }
        if !self.is_open() {
            self.failed.clear();
            self.refused.clear();
            self.row = None;
            self.row_number += 1;
        }
    }

    /// The number of the present row of misses.
    pub fn row_number(&self) -> u64 {
        self.row_number
    }

    /// Whether an accepted outcome ended this row of misses before the row stopped deliveries, and no later row has stopped them
    /// since. If so, what was refused in the row was refused by an endpoint that accepts other outcomes.
    pub fn was_short(&self, row: u64) -> bool {
        row < self.row_number && self.last_long_row.is_none_or(|long| long < row)
    }

    /// Whether several outcomes in a row were missed; the next ones may be as bad.
    pub fn is_row_long(&self) -> bool {
        self.failed.len() + self.refused.len() >= ENOUGH
    }

    /// Records a try that did not deliver.
    pub fn missed(&mut self, miss: Miss, probe: bool, now: Moment, random: &mut fastrand::Rng) {
        self.note(miss, now);
        let held = miss.hold.map(|hold| now.after(hold));
        let enough = self.failed.len() >= ENOUGH || self.failed.len() + self.refused.len() >= ENOUGH_REFUSED;
        if enough || held.is_some() {
            self.last_long_row = Some(self.row_number);
        }
        self.state = match self.state {
            State::Closed if held.is_none() && !enough => return,
            State::Closed => State::Open {
                since: now,
                until: held.unwrap_or(now).max(self.next_probe(0, now, random)),
                failed_probes: 0,
                probing: false,
            },
            State::Open { since, until, failed_probes, .. } if probe => {
                let failed_probes = failed_probes.saturating_add(1);
                let next = self.next_probe(failed_probes, now, random);
                let until = held.unwrap_or(now).max(next).max(until);
                State::Open { since, until, failed_probes, probing: false }
            }
            // The try was running when deliveries stopped; it can only lengthen the pause.
            State::Open { since, until, failed_probes, probing } => {
                State::Open { since, until: held.unwrap_or(until).max(until), failed_probes, probing }
            }
        };
    }

    fn note(&mut self, miss: Miss, now: Moment) {
        let (list, most) = match miss.refused {
            true => (&mut self.refused, ENOUGH_REFUSED),
            false => (&mut self.failed, ENOUGH),
        };
        if list.len() < most && !list.contains(&miss.outcome) {
            list.push(miss.outcome);
        }
        let row = self.row.get_or_insert_with(|| Row {
            began: now,
            tries: 0,
            last_error: String::new(),
            reported: false,
        });
        row.tries = row.tries.saturating_add(1);
        miss.error.clone_into(&mut row.last_error);
        row.reported |=
            row.tries >= WORTH_REPORTING && (!miss.refused || now.since(row.began) >= REFUSES_FOR);
    }

    fn next_probe(&self, failed_probes: u32, now: Moment, random: &mut fastrand::Rng) -> Moment {
        now.after(self.probes.jittered(self.probes.nth(failed_probes), random))
    }

    /// Why nothing is delivered, for people.
    pub fn trouble(&self) -> Option<&str> {
        self.row.as_ref().filter(|row| self.is_open() || row.reported).map(|row| row.last_error.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const T0: Moment = Moment::START;

    struct Trial(CircuitBreaker, fastrand::Rng);

    impl Trial {
        fn new() -> Self {
            Self(CircuitBreaker::new(), fastrand::Rng::with_seed(7))
        }

        fn fail(&mut self, outcome: i64, probe: bool, hold: Option<u64>, now: Moment) {
            let miss = Miss { outcome, refused: false, hold: hold.map(Duration::from_secs), error: "503" };
            self.0.missed(miss, probe, now, &mut self.1);
        }

        fn refuse(&mut self, outcome: i64, now: Moment) {
            let miss = Miss { outcome, refused: true, hold: None, error: "404" };
            self.0.missed(miss, false, now, &mut self.1);
        }
    }

    #[test]
    fn one_outcome_that_keeps_failing_never_opens_the_circuit() {
        let mut trial = Trial::new();
        for _ in 0..100 {
            trial.fail(1, false, None, T0);
        }
        assert_eq!(trial.0.admits(T0), Admits::Everything);
        assert_eq!(trial.0.trouble(), Some("503"), "though it is reported");
    }

    #[test]
    fn different_outcomes_that_fail_in_a_row_open_the_circuit() {
        let mut trial = Trial::new();
        for outcome in 0..4 {
            trial.fail(outcome, false, None, T0);
        }
        trial.0.accepted(false);
        assert_eq!(trial.0.trouble(), None);
        for outcome in 4..8 {
            trial.fail(outcome, false, None, T0);
        }
        assert_eq!(trial.0.admits(T0), Admits::Everything);
        trial.fail(8, false, None, T0);
        assert_eq!(trial.0.admits(T0), Admits::Nothing);
    }

    #[test]
    fn an_endpoint_that_refuses_every_outcome_opens_the_circuit_and_is_reported() {
        let mut trial = Trial::new();
        for outcome in 0..19 {
            trial.refuse(outcome, T0);
            trial.refuse(outcome, T0);
        }
        assert_eq!(
            (trial.0.admits(T0), trial.0.trouble()),
            (Admits::Everything, None),
            "it may have reasons"
        );
        trial.refuse(19, T0);
        assert_eq!((trial.0.admits(T0), trial.0.trouble()), (Admits::Nothing, Some("404")));
    }

    #[test]
    fn an_endpoint_that_refuses_one_outcome_is_reported_when_it_accepts_nothing_meanwhile() {
        let mut trial = Trial::new();
        for second in [0, 1, 3, 7] {
            trial.refuse(1, T0.after(second * SECOND));
            assert_eq!(trial.0.trouble(), None);
        }
        trial.refuse(1, T0.after(15 * SECOND));
        assert_eq!((trial.0.is_open(), trial.0.trouble()), (false, Some("404")));
        trial.0.accepted(false);
        assert_eq!(trial.0.trouble(), None);
    }

    #[test]
    fn a_run_of_refusals_is_short_if_an_outcome_is_accepted_before_the_circuit_opens() {
        let mut trial = Trial::new();
        let first = trial.0.row_number();
        (0..19).for_each(|outcome| trial.refuse(outcome, T0));
        assert!(!trial.0.was_short(first), "it goes on");
        trial.0.accepted(false);
        let second = trial.0.row_number();
        assert!(trial.0.was_short(first) && !trial.0.was_short(second));
        (0..20).for_each(|outcome| trial.refuse(outcome, T0));
        trial.0.accepted(false);
        trial.0.probe_started();
        trial.0.accepted(true);
        assert!(!trial.0.is_open() && trial.0.row_number() > second);
        assert!(!trial.0.was_short(first) && !trial.0.was_short(second), "all were refused for a while");
    }

    #[test]
    fn another_probe_is_allowed_after_one_that_was_not_sent() {
        let mut trial = Trial::new();
        (0..5).for_each(|outcome| trial.fail(outcome, false, None, T0));
        let at = trial.0.probe_at().unwrap();
        trial.0.probe_started();
        trial.0.probe_was_not_sent();
        assert_eq!(trial.0.admits(at), Admits::Probe);
    }

    #[test]
    fn an_open_circuit_lets_one_probe_through_at_a_time_at_growing_intervals() {
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
            trial.0.accepted(false);
            assert!(trial.0.is_open(), "a delivery from before the circuit opened does not close it");
            trial.fail(9, true, None, now);
        }
        trial.0.probe_started();
        trial.0.accepted(true);
        assert_eq!((trial.0.admits(now), trial.0.trouble()), (Admits::Everything, None));
    }

    #[test]
    fn an_endpoint_that_sends_retry_after_is_probed_after_that_time() {
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
