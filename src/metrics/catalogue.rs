//! The catalogue of all metrics: name, type, labels and meaning of each.
//!
//! Guarantees that every served metric is listed here. `docs/metrics.md` describes the same metrics for people, and a
//! test compares the two. Pure data. Must not know how a value is obtained.

/// A metric's type in Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// Returns its name in Prometheus' text format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
    /// The upper bounds of a histogram's buckets, in the metric's unit.
    pub buckets: &'static [f64],
}

/// Declares the metrics and the list of all of them.
macro_rules! metrics {
    ($($name:ident = $kind:ident $wire:literal [$($label:literal),*] $help:literal $(in $buckets:ident)?;)*) => {
        $(
            #[doc = $help]
            pub const $name: Metric = Metric {
                name: $wire,
                kind: Kind::$kind,
                labels: &[$($label),*],
                help: $help,
                buckets: metrics!(@buckets $($buckets)?),
            };
        )*

        /// All metrics, in the order of `docs/metrics.md`.
        pub const ALL: &[Metric] = &[$($name),*];
    };
    (@buckets) => { &[] };
    (@buckets $buckets:ident) => { $buckets };
}

/// Durations of answers and commits, in seconds: from a millisecond to the longest time-out.
const SHORT: &[f64] = &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Lateness of polls, in seconds: a long pause delays polls by minutes.
const LATENESS: &[f64] =
    &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];

/// Lifetimes of PINs, in seconds: from a second to two days, the default deadline.
pub const LIFETIMES: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 10_800.0, 21_600.0, 43_200.0,
    86_400.0, 172_800.0,
];

/// How long a PIN had been final when it was noticed: from a tenth of a second to half of the default `max_interval`.
const NOTICE_DELAYS: &[f64] =
    &[0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

/// Polls of a PIN: with the defaults, one that never becomes final needs 67.
const POLLS_OF_A_PIN: &[f64] =
    &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0, 30.0, 50.0, 100.0, 200.0, 500.0];

/// Changes in one transaction; about 8192 is the most.
const BATCHES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 8192.0];

metrics! {
    SUBMITS = Counter "pinwatch_submits_total" ["result"]
        "PINs submitted, by result.";
    IN_FLIGHT = Gauge "pinwatch_pins_in_flight" []
        "PINs that wait for their outcome.";
    IN_FLIGHT_BY_AGE = Gauge "pinwatch_pins_in_flight_by_age" ["age"]
        "The same PINs, by their age.";
    IN_FLIGHT_MAX = Gauge "pinwatch_pins_in_flight_max" []
        "PINs that may be in flight (intake.max_in_flight).";
    CONNECTIONS = Gauge "pinwatch_connections" []
        "Clients connected to the local socket.";
    CONNECTIONS_MAX = Gauge "pinwatch_connections_max" []
        "Clients that may be connected (intake.max_connections).";

    POLLS = Counter "pinwatch_polls_total" ["class"]
        "Polls answered, by the meaning of the answer.";
    POLLS_BY_AGE = Counter "pinwatch_polls_by_age_total" ["age"]
        "Polls answered, by the PIN's age when they were sent.";
    POLLING = Gauge "pinwatch_polls_in_flight" []
        "Polls that wait for their answer.";
    POLLING_MAX = Gauge "pinwatch_polls_in_flight_max" []
        "Polls that may run at once (api.concurrency).";
    DUE = Gauge "pinwatch_pins_due" []
        "PINs whose next poll is due but not yet sent.";
    LATE = Gauge "pinwatch_polls_late" []
        "1 while polls have been late for a minute or longer.";
    LATENESS_SECONDS = Histogram "pinwatch_poll_lateness_seconds" []
        "Time from the moment a poll was due to the moment it was sent." in LATENESS;
    POLL_SECONDS = Histogram "pinwatch_poll_duration_seconds" []
        "Time from sending a poll until its answer is interpreted; includes failed polls." in SHORT;
    BRAKE = Gauge "pinwatch_brake" ["reason"]
        "1 while all polling is paused for this reason, except for probes.";
    RATE = Gauge "pinwatch_poll_rate_limit" []
        "The polls per second that are allowed now; 0 means no limit.";

    OUTCOMES = Counter "pinwatch_outcomes_total" ["outcome", "status"]
        "PINs that ended, by the kind of outcome and by the status that decided.";
    OUTCOME_SECONDS = Histogram "pinwatch_submit_to_outcome_seconds" ["outcome"]
        "Time from a PIN's submission to its end." in LIFETIMES;
    POLLS_PER_PIN = Histogram "pinwatch_polls_per_pin" ["outcome"]
        "Polls that a PIN needed until its end." in POLLS_OF_A_PIN;
    NOTICE_DELAY_SECONDS = Histogram "pinwatch_final_notice_delay_seconds" []
        "Estimated time from the moment a PIN became final to the poll that reported it." in NOTICE_DELAYS;
    NEVER_FINAL = Gauge "pinwatch_never_final_ratio" []
        "Share of PINs that reached their deadline, among those and the final ones, since the start; 0 before the first.";
    UNWRITTEN = Gauge "pinwatch_outcomes_unwritten" []
        "Outcomes that are known but not yet in the store.";

    STORE_FAILING = Gauge "pinwatch_store_failing" []
        "1 while the store can't be written.";
    COMMIT_SECONDS = Histogram "pinwatch_store_commit_duration_seconds" []
        "How long a transaction took until it was durable." in SHORT;
    COMMIT_CHANGES = Histogram "pinwatch_store_commit_changes" []
        "Changes that were committed together." in BATCHES;
    COMMIT_FAILURES = Counter "pinwatch_store_commit_failures_total" []
        "Transactions that failed; their changes are retried or refused.";

    CLUSTER_SLOTS = Gauge "pinwatch_cluster_slots_held" []
        "How many of the 256 slots this node holds; all of them if it does not share its store.";
    CLUSTER_NODES = Gauge "pinwatch_cluster_nodes" []
        "Nodes with a valid lease when this node last looked, including itself.";
    CLUSTER_LOST = Counter "pinwatch_cluster_leases_lost_total" []
        "How many times this node lost its lease.";

    SINK_BACKLOG = Gauge "pinwatch_sink_backlog" ["sink"]
        "Outcomes after the sink's cursor, which were not sent to it yet.";
    SINK_OLDEST = Gauge "pinwatch_sink_oldest_undelivered_age_seconds" ["sink"]
        "Age of the oldest outcome that the sink has not received; 0 if there is none.";
    SINK_TROUBLE = Gauge "pinwatch_sink_trouble" ["sink"]
        "1 while the sink accepts no outcomes.";
    SINK_OPEN = Gauge "pinwatch_sink_circuit_open" ["sink"]
        "1 while the sink's circuit breaker is open: only probes are sent.";
    SINK_NEXT = Gauge "pinwatch_sink_next_attempt_seconds" ["sink"]
        "Time until the next probe or retry; 0 if none is scheduled.";
    SINK_RETRYING = Gauge "pinwatch_sink_retrying" ["sink"]
        "Outcomes before the sink's cursor that are being retried.";
    DEAD_LETTERS = Gauge "pinwatch_dead_letters" ["sink"]
        "Outcomes that the sink will not get unless they are replayed.";

    HTTP_REFUSED = Counter "pinwatch_http_refused_total" ["reason"]
        "Requests to the API without a valid token, or with one of another scope.";

    LOG_LOST = Counter "pinwatch_log_lines_lost_total" []
        "Lines of the log that were dropped, because nobody read them or they could not be written.";
    PART_UP = Gauge "pinwatch_part_up" ["part"]
        "1 if this part of the daemon answered this scrape; without it, its gauges are missing.";
    BUILD_INFO = Gauge "pinwatch_build_info" ["version", "commit", "date", "target", "features", "sqlite"]
        "1, with the version that runs.";
    START_TIME = Gauge "process_start_time_seconds" []
        "When the daemon started, in seconds since the Unix epoch.";
}
