//! READY, STATUS, RELOADING, STOPPING, WATCHDOG.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use crate::service::daemon::{Daemon, Start, ask, place};

const CONFIG: &str = "api.key = \"k\"\napi.base_url = \"http://127.0.0.1:9\"\n";

#[test]
fn systemd_is_notified_ready_when_pins_are_accepted_and_stopping_when_not() {
    let mut daemon = Daemon::start(&place(), Start { config: CONFIG, ..Start::default() });
    let before = daemon.notifications_until("READY=1");
    assert!(before[0].contains("STATUS=starting"), "{before:?}");
    assert_eq!(ask(&daemon.socket(), "A1")["state"], "accepted");
    daemon.notifications_until("STATUS=1 in flight");
    daemon.signal(Signal::TERM);
    daemon.notifications_until("STOPPING=1");
    assert_eq!(daemon.ended(), Some(0));
    assert!(!daemon.socket().exists());
}

#[test]
fn a_failed_start_never_notifies_ready() {
    let place = place();
    let config = format!("{CONFIG}[[sink]]\ntype = \"file\"\npath = \"FOLDER/missing/outcomes.jsonl\"\n");
    let mut daemon = Daemon::start(&place, Start { config: &config, ..Start::default() });
    assert_eq!(daemon.ended(), Some(1));
    assert!(daemon.log().contains("missing/outcomes.jsonl"), "{}", daemon.log());
    assert!(!daemon.socket().exists());
}

#[test]
fn a_reload_notifies_its_time_and_then_ready() {
    let daemon = Daemon::start(&place(), Start { config: CONFIG, ..Start::default() });
    daemon.notifications_until("READY=1");
    daemon.signal(Signal::HUP);
    let told = daemon.notifications_until("RELOADING=1").pop().unwrap();
    assert!(told.contains("MONOTONIC_USEC="), "{told}");
    daemon.notifications_until("READY=1");
}

#[test]
fn the_watchdog_is_notified_while_the_daemon_works_even_if_the_api_is_down() {
    let start = Start { config: CONFIG, watchdog: Some(Duration::from_secs(1)), ..Start::default() };
    let daemon = Daemon::start(&place(), start);
    daemon.notifications_until("READY=1");
    ask(&daemon.socket(), "A1");
    for _ in 0..3 {
        daemon.notifications_until("WATCHDOG=1");
    }
}

#[cfg(feature = "fault-points")]
#[test]
fn the_watchdog_is_not_notified_while_the_schedule_hangs() {
    let start = Start { config: CONFIG, watchdog: Some(Duration::from_secs(1)), ..Start::default() };
    let daemon = Daemon::start(&place(), start);
    daemon.notifications_until("WATCHDOG=1");
    daemon.signal(Signal::USR1);
    daemon.notifications_until("STATUS=a part does not answer");
    // Nothing is told again; a second look finds nothing better.
    let told = daemon.notifications_until("STATUS=a part does not answer");
    assert!(!told.iter().any(|told| told.contains("WATCHDOG=1")), "{told:?}");
}

#[test]
fn the_daemon_works_without_a_service_manager() {
    let place = place();
    let gone = place.path("notify");
    let daemon = Daemon::start(&place, Start { config: CONFIG, ..Start::default() });
    let _ = fs::remove_file(gone);
    daemon.until_logged("ready: PINs are accepted");
    assert_eq!(ask(&daemon.socket(), "A1")["state"], "accepted");
}
