//! Measures how late polls are sent, at 10,000 polls a second that take 20 ms each.

use std::thread;
use std::time::Duration;

use super::daemon::{Home, NEVER_DUE, NOWHERE, every};
use super::metrics::{Histogram, scrape, sum};
use super::nginx::free_address;
use super::process::{MEASURED, SERVER};
use super::report::{Asked, Report};
use super::stand_in::StandIn;
use super::submit::submit;

const PINS: u64 = 100_000;
const INTERVAL: &str = "10s";
const ANSWER_AFTER: Duration = Duration::from_millis(20);
const WARM_UP: Duration = Duration::from_secs(3);
const LENGTH: Duration = Duration::from_secs(8);

pub fn measure(report: &mut Report, runs: usize) {
    let store = Home::new(NOWHERE);
    drop({
        let daemon = store.start(Some(MEASURED), &NEVER_DUE);
        submit(&store.socket(), 0..PINS);
        daemon
    });
    let runs: Vec<Late> = (0..runs).map(|_| at(&store, INTERVAL)).collect();
    let of = |figure: fn(&Late) -> f64| runs.iter().map(figure).collect::<Vec<_>>();
    report.figure("polls a second, answers take 20 ms", of(|l| l.per_second), "/s", Asked::AtLeast(9_500.0));
    let within = of(|l| l.within_5_ms * 100.0);
    report.figure("  sent within 5 ms of when they were due", within, "%", Asked::AtLeast(99.0));
    let p99 = of(|l| l.p99 * 1000.0);
    report.figure("  lateness, 99th percentile (even within its bucket)", p99, "ms", Asked::AtMost(5.0));
    let median = of(|l| l.median * 1000.0);
    report.figure("  lateness, median (even within its bucket)", median, "ms", Asked::Nothing);
}

/// How late polls were, in seconds.
pub struct Late {
    pub per_second: f64,
    pub p99: f64,
    pub median: f64,
    /// The share of all polls, from 0 to 1.
    pub within_5_ms: f64,
}

/// Polls the PINs of a store at this interval and returns how late the polls were.
pub fn at(store: &Home, interval: &str) -> Late {
    let api = StandIn::start(ANSWER_AFTER, None, Some(SERVER));
    let home = store.copy(&api.base_url);
    // A start spreads the polls evenly over the interval, as they would be after some time.
    let (metrics, often) = (free_address(), every(interval));
    let listen = format!("http.listen={metrics}");
    let [a, b, c] = often.each_ref().map(String::as_str);
    let _daemon = home.start(Some(MEASURED), &[a, b, c, &listen, "api.concurrency=1000"]);
    thread::sleep(WARM_UP);
    let before = scrape(metrics);
    thread::sleep(LENGTH);
    let after = scrape(metrics);
    let polls = |scraped| sum("pinwatch_polls_total", scraped);
    let lateness = Histogram::between("pinwatch_poll_lateness_seconds", &before, &after);
    Late {
        per_second: (polls(&after) - polls(&before)) / LENGTH.as_secs_f64(),
        p99: lateness.quantile(0.99),
        median: lateness.quantile(0.5),
        within_5_ms: lateness.share_within(0.005),
    }
}
