//! What the schedule learned (`schedule.adapt`) outlives the daemon.

use crate::support::{Daemon, Place, Simulated, until_true};

fn learned(daemon: &Daemon, member: &str) -> serde_json::Value {
    daemon.client().stats()["learned"][member].clone()
}

#[test]
fn a_learned_schedule_comes_into_force_and_goes_on_after_a_restart() {
    let api = Simulated::start();
    let place = Place::new(&api.base_url()).set("schedule.max_interval", "2s").set("schedule.adapt", "fewer");
    let daemon = place.start();
    let pins: Vec<String> = (0..300).map(|n| format!("sim-500ms-{n}")).collect();
    daemon.client().submit_all(&pins);
    until_true("it is in force", || learned(&daemon, "inForce") == true);
    until_true("all have ended", || learned(&daemon, "endings") == 300);

    let daemon = daemon.terminate().start();
    assert_eq!(learned(&daemon, "endings"), 300);
    daemon.client().submit("sim-500ms-more");
    until_true("it is in force again", || learned(&daemon, "inForce") == true);
    assert_eq!(daemon.client().stats()["neverFinal"], 0.0);
}

#[test]
fn without_learning_nothing_is_told_of_it() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    daemon.client().submit("sim-delivered-1");
    until_true("it has ended", || daemon.client().stats()["pollsPerPin"].is_number());
    assert!(daemon.client().stats()["learned"].is_null());
}
