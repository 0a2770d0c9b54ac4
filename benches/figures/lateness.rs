//! How long after it was due a poll is sent, at 10,000 polls a second that take 20 ms each.

use std::thread;
use std::time::Duration;

use super::daemon::{Home, NEVER_DUE, every};
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
    let (mut rates, mut p99s, mut shares, mut medians) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let api = StandIn::start(ANSWER_AFTER, None, Some(SERVER));
        let home = Home::new(&api.base_url);
        drop({
            let daemon = home.start(Some(MEASURED), &NEVER_DUE);
            submit(&home.socket(), 0..PINS);
            daemon
        });
        // A start spreads them evenly over the interval, as time does.
        let (metrics, often) = (free_address(), every(INTERVAL));
        let listen = format!("http.listen={metrics}");
        let [a, b, c] = often.each_ref().map(String::as_str);
        let _daemon = home.start(Some(MEASURED), &[a, b, c, &listen, "api.concurrency=1000"]);
        thread::sleep(WARM_UP);
        let before = scrape(metrics);
        thread::sleep(LENGTH);
        let after = scrape(metrics);
        let polls = |scraped| sum("pinwatch_polls_total", scraped);
        rates.push((polls(&after) - polls(&before)) / LENGTH.as_secs_f64());
        let lateness = Histogram::between("pinwatch_poll_lateness_seconds", &before, &after);
        medians.push(lateness.quantile(0.5) * 1000.0);
        p99s.push(lateness.quantile(0.99) * 1000.0);
        shares.push(lateness.share_within(0.005) * 100.0);
    }
    report.figure("polls a second, answers take 20 ms", rates, "/s", Asked::AtLeast(9_500.0));
    report.figure("  sent within 5 ms of when they were due", shares, "%", Asked::AtLeast(99.0));
    report.figure("  lateness, 99th percentile (even within its bucket)", p99s, "ms", Asked::AtMost(5.0));
    report.figure("  lateness, median (even within its bucket)", medians, "ms", Asked::Nothing);
}
