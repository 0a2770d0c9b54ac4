//! A binary without the feature `fault-points`, such as a release, has no fault points.

use crate::support::{Place, Simulated, all_delivered, sim_pins, submit, until};

#[test]
fn a_binary_without_the_feature_has_no_trace_of_fault_points() {
    let binary = std::fs::read(env!("CARGO_BIN_EXE_pinwatch")).expect("the binary can be read");
    for trace in ["PINWATCH_FAULT", "half-a-line", "accepted-and-not-acked"] {
        let found = memchr::memmem::find(&binary, trace.as_bytes()).is_some();
        assert!(!found, "{trace:?} is in the binary");
    }
}

#[test]
fn a_binary_without_the_feature_ignores_pinwatch_fault() {
    let api = Simulated::start();
    let place = Place::in_folders(&api.base_url());
    let mut command = place.command();
    command.env("PINWATCH_FAULT", "half-a-line:1");
    let daemon = place.start_by(command);
    let mut client = daemon.client();
    submit(&mut client, &sim_pins("delivered", 5));
    until("they have their outcome", || (client.stats()["inFlight"] == 0).then_some(()));
    all_delivered(&mut client);
    drop(client);
    daemon.terminate();
}
