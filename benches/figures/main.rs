//! `cargo bench`: measures every required figure on this machine in one run, and prints it beside its limit.
//!
//! Starts the release binary, nginx, PostgreSQL and a plain reqwest loop, all of them in temporary folders and on loopback; only the
//! group `schedule` starts nothing, because it simulates. If there are two cores, the daemon and the loop get core 0 and nginx core 1. Prints a table with the median, lowest and highest
//! value, and writes it as JSON. Its exit status does not depend on the limits, because a shared machine is noisy.

mod clients;
mod cluster;
mod daemon;
mod database_work;
mod growth;
mod http;
mod kept;
mod lateness;
mod lives;
mod measure;
mod metrics;
mod million;
mod nginx;
#[path = "../../tests/support/not_run.rs"]
mod not_run;
mod page;
mod plain_loop;
mod polls;
#[path = "../../tests/support/postgres.rs"]
#[allow(dead_code, reason = "tests use the rest of it")]
mod postgres;
mod process;
mod report;
mod schedule;
mod stand_in;
mod submit;
mod submits;
mod takeover;

use std::path::PathBuf;
use std::time::Instant;

use report::Report;

/// A group of figures: its name, and the function that measures each figure as often as its argument says.
type Group = (&'static str, fn(&mut Report, usize));

/// All groups, in the order of the issue that asks for them.
const GROUPS: [Group; 14] = [
    ("polls", polls::measure),
    ("tls", polls::measure_tls),
    ("lives", lives::measure),
    ("references", lives::measure_referring),
    ("submits", submits::measure),
    ("million", million::measure),
    ("lateness", lateness::measure),
    ("growth", growth::measure),
    ("kept", kept::measure),
    ("clients", clients::measure),
    ("http", http::measure),
    ("page", page::measure),
    ("cluster", cluster::measure),
    (schedule::NAME, schedule::measure),
];

const USAGE: &str = "cargo bench -- [--runs N] [--short] [--json FILE] [--daemon FILE] [GROUP…]\n\n\
    Runs all groups, or those named. --runs is how often each figure is measured (3); --short is one run.\n\
    The JSON goes to target/figures.json unless --json says otherwise, and the table as Markdown beside it.\n\
    --daemon measures another binary than this tree's release, for example one from before a change.";

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut runs, mut json, mut daemon, mut groups) = (3, None, None, Vec::new());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // The benchmark starts itself again as a separate process.
            plain_loop::MODE | stand_in::MODE => {
                let mut next = || arguments.next().expect("two arguments");
                let run = if argument == plain_loop::MODE { plain_loop::run } else { stand_in::run };
                return run(&next(), &next());
            }
            http::MODE => return http::run_bare(),
            "--runs" => runs = arguments.next().and_then(|runs| runs.parse().ok()).unwrap_or_else(|| usage()),
            "--short" => runs = 1,
            "--daemon" => daemon = Some(arguments.next().map(PathBuf::from).unwrap_or_else(|| usage())),
            "--json" => json = Some(arguments.next().map(PathBuf::from).unwrap_or_else(|| usage())),
            name if GROUPS.iter().any(|(group, _)| *group == name) => groups.push(name.to_owned()),
            _ => usage(),
        }
    }
    let json =
        json.unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/figures.json")));
    let is_asked_for = |name: &str| groups.is_empty() || groups.iter().any(|group| group == name);
    if GROUPS.iter().any(|(name, _)| is_asked_for(name) && *name != schedule::NAME) {
        daemon::choose(daemon);
    }
    let begun = Instant::now();
    let mut report = Report::begin();
    for (name, measure) in GROUPS {
        if is_asked_for(name) {
            report.group(name);
            measure(&mut report, runs.max(1));
        }
    }
    report.end(&json, runs, begun.elapsed());
}

fn usage() -> ! {
    let names: Vec<_> = GROUPS.iter().map(|(name, _)| *name).collect();
    eprintln!("{USAGE}\nGroups: {}", names.join(", "));
    std::process::exit(2);
}
