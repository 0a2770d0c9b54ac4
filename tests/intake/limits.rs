//! Limits, and the answers beyond them.

use std::process::Command;

use rustix::process::{Resource, getrlimit};
use serde_json::json;

use crate::support::{Client, Ended, Place, Simulated, code, program, run_to_end, until_true};

#[test]
fn beyond_max_in_flight_a_pin_is_not_accepted_until_another_one_ends() {
    let daemon = Place::new("http://127.0.0.1:9").never_due().set("intake.max_in_flight", "3").start();
    let mut client = daemon.client();
    client.write("A\nB\nC\nD\nA\nE\n");
    let answers: Vec<_> = (0..6).map(|_| client.answer()).collect();
    let states: Vec<_> = answers.iter().map(|a| a["state"].as_str().unwrap_or_else(|| code(a))).collect();
    assert_eq!(states, ["accepted", "accepted", "accepted", "at_capacity", "duplicate", "at_capacity"]);
    assert_eq!(code(&client.op(&json!({"op": "show", "pinId": "D"}))), "not_found");

    client.op(&json!({"op": "cancel", "pinId": "B"}));
    assert_eq!(client.submit("D"), "accepted");
    assert_eq!(code(&client.ask("E")), "at_capacity");
    assert_eq!(client.submit("B"), "finished");

    // A start with a lower limit drops none.
    let daemon = daemon.kill9().set("intake.max_in_flight", "1").start();
    let mut client = daemon.client();
    assert_eq!(client.stats()["inFlight"], 3);
    assert_eq!(code(&client.ask("E")), "at_capacity");
}

#[test]
fn of_10_000_connections_those_beyond_the_limit_are_refused_with_an_error() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    let mut observer = daemon.client();
    until_true("the connection that the start made is gone", || observer.stats()["connections"] == 1);

    // Each is an open file here; some are left for the other tests.
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let count = usize::try_from(files.saturating_sub(1000)).unwrap_or(usize::MAX).clamp(400, 10_000);
    let mut within: Vec<Client> = (0..count).map(|_| daemon.client()).collect();
    let mut excess = within.split_off(256 - 1);
    for client in &mut excess {
        assert_eq!(code(&client.answer()), "at_capacity");
        assert_eq!(client.line(), None, "and is closed");
    }
    for (n, client) in within.iter_mut().enumerate() {
        assert_eq!(client.submit(&format!("sim-delivered-{n}")), "accepted");
    }
    assert_eq!(observer.stats()["connections"], 256);
    assert_eq!(daemon.all_records(255).len(), 255);

    drop((within, excess));
    until_true("they are gone", || observer.stats()["connections"] == 1);
    assert_eq!(daemon.client().submit("sim-delivered-0"), "finished");
}

#[test]
fn every_command_shows_the_daemons_message_when_no_connection_is_free() {
    let daemon = Place::new("http://127.0.0.1:9").set("intake.max_connections", "1").start();
    let mut holder = daemon.client();
    until_true("the place is free", || {
        holder = daemon.client();
        holder.write("{\"op\":\"ping\"}\n");
        holder.answer()["ok"] == true
    });
    let commands = [&["stats"][..], &["submit", "9C81"], &["wait", "9C81"], &["tail", "-f"], &["list"]];
    let socket = daemon.place.socket();
    let run = |args: &[&str]| {
        let mut command = program();
        command.args(args).arg("--socket").arg(&socket);
        run_to_end(command)
    };
    std::thread::scope(|scope| {
        let ended: Vec<_> = commands.iter().map(|args| (args, scope.spawn(move || run(args)))).collect();
        for (args, ended) in ended {
            let Ended { code, stdout, stderr } = ended.join().unwrap();
            assert_eq!(code, Some(1), "{args:?}: {stderr}");
            assert!(stdout.contains(r#""code":"at_capacity""#) && stdout.lines().count() == 1, "{stdout}");
            assert!(
                stderr.contains("takes no more connections now: all 1 connections are taken"),
                "{stderr}"
            );
            assert!(stderr.contains("intake.max_connections") && !stderr.contains("Broken pipe"), "{stderr}");
        }
    });
}

#[test]
fn with_no_free_file_descriptor_connected_clients_are_served_and_others_wait() {
    let api = Simulated::start();
    let place = Place::new(&api.base_url()).never_due();
    let run = place.command();
    let mut limited = Command::new("/bin/sh");
    limited.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""]).arg(run.get_program()).args(run.get_args());
    crate::support::isolate(&mut limited);
    limited.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let daemon = place.start_by(limited);
    let mut client = daemon.client();
    assert_eq!(client.submit("A"), "accepted");

    let crowd: Vec<Client> = (0..100).map(|_| daemon.client()).collect();
    until_true("there is none left", || daemon.place.stderr().contains("can't accept a connection"));
    assert_eq!(client.op(&json!({"op": "ping"}))["ok"], true);
    assert_eq!(client.submit("B"), "accepted");

    drop(crowd);
    assert_eq!(daemon.client().op(&json!({"op": "ping"}))["ok"], true);
    drop(client);
    let daemon = daemon.terminate().soon_due().start();
    assert_eq!(daemon.client().stats()["inFlight"], 2);
}
