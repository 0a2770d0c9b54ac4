//! Counts events for `/metrics`: one function for each kind of event.
//!
//! Guarantees that a call is cheap: handles are made once, and a call looks nothing up; a histogram allocates a block
//! now and then. Without metrics, a call is one load. Values that can be read at a scrape are not here but in `http/gather.rs`.
//! Knows outcomes and statuses; must not know how other modules work.

pub mod catalogue;

use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder as _, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio::time::Instant;

use self::catalogue::{Kind, Metric};
use crate::outcome::{CallStatus, Ending, SmsStatus, Status};
use crate::store::Submitted;

/// Set once, by the first daemon of this process that serves metrics.
static RECORDED: OnceLock<Recorded> = OnceLock::new();

/// Counted even without metrics, because `stats` reports it too. The whole process has one log.
static LOG_LINES_LOST: AtomicU64 = AtomicU64::new(0);

/// The values of the label `result`.
const SUBMIT_RESULTS: [&str; 4] = ["accepted", "duplicate", "finished", "at_capacity"];

/// The number of values of the label `status`: the documented statuses, any other status, and none.
pub const STATUSES: usize = SmsStatus::ALL.len() + CallStatus::ALL.len() + 2;

/// Why a request to the API was refused before its contents were examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpRefusal {
    NoToken,
    WrongToken,
    /// Too many of the two before, from one address.
    TooMany,
    Scope,
}

impl HttpRefusal {
    const ALL: [Self; 4] = [Self::NoToken, Self::WrongToken, Self::TooMany, Self::Scope];

    /// Its value of the label `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::WrongToken => "wrong_token",
            Self::TooMany => "too_many",
            Self::Scope => "scope",
        }
    }
}

/// The handles of all metrics counted here.
pub struct Recorded {
    rendered: PrometheusHandle,
    lateness: Histogram,
    poll_duration: Histogram,
    /// Indexed by ending, then by status.
    outcomes: Vec<Counter>,
    outcome_age: Vec<Histogram>,
    polls_per_pin: Vec<Histogram>,
    notice_delay: Histogram,
    submits: [Counter; SUBMIT_RESULTS.len()],
    commit_duration: Histogram,
    commit_changes: Histogram,
    commit_failures: Counter,
    http_refused: [Counter; HttpRefusal::ALL.len()],
}

/// Starts counting, and returns the handles.
pub fn install() -> &'static Recorded {
    RECORDED.get_or_init(Recorded::new)
}

/// Notes that a poll is sent, and how late it is.
pub fn poll_sent(lateness: Duration) {
    if let Some(recorded) = RECORDED.get() {
        recorded.lateness.record(lateness);
    }
}

/// Runs a poll and notes how long it took.
pub async fn polled<T>(poll: impl Future<Output = T>) -> T {
    let Some(recorded) = RECORDED.get() else { return poll.await };
    let sent = Instant::now();
    let answer = poll.await;
    recorded.poll_duration.record(sent.elapsed());
    answer
}

/// Notes the time from a PIN becoming final until it was noticed.
pub fn noticed(delay: Duration) {
    if let Some(recorded) = RECORDED.get() {
        recorded.notice_delay.record(delay);
    }
}

/// Notes that a PIN ended with this status (see [`status_index`]) at this age, after this many polls.
pub fn ended(ending: Ending, status: usize, age: Duration, polls: u32) {
    if let Some(recorded) = RECORDED.get() {
        recorded.outcomes[ending as usize * STATUSES + status].increment(1);
        recorded.outcome_age[ending as usize].record(age);
        recorded.polls_per_pin[ending as usize].record(f64::from(polls));
    }
}

/// Notes the results of submits.
pub fn submitted(results: &[Submitted]) {
    if let Some(recorded) = RECORDED.get() {
        for result in results {
            let index = match result {
                Submitted::Accepted => 0,
                Submitted::Duplicate => 1,
                Submitted::Finished(_) => 2,
                Submitted::AtCapacity => 3,
            };
            recorded.submits[index].increment(1);
        }
    }
}

/// Notes a commit of this many changes, which began at `begun` and is now durable.
pub fn committed(changes: usize, begun: Instant) {
    if let Some(recorded) = RECORDED.get() {
        recorded.commit_duration.record(begun.elapsed());
        recorded.commit_changes.record(changes as f64);
    }
}

/// Notes a failed transaction.
pub fn commit_failed() {
    if let Some(recorded) = RECORDED.get() {
        recorded.commit_failures.increment(1);
    }
}

/// Counts a request to the API without a valid token, or with one of another scope.
pub fn http_refused(reason: HttpRefusal) {
    if let Some(recorded) = RECORDED.get() {
        recorded.http_refused[reason as usize].increment(1);
    }
}

/// Counts a log line that was dropped because it was not read in time or could not be written.
pub fn log_line_lost() {
    LOG_LINES_LOST.fetch_add(1, Ordering::Relaxed);
}

/// Returns how many log lines were dropped since the process started.
pub fn log_lines_lost() -> u64 {
    LOG_LINES_LOST.load(Ordering::Relaxed)
}

impl Recorded {
    fn new() -> Self {
        let recorder = Recorder::default();
        let outcomes = Ending::ALL.iter().flat_map(|ending| {
            let counter = |status| recorder.counter(&catalogue::OUTCOMES, &[ending.as_str(), status]);
            statuses().map(counter).collect::<Vec<_>>()
        });
        let by_ending = |metric: &Metric| {
            let one = |ending: &Ending| recorder.histogram(metric, &[ending.as_str()]);
            Ending::ALL.iter().map(one).collect()
        };
        Self {
            lateness: recorder.histogram(&catalogue::LATENESS_SECONDS, &[]),
            poll_duration: recorder.histogram(&catalogue::POLL_SECONDS, &[]),
            outcomes: outcomes.collect(),
            outcome_age: by_ending(&catalogue::OUTCOME_SECONDS),
            polls_per_pin: by_ending(&catalogue::POLLS_PER_PIN),
            notice_delay: recorder.histogram(&catalogue::NOTICE_DELAY_SECONDS, &[]),
            submits: SUBMIT_RESULTS.map(|result| recorder.counter(&catalogue::SUBMITS, &[result])),
            commit_duration: recorder.histogram(&catalogue::COMMIT_SECONDS, &[]),
            commit_changes: recorder.histogram(&catalogue::COMMIT_CHANGES, &[]),
            commit_failures: recorder.counter(&catalogue::COMMIT_FAILURES, &[]),
            http_refused: HttpRefusal::ALL
                .map(|reason| recorder.counter(&catalogue::HTTP_REFUSED, &[reason.as_str()])),
            rendered: recorder.0.handle(),
        }
    }

    /// Returns all values in Prometheus' text format.
    pub fn render(&self) -> String {
        self.rendered.render()
    }

    /// Moves recorded values into their buckets. Must be called about once a second: until then each value takes
    /// memory of its own.
    pub fn upkeep(&self) {
        self.rendered.run_upkeep();
    }
}

/// Records values under the names of the catalogue only.
pub struct Recorder(PrometheusRecorder);

impl Default for Recorder {
    fn default() -> Self {
        let mut builder = PrometheusBuilder::new();
        for Metric { name, buckets, .. } in catalogue::ALL.iter().filter(|metric| !metric.buckets.is_empty())
        {
            let bucketed = builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), buckets);
            builder = bucketed.expect("only a list without buckets is refused");
        }
        let recorder = builder.build_recorder();
        for Metric { name, kind, help, .. } in catalogue::ALL.iter().copied() {
            match kind {
                Kind::Counter => recorder.describe_counter(name.into(), None::<Unit>, help.into()),
                Kind::Gauge => recorder.describe_gauge(name.into(), None::<Unit>, help.into()),
                Kind::Histogram => recorder.describe_histogram(name.into(), None::<Unit>, help.into()),
            }
        }
        Self(recorder)
    }
}

impl Recorder {
    /// `values` are the values of the metric's labels, in the same order.
    pub fn counter(&self, metric: &Metric, values: &[&str]) -> Counter {
        debug_assert_eq!(metric.kind, Kind::Counter, "{}", metric.name);
        self.0.register_counter(&key(metric, values), &METADATA)
    }

    pub fn gauge(&self, metric: &Metric, values: &[&str]) -> Gauge {
        debug_assert_eq!(metric.kind, Kind::Gauge, "{}", metric.name);
        self.0.register_gauge(&key(metric, values), &METADATA)
    }

    fn histogram(&self, metric: &Metric, values: &[&str]) -> Histogram {
        debug_assert_eq!(metric.kind, Kind::Histogram, "{}", metric.name);
        self.0.register_histogram(&key(metric, values), &METADATA)
    }

    /// Returns all values in Prometheus' text format.
    pub fn render(&self) -> String {
        self.0.handle().render()
    }
}

/// Required by the API; the exporter ignores it.
const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

fn key(metric: &Metric, values: &[&str]) -> Key {
    debug_assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
    let labels = metric.labels.iter().zip(values);
    let labels: Vec<_> = labels.map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    Key::from_parts(metric.name, labels)
}

/// Returns the values of the label `status`, in the order of [`status_index`].
pub fn statuses() -> impl Iterator<Item = &'static str> {
    let sms = SmsStatus::ALL.iter().map(|status| status.wire());
    let call = CallStatus::ALL.iter().map(|status| status.wire());
    sms.chain(call).chain(["other", "none"])
}

/// Returns the place of a status in [`statuses`]; every status that is not documented has the same place.
pub fn status_index(status: Option<&Status>) -> usize {
    match status {
        Some(Status::Sms(sms)) => *sms as usize,
        Some(Status::Call(call)) => SmsStatus::ALL.len() + *call as usize,
        Some(Status::Unknown(_) | Status::Other { .. }) => STATUSES - 2,
        None => STATUSES - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_status_has_a_label_of_its_own_and_any_other_is_other() {
        let labels: Vec<_> = statuses().collect();
        assert_eq!(labels.len(), STATUSES);
        for status in SmsStatus::ALL.iter().map(|status| Status::Sms(*status)) {
            assert_eq!(labels[status_index(Some(&status))], status.as_str());
        }
        for status in CallStatus::ALL.iter().map(|status| Status::Call(*status)) {
            assert_eq!(labels[status_index(Some(&status))], status.as_str());
        }
        for made_up in ["MESSAGE_MADE_UP", "other\n\"}"] {
            assert_eq!(labels[status_index(Some(&Status::from_wire(made_up)))], "other");
        }
        assert_eq!(labels[status_index(None)], "none");
    }

    #[test]
    fn every_ending_has_its_own_counters() {
        for (index, ending) in Ending::ALL.into_iter().enumerate() {
            assert_eq!(ending as usize, index);
        }
    }

    #[test]
    fn metric_names_follow_the_conventions_of_prometheus() {
        for Metric { name, kind, help, buckets, .. } in catalogue::ALL {
            assert!(name.starts_with("pinwatch_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert_eq!(!buckets.is_empty(), *kind == Kind::Histogram, "{name}");
            assert!(buckets.is_sorted_by(|a, b| a < b), "{name}");
            assert!(help.ends_with('.'), "{name}");
        }
    }
}
