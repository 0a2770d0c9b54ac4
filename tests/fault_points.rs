//! Kills the daemon at every point between two steps of one change, and starts it again: all promises hold.
//!
//!     cargo test --features fault-points --test fault_points

mod support;
// One of its tests needs a daemon whose schedule can be made to hang.
mod service {
    #[allow(dead_code, reason = "tests/service uses the rest")]
    mod daemon;
    mod notify;
}

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;

use rustix::process::Signal;
use serde_json::Value;
use support::{
    Daemon, Place, Simulated, all_delivered, assert_each_once, sim_pins, submit, try_submit, until, wrapped,
};

/// What the daemon does when it dies.
#[derive(Clone, Copy, PartialEq)]
enum At {
    /// Its very first start.
    FirstStart,
    /// A start after a kill with undelivered outcomes.
    Restart,
    /// Its normal work.
    Work,
    /// A rename of its file, with SIGHUP.
    Rotation,
    /// Its stop.
    Stop,
}

/// One test for a point: it dies there at this pass, and is started again, once with its file as it was, once
/// with the file renamed in between.
macro_rules! killed {
    ($($name:ident: $at:expr, $point:literal, $pass:literal;)*) => {
        $(
            #[test]
            fn $name() {
                for renamed in [false, true] {
                    dies_and_loses_nothing($at, concat!($point, ":", $pass), renamed);
                }
            }
        )*
    };
}

killed! {
    before_its_tables_are_made: At::FirstStart, "database-made", 1;
    after_its_tables_are_made: At::FirstStart, "migrated", 1;
    after_its_sink_is_registered_for_the_first_time: At::FirstStart, "sink-registered", 1;
    after_its_file_is_made: At::FirstStart, "file-opened", 1;
    at_a_restart_before_the_sinks_are_opened: At::Restart, "sink-registered", 1;
    at_a_restart_after_the_file_is_opened: At::Restart, "file-opened", 1;
    at_a_restart_before_the_files_place_is_durable: At::Restart, "not-committed", 1;

    before_the_first_commit: At::Work, "not-committed", 1;
    before_a_later_commit: At::Work, "not-committed", 4;
    between_commit_and_its_note: At::Work, "committed-and-not-noted", 1;
    between_a_later_commit_and_its_note: At::Work, "committed-and-not-noted", 4;
    between_commit_and_the_notice_to_the_schedule: At::Work, "accepted-before-notices", 1;
    between_commit_and_ack: At::Work, "accepted-and-not-acked", 1;
    between_a_later_commit_and_its_ack: At::Work, "accepted-and-not-acked", 3;
    between_an_outcomes_commit_and_any_notice_of_it: At::Work, "finished-before-notices", 1;
    between_later_outcomes_commit_and_any_notice_of_them: At::Work, "finished-before-notices", 2;
    after_the_schedule_has_the_notice_of_an_outcome: At::Work, "finished-after-notices", 1;

    in_the_middle_of_the_first_line: At::Work, "half-a-line", 1;
    in_the_middle_of_a_later_line: At::Work, "half-a-line", 25;
    between_two_lines_of_a_batch: At::Work, "line-written", 2;
    between_lines_and_fsync: At::Work, "file-not-synced", 1;
    between_fsync_and_cursor: At::Work, "file-synced", 1;
    between_delivery_and_cursor: At::Work, "delivered-and-cursor-behind", 1;
    between_a_later_delivery_and_its_cursor: At::Work, "delivered-and-cursor-behind", 2;

    when_a_rename_is_noticed: At::Rotation, "trouble-noticed", 1;
    between_the_old_files_cursor_and_the_new_file: At::Rotation, "cursor-durable-and-file-not-reopened", 1;
    when_the_new_file_is_made: At::Rotation, "file-opened", 2;
    in_the_middle_of_the_new_files_first_line: At::Rotation, "half-a-line", 41;
    after_the_new_files_first_line: At::Rotation, "line-written", 41;

    at_a_stop_before_the_store_is_flushed: At::Stop, "stopped-taking-and-not-flushed", 1;
    at_a_stop_before_the_sinks_are: At::Stop, "sinks-asked-to-finish", 1;
    at_a_stop_before_the_store_is_closed: At::Stop, "sinks-finished-and-store-open", 1;
}

#[test]
fn the_socket_has_its_mode_already_before_the_daemon_listens() {
    let api = Simulated::start();
    let place = Place::in_folders(&api.base_url());
    for mode in [0o600, 0o660] {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "umask 0; exec \"$0\" \"$@\""]);
        let mut command = wrapped(shell, &place.command());
        command.args(["--set", &format!("intake.mode={mode:04o}")]).env("PINWATCH_FAULT", "socket-bound");
        let status = place.spawn_by(command).wait();
        assert_eq!(status.signal(), Some(9), "it ended with {status}");
        let file = std::fs::symlink_metadata(place.socket()).expect("it is bound");
        assert_eq!(file.permissions().mode() & 0o777, mode);
    }
    // What was left behind is stale, and its lock is free.
    place.start().terminate();
}

fn dies_and_loses_nothing(at: At, fault: &str, renamed: bool) {
    let api = Simulated::start();
    let place = Place::in_folders(&api.base_url());
    // The PINs end at different times, so that there are several commits and deliveries.
    let early: Vec<String> = [sim_pins("delivered", 20), sim_pins("100ms", 20)].concat();
    let late: Vec<String> = [sim_pins("failed", 10), sim_pins("300ms", 10), sim_pins("call", 10)].concat();
    if at == At::Restart {
        let daemon = place.start();
        submit(&mut daemon.client(), &early);
        until("some outcomes are out", || place.all_results().concat().contains('\n').then_some(()));
        daemon.kill9();
    }

    let mut command = place.command();
    command.env("PINWATCH_FAULT", fault);
    let mut daemon = place.spawn_by(command);
    let mut acked = Vec::new();
    if !matches!(at, At::FirstStart | At::Restart) {
        daemon = daemon.ready();
        acked.extend(submit_in_pieces(&daemon, &early));
        if at == At::Rotation {
            let delivered = || (place.all_results().concat().lines().count() == early.len()).then_some(());
            until("the first outcomes are out", delivered);
            place.rotate(1);
            daemon.signal(Signal::HUP);
        }
        acked.extend(submit_in_pieces(&daemon, &late));
        if at == At::Stop {
            daemon.signal(Signal::TERM);
        }
    }
    let status = daemon.wait();
    assert_eq!(status.signal(), Some(9), "it ended with {status} instead of at {fault}:\n{}", daemon.log());
    if renamed {
        place.rotate(2);
    }

    let daemon = place.start();
    let mut client = daemon.client();
    let all = [early, late].concat();
    for (pin, answer) in all.iter().zip(submit(&mut client, &all)) {
        let state = answer["state"].as_str().expect("a submit is taken");
        assert!(state != "accepted" || !acked.contains(pin), "{pin} was acked and is not known any more");
    }
    until("every PIN has its outcome", || (client.stats()["inFlight"] == 0).then_some(()));
    all_delivered(&mut client);
    let outbox = client.outbox();
    drop(client);
    daemon.terminate();
    let mut files = place.all_results();
    if renamed {
        // A renamed file without a whole line proves nothing about whose it is, so it is left as it is.
        files.retain(|file| file.is_empty() || file.contains('\n'));
    }
    assert_each_once(&outbox, &files, &[&all]);
}

/// Submits PINs, some at a time, as long as there is a daemon; gives those that it took.
fn submit_in_pieces(daemon: &Daemon, pins: &[String]) -> Vec<String> {
    let Some(mut client) = daemon.try_client() else { return Vec::new() };
    let mut acked = Vec::new();
    for piece in pins.chunks(7) {
        let answers: Vec<Value> = try_submit(&mut client, piece);
        let taken = piece.iter().zip(&answers).filter(|(_, answer)| answer["ok"] == true);
        acked.extend(taken.map(|(pin, _)| pin.clone()));
    }
    acked
}
