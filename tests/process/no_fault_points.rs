//! What is built without the feature `fault-points`, as a release is, can't be killed from within.

use crate::harness::{Api, Home, all_delivered, pins, submit};

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
    let api = Api::start();
    let home = Home::new(&api.base_url());
    let mut command = home.command();
    command.env("PINWATCH_FAULT", "half-a-line:1");
    let daemon = crate::harness::Daemon::spawn(command, &home.socket(), &home.log()).ready();
    let mut client = daemon.client();
    submit(&mut client, &pins("delivered", 5));
    crate::harness::until("they have their outcome", || (client.stats()["inFlight"] == 0).then_some(()));
    all_delivered(&mut client);
    drop(client);
    daemon.stop();
}
