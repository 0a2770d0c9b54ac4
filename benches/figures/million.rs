//! Measures a million waiting PINs: memory, the cost of waiting, a restart, and the polls after it. All use the same store.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::daemon::{Daemon, Home, NEVER_DUE, every};
use super::measure::window;
use super::nginx::Nginx;
use super::process::MEASURED;
use super::report::{Asked, Report};
use super::submit::submit;

const SOME: u64 = 100_000;
const MANY: u64 = 1_000_000;

/// By then the daemon has freed the memory that only the submits needed.
const SETTLE: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(10);

/// How many of a million PINs are due each second after a restart with intervals of 100 s.
const EVEN: f64 = 10_000.0;

pub fn measure(report: &mut Report, runs: usize) {
    let nginx = Nginx::start();
    let home = Home::new(&nginx.base_url());
    let daemon = memory(report, &home);
    idle(report, &daemon);
    restart(report, &home, &nginx, daemon, runs);
}

fn memory(report: &mut Report, home: &Home) -> Daemon {
    let daemon = home.start(Some(MEASURED), &NEVER_DUE);
    thread::sleep(SETTLE);
    let none = daemon.process.resident();
    let first = submit(&home.socket(), 0..SOME);
    thread::sleep(SETTLE);
    let some = daemon.process.resident();
    submit(&home.socket(), SOME..MANY - SOME);
    let last = submit(&home.socket(), MANY - SOME..MANY);
    thread::sleep(SETTLE);
    let slope = (daemon.process.resident() - some) / (MANY - SOME) as f64;
    report.figure("resident at rest with no PIN", vec![none / 1e6], "MB", Asked::AtMost(30.0));
    report.figure("resident with 100,000 PINs", vec![some / 1e6], "MB", Asked::Nothing);
    report.figure(
        "resident with 1,000,000 PINs",
        vec![daemon.process.resident() / 1e6],
        "MB",
        Asked::Nothing,
    );
    report.figure("  bytes a PIN between the two", vec![slope], "bytes", Asked::AtMost(200.0));
    let slower = last.as_secs_f64() / first.as_secs_f64();
    report.figure("submit of the last 100,000, to that of the first", vec![slower], "", Asked::Nothing);
    daemon
}

fn idle(report: &mut Report, daemon: &Daemon) {
    let written = daemon.process.written();
    let idle = window(IDLE, &daemon.process, || 0.0);
    report.figure(
        "1,000,000 waiting: share of a core",
        vec![idle.cpu_share * 100.0],
        "%",
        Asked::AtMost(0.5),
    );
    let written = daemon.process.written() - written;
    report.figure("  written to the disk", vec![written], "bytes", Asked::AtMost(0.0));
}

fn restart(report: &mut Report, home: &Home, nginx: &Nginx, daemon: Daemon, runs: usize) {
    let slow = every("100s");
    let (mut stopped, mut ready, mut storms, mut resident) = (daemon, Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        stopped.process.end(Signal::TERM);
        stopped = home.start(Some(MEASURED), &slow.each_ref().map(String::as_str));
        ready.push(stopped.started_in.as_secs_f64());
        storms.push(busiest_second(nginx) / EVEN);
        resident.push(stopped.process.resident() / MANY as f64);
    }
    stopped.process.end(Signal::KILL);
    let killed = home.start(Some(MEASURED), &NEVER_DUE);
    report.figure("READY with 1,000,000 PINs", ready, "s", Asked::AtMost(2.0));
    let after_kill = vec![killed.started_in.as_secs_f64()];
    report.figure("  after kill -9", after_kill, "s", Asked::AtMost(2.0));
    report.figure("busiest second after it, to an even spread", storms, "", Asked::AtMost(1.2));
    report.figure("resident after it, by PIN", resident, "bytes", Asked::Nothing);
}

/// Returns the most polls in one of the first 8 seconds after a start.
fn busiest_second(nginx: &Nginx) -> f64 {
    let mut busiest = 0.0;
    let mut before = (nginx.requests(), Instant::now());
    for _ in 0..8 {
        thread::sleep(Duration::from_secs(1));
        let now = (nginx.requests(), Instant::now());
        busiest = f64::max(busiest, (now.0 - before.0) / (now.1 - before.1).as_secs_f64());
        before = now;
    }
    busiest
}
