//! Measures polls per second and the cost of a poll, compared with a plain reqwest loop at the same nginx in the same run.

use std::thread;
use std::time::Duration;

use super::daemon::{Daemon, Home, every};
use super::measure::{Window, window};
use super::nginx::{By, Nginx};
use super::plain_loop;
use super::process::{MEASURED, Process, pinned};
use super::report::{Asked, Report};
use super::submit::submit;

const PINS: u64 = 100_000;
const WARM_UP: Duration = Duration::from_secs(2);
const LENGTH: Duration = Duration::from_secs(4);

pub fn measure(report: &mut Report, runs: usize) {
    let both = both(runs, By::Plain);
    let of = |figure: fn(&(Window, Window)) -> f64| both.iter().map(figure).collect::<Vec<_>>();
    report.figure("polls a second, 100,000 PINs", of(|(ours, _)| ours.per_second), "/s", Asked::Nothing);
    report.figure("  the plain loop's", of(|(_, plain)| plain.per_second), "/s", Asked::Nothing);
    let ratio = of(|(ours, plain)| ours.per_second / plain.per_second);
    report.figure("  ratio", ratio, "", Asked::AtLeast(0.85));
    report.figure("CPU of a poll", of(|(ours, _)| ours.cpu_each), "µs", Asked::Nothing);
    report.figure("  the plain loop's", of(|(_, plain)| plain.cpu_each), "µs", Asked::Nothing);
    report.figure("  ratio", of(|(ours, plain)| ours.cpu_each / plain.cpu_each), "", Asked::AtMost(1.2));
}

/// The same over TLS, as the real API is polled.
pub fn measure_tls(report: &mut Report, runs: usize) {
    for (by, words) in [(By::Tls, "TLS"), (By::TlsAndHttp2, "TLS and HTTP/2")] {
        let both = both(runs, by);
        let of = |figure: fn(&(Window, Window)) -> f64| both.iter().map(figure).collect::<Vec<_>>();
        let what = format!("polls a second by {words}");
        report.figure(&what, of(|(ours, _)| ours.per_second), "/s", Asked::Nothing);
        let ratio = of(|(ours, plain)| ours.per_second / plain.per_second);
        report.figure("  to the plain loop's", ratio, "", Asked::AtLeast(0.85));
        report.figure("  CPU of a poll", of(|(ours, _)| ours.cpu_each), "µs", Asked::Nothing);
        let ratio = of(|(ours, plain)| ours.cpu_each / plain.cpu_each);
        report.figure("    to the plain loop's", ratio, "", Asked::AtMost(1.2));
    }
}

/// Measures the daemon, and the plain loop after each run of the daemon.
fn both(runs: usize, by: By) -> Vec<(Window, Window)> {
    let run = |_| {
        let nginx = Nginx::start();
        (daemon(&nginx, by), plain(&nginx, by))
    };
    (0..runs).map(run).collect()
}

/// Measures a daemon whose PINs are all due far sooner than it can poll them.
fn daemon(nginx: &Nginx, by: By) -> Window {
    let home = Home::new(&nginx.url(by));
    let authority = format!("api.ca_file={}", nginx.authority().display());
    let often = every("100ms");
    let often = often.each_ref().map(String::as_str);
    let daemon = home.start(Some(MEASURED), &[&often[..], &[&authority]].concat());
    submit(&home.socket(), 0..PINS);
    saturated(nginx, &daemon)
}

/// Measures a daemon that always has due PINs.
pub fn saturated(nginx: &Nginx, daemon: &Daemon) -> Window {
    thread::sleep(WARM_UP);
    window(LENGTH, &daemon.process, || nginx.requests())
}

/// Measures the plain loop.
pub fn plain(nginx: &Nginx, by: By) -> Window {
    let this = std::env::current_exe().expect("this program");
    let mut command = pinned(Some(MEASURED), &this);
    command.args([plain_loop::MODE, &nginx.url(by)]).arg(nginx.authority());
    let process = Process::start(command);
    thread::sleep(WARM_UP);
    window(LENGTH, &process, || nginx.requests())
}
