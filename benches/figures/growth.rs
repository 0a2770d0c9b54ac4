//! Measures starts, lateness, acks, whole lives and polls with 10,000, 100,000 and 1,000,000 PINs in flight. The store of each
//! size is filled once, and each run begins with a copy of it.

use std::slice;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::daemon::{Home, NEVER_DUE, NOWHERE, every};
use super::lateness;
use super::lives;
use super::measure::Window;
use super::nginx::{By, Nginx};
use super::polls;
use super::process::MEASURED;
use super::report::{Asked, Report};
use super::stand_in::StandIn;
use super::submit::submit;
use super::submits;

/// The number of PINs, the same in words, and the interval at which 10,000 of them are due a second.
const SIZES: [(u64, &str, &str); 3] =
    [(10_000, "10,000", "1s"), (100_000, "100,000", "10s"), (1_000_000, "1,000,000", "100s")];

/// Further PINs, submitted at once: so many that SQLite moves the write-ahead log into the database meanwhile.
const MORE: u64 = 200_000;

/// More than enough time for a daemon to follow SIGHUP.
const RELOAD: Duration = Duration::from_secs(1);

/// What was measured with one number of PINs.
struct Among {
    ready: f64,
    polls: Window,
    late: lateness::Late,
    acks: f64,
    commits_a_submit: f64,
    lives: lives::Lived,
}

pub fn measure(report: &mut Report, runs: usize) {
    let nginx = Nginx::start();
    let stores = SIZES.map(|(pins, ..)| filled(pins));
    let (mut all, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        // Sizes are measured directly after each other, because the machine's speed changes from minute to minute.
        let polls = stores.each_ref().map(|store| polls_of(&nginx, store));
        plain.push(polls::plain(&nginx, By::Plain).per_second);
        let sizes = SIZES.iter().zip(&stores).zip(polls);
        let sizes = sizes.map(|(((pins, _, interval), store), polls)| among(store, *pins, interval, polls));
        all.push(sizes.collect::<Vec<_>>());
    }
    for (n, (_, pins, _)) in SIZES.iter().enumerate() {
        let of = |figure: fn(&Among) -> f64| all.iter().map(|run| figure(&run[n])).collect::<Vec<_>>();
        report.figure(&format!("READY with {pins} PINs"), of(|a| a.ready), "s", Asked::AtMost(2.0));
        let rate = all.iter().zip(&plain).map(|(run, plain)| run[n].polls.per_second / plain);
        report.figure("  polls a second, to the plain loop's", rate.collect(), "", Asked::AtLeast(0.85));
        if n > 0 {
            let cpu = all.iter().map(|run| run[n].polls.cpu_each / run[0].polls.cpu_each);
            report.figure("    CPU of a poll, to that among 10,000", cpu.collect(), "", Asked::AtMost(1.3));
        }
        report.figure("  lateness, 99th percentile", of(|a| a.late.p99 * 1000.0), "ms", Asked::AtMost(5.0));
        report.figure("    polls a second", of(|a| a.late.per_second), "/s", Asked::AtLeast(9_500.0));
        report.figure("  durable acks a second, pipelined", of(|a| a.acks), "/s", Asked::AtLeast(50_000.0));
        let commits = of(|a| a.commits_a_submit);
        report.figure("    commits a submit of a lone client", commits, "", Asked::AtMost(1.05));
        report.figure("  whole lives a second", of(|a| a.lives.per_second), "/s", Asked::AtLeast(12_000.0));
        let p99 = of(|a| a.lives.commit_p99 * 1000.0);
        report.figure("    commit, 99th percentile", p99, "ms", Asked::AtMost(50.0));
        let cpu = of(|a| a.lives.cpu_per_1000);
        report.figure("    CPU seconds per 1,000 polls", cpu, "s", Asked::AtMost(0.03));
    }
}

/// Returns the folder of a daemon that accepted this many PINs and was stopped.
fn filled(pins: u64) -> Home {
    let home = Home::new(NOWHERE);
    let mut daemon = home.start(None, &NEVER_DUE);
    submit(&home.socket(), 0..pins);
    daemon.process.end(Signal::TERM);
    home
}

/// Measures how soon the daemon is ready, and how fast it polls when all PINs are due at once.
fn polls_of(nginx: &Nginx, store: &Home) -> (f64, Window) {
    let home = store.copy(&nginx.base_url());
    let often = every("100ms");
    let daemon = home.start(Some(MEASURED), &often.each_ref().map(String::as_str));
    (daemon.started_in.as_secs_f64(), polls::saturated(nginx, &daemon))
}

fn among(store: &Home, pins: u64, interval: &str, (ready, polls): (f64, Window)) -> Among {
    let late = lateness::at(store, interval);
    let (acks, commits_a_submit, lives) = lives_among(store, pins);
    Among { ready, polls, late, acks, commits_a_submit, lives }
}

/// Measures acks and lives of other PINs than those that wait.
fn lives_among(store: &Home, pins: u64) -> (f64, f64, lives::Lived) {
    let api = StandIn::start(Duration::ZERO, Some(lives::POLLS_A_LIFE), None);
    let home = store.copy(&api.base_url);
    let Grown { acks, commits_a_submit, lives, .. } = grown(&home, pins);
    (acks, commits_a_submit, lives)
}

/// What was measured with a filled store.
pub struct Grown {
    pub ready: f64,
    pub acks: f64,
    pub commits_a_submit: f64,
    pub lives: lives::Lived,
}

/// Measures acks and lives of PINs with numbers from `pins` on, with whatever is in the store.
pub fn grown(home: &Home, pins: u64) -> Grown {
    home.configure(&NEVER_DUE);
    let mut nodes = [home.start_observed(&[])];
    let [(daemon, metrics)] = &nodes;
    let acks = MORE as f64 / submit(&home.socket(), pins..pins + MORE).as_secs_f64();
    let commits_a_submit = submits::lone(home, *metrics, pins + MORE).commits;
    // PINs that wait already keep their interval; new ones are polled soon.
    let often = every(lives::INTERVAL);
    home.configure(&often.each_ref().map(String::as_str));
    daemon.process.send(Signal::HUP);
    thread::sleep(RELOAD);
    let lives = lives::lived(&nodes, lives::Lives::new(slice::from_ref(home), pins + 2 * MORE));
    let [(daemon, _)] = &mut nodes;
    daemon.process.end(Signal::TERM);
    Grown { ready: daemon.started_in.as_secs_f64(), acks, commits_a_submit, lives }
}
