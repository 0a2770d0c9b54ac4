//! The sink `stdout`, and the results of `pinwatch simulate`'s: standard output of the real binary.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::support::{Place, Simulated, program, until, until_true};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A process whose standard output is read by the test; killed when it is dropped.
struct Piped {
    process: Child,
    out: Option<BufReader<std::process::ChildStdout>>,
}

impl Piped {
    fn spawn(mut command: Command) -> Self {
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let out = process.stdout.take().map(BufReader::new);
        Self { process, out }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.as_mut().unwrap().read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    #[track_caller]
    fn terminate(mut self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        let status = until("its end", || self.process.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A daemon with the sink `stdout`; its log goes to the place's file.
fn daemon(place: &Place) -> Piped {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(place.path("stderr")).unwrap();
    let mut command = place.command();
    command.args(["--set", "sink=[{type=\"stdout\",from=\"oldest\"}]"]).stderr(log);
    let daemon = Piped::spawn(command);
    until_true("the daemon takes connections", || {
        std::os::unix::net::UnixStream::connect(place.socket()).is_ok()
    });
    daemon
}

#[test]
fn outcomes_are_lines_on_standard_output_and_the_log_is_not_among_them() {
    let api = Simulated::start();
    let place = Place::new(&api.base_url());
    let mut daemon = daemon(&place);
    let mut client = crate::support::Client::connect(&place.socket());
    for pin in ["sim-delivered-1", "sim-failed-2"] {
        client.submit(pin);
        let record: Value = serde_json::from_str(&daemon.line()).unwrap();
        assert_eq!(record["pinId"], pin);
    }
    daemon.terminate();
}

#[test]
fn a_closed_pipe_stops_that_sink_and_not_the_daemon_and_its_outcomes_come_after_the_next_start() {
    let api = Simulated::start();
    let place = Place::new(&api.base_url());
    let mut first = daemon(&place);
    first.out = None;
    let mut client = crate::support::Client::connect(&place.socket());
    client.submit("sim-delivered-1");
    until_true("the sink is closed", || client.stats()["sinks"]["stdout"]["closed"] == true);
    assert_eq!(client.submit("sim-delivered-2"), "accepted");
    assert_eq!(client.outcome("sim-delivered-2")["outcome"], "final");
    let said = place.stderr();
    assert!(said.contains("standard output") && said.contains("stdout"), "{said}");
    first.terminate();

    let mut second = daemon(&place);
    for pin in ["sim-delivered-1", "sim-delivered-2"] {
        let record: Value = serde_json::from_str(&second.line()).unwrap();
        assert_eq!(record["pinId"], pin);
    }
    second.terminate();
}

#[test]
fn the_simulator_tells_its_address_answers_and_ends_on_a_signal() {
    let mut command = program();
    command.args(["simulate", "--listen", "127.0.0.1:0"]).stderr(Stdio::null());
    let mut simulator = Piped::spawn(command);
    let base = simulator.line();
    let place = Place::new(&base);
    let daemon = place.start();
    daemon.client().submit("sim-delivered-1");
    daemon.all_records(1);
    daemon.terminate();
    simulator.terminate();
}

#[test]
fn a_simulator_whose_port_is_taken_says_so() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = program();
    command.args(["simulate", "--listen", &address]);
    let ended = crate::support::run_to_end(command);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains(&address), "{}", ended.stderr);
}
