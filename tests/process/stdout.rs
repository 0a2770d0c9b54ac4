//! The sink `stdout`, and the results of `pinwatch simulate`'s: standard output of the real binary.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Child, Daemon, Place, Simulated, json, program, run_to_end, until, until_true};

/// A daemon with the sink `stdout`, and what it writes there; its log goes to the place's file.
fn start(place: &Place) -> (Daemon, BufReader<ChildStdout>) {
    let log = File::options().create(true).append(true).open(place.path("stderr")).unwrap();
    let command = place.clone().set("sink", "[{type=\"stdout\",from=\"oldest\"}]").command();
    let mut daemon = place.start_with(command, Stdio::piped(), log);
    let out = BufReader::new(daemon.stdout());
    (daemon, out)
}

fn line(out: &mut impl BufRead) -> String {
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

fn record(out: &mut impl BufRead) -> Value {
    json(&line(out))
}

#[test]
fn outcomes_are_lines_on_standard_output_and_the_log_is_not_among_them() {
    let api = Simulated::start();
    let place = Place::new(&api.base_url());
    let (daemon, mut out) = start(&place);
    let mut client = daemon.client();
    for pin in ["sim-delivered-1", "sim-failed-2"] {
        client.submit(pin);
        assert_eq!(record(&mut out)["pinId"], pin);
    }
    daemon.terminate();
}

#[test]
fn a_closed_pipe_stops_only_its_sink_and_the_outcomes_follow_after_the_next_start() {
    let api = Simulated::start();
    let place = Place::new(&api.base_url());
    let (first, out) = start(&place);
    drop(out);
    let mut client = first.client();
    client.submit("sim-delivered-1");
    until_true("the sink is closed", || client.stats()["sinks"]["stdout"]["closed"] == true);
    assert_eq!(client.submit("sim-delivered-2"), "accepted");
    assert_eq!(client.outcome("sim-delivered-2")["outcome"], "final");
    let said = place.stderr();
    assert!(said.contains("standard output") && said.contains("stdout"), "{said}");
    first.terminate();

    let (second, mut out) = start(&place);
    for pin in ["sim-delivered-1", "sim-delivered-2"] {
        assert_eq!(record(&mut out)["pinId"], pin);
    }
    second.terminate();
}

#[test]
fn the_simulator_prints_its_address_answers_and_ends_on_a_signal() {
    let mut command = program();
    command.args(["simulate", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut simulator = Child::spawn(command);
    let base = line(&mut BufReader::new(simulator.stdout()));
    let place = Place::new(&base);
    let daemon = place.start();
    daemon.client().submit("sim-delivered-1");
    daemon.all_records(1);
    daemon.terminate();
    simulator.signal(Signal::TERM);
    let status = until("its end", || simulator.ended());
    assert!(status.success(), "{status}");
}

#[test]
fn a_simulator_whose_port_is_in_use_reports_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = program();
    command.args(["simulate", "--listen", &address]);
    let ended = run_to_end(command);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains(&address), "{}", ended.stderr);
}
