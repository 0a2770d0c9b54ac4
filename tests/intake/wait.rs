//! `wait`: a request that is answered when the outcome exists.

use rustix::process::Signal;
use serde_json::json;

use super::{idle, polling};
use crate::support::{Place, Simulated, code, until_true};

#[test]
fn wait_returns_the_outcome_whether_the_pin_ended_before_or_ends_later() {
    let (_api, daemon) = polling();
    let mut client = daemon.client();
    let (mut second, mut third) = (daemon.client(), daemon.client());
    client.submit("sim-300ms-1");
    let wait = json!({"op": "wait", "pinId": "sim-300ms-1"});
    // Several at once, and several on one connection.
    second.write(format!("{wait}\n{wait}\n"));
    third.write(format!("{wait}\n"));
    let expected = client.op(&wait);
    assert_eq!((&expected["ok"], &expected["pinId"]), (&json!(true), &json!("sim-300ms-1")));
    assert_eq!(expected["outcome"]["status"], "MESSAGE_DELIVERED");
    assert_eq!(
        [second.answer(), second.answer(), third.answer()],
        [expected.clone(), expected.clone(), expected.clone()]
    );
    assert_eq!(client.op(&wait), expected, "afterwards");
    assert_eq!(daemon.all_records(1)[0], expected["outcome"]);
}

#[test]
fn wait_ends_at_its_timeout_and_the_connection_stays_usable() {
    let daemon = idle();
    let mut client = daemon.client();
    client.submit("A");
    for timeout in ["0s", "50ms"] {
        let answer = client.op(&json!({"op": "wait", "pinId": "A", "timeout": timeout}));
        assert_eq!(code(&answer), "timeout");
    }
    assert_eq!(code(&client.op(&json!({"op": "wait", "pinId": "B"}))), "not_found");
    assert_eq!(client.op(&json!({"op": "ping"}))["ok"], true);
}

#[test]
fn a_very_long_timeout_means_no_timeout_and_a_waiting_connection_counts_once() {
    let daemon = idle();
    let mut client = daemon.client();
    client.submit("A");
    let mut waiters: Vec<_> = ["400000000000years", "18446744073709551615s", "1000years"]
        .into_iter()
        .map(|timeout| {
            let mut waiter = daemon.client();
            waiter.write(format!("{}\n", json!({"op": "wait", "pinId": "A", "timeout": timeout})));
            waiter
        })
        .collect();
    until_true("they wait", || client.stats()["connections"] == 4);
    client.op(&json!({"op": "cancel", "pinId": "A"}));
    for waiter in &mut waiters {
        assert_eq!(waiter.answer()["outcome"]["outcome"], "cancelled");
    }
    drop(waiters);
    until_true("they are gone", || client.stats()["connections"] == 1);
    // What is no time at all is refused.
    for timeout in ["600000000000years", "-1s", "1e9s", ""] {
        let answer = client.op(&json!({"op": "wait", "pinId": "A", "timeout": timeout}));
        assert_eq!(code(&answer), "invalid_request", "{timeout}");
    }
}

#[test]
fn a_cancel_answers_the_waiting_clients() {
    let daemon = idle();
    let (mut waiter, mut client) = (daemon.client(), daemon.client());
    waiter.write("A\n{\"op\":\"wait\",\"pinId\":\"A\"}\n");
    assert_eq!(waiter.answer()["state"], "accepted");
    let cancelled = client.op(&json!({"op": "cancel", "pinId": "A"}));
    assert_eq!(waiter.answer()["outcome"], cancelled["outcome"]);
}

#[test]
fn a_client_that_closes_its_write_side_still_gets_the_answer_of_wait() {
    let (_api, daemon) = polling();
    let mut client = daemon.client();
    client.write("sim-300ms-1\n{\"op\":\"wait\",\"pinId\":\"sim-300ms-1\"}\n");
    client.finish();
    assert_eq!(client.answer()["state"], "accepted");
    assert_eq!(client.answer()["outcome"]["outcome"], "final");
    assert_eq!(client.line(), None);
}

#[test]
fn a_client_that_hangs_up_while_it_waits_or_follows_frees_its_place() {
    let place = Place::new("http://127.0.0.1:9").never_due().set("intake.max_connections", "2");
    let daemon = place.start();
    let mut client = daemon.client();
    client.submit("A");
    until_true("the connection that the start made is gone", || client.stats()["connections"] == 1);
    for request in [json!({"op": "wait", "pinId": "A"}), json!({"op": "tail", "follow": true})] {
        let mut holder = daemon.client();
        holder.write(format!("{request}\n"));
        until_true("the place is taken", || client.stats()["connections"] == 2);
        let mut excess = daemon.client();
        assert_eq!(code(&excess.answer()), "at_capacity");
        drop(holder);
        until_true("the place is free", || client.stats()["connections"] == 1);
        assert_eq!(daemon.client().op(&json!({"op": "ping"}))["ok"], true);
        until_true("the place is free again", || client.stats()["connections"] == 1);
    }
}

#[test]
fn a_stop_answers_waiting_and_following_clients_with_shutting_down() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    let (mut waiter, mut follower) = (daemon.client(), daemon.client());
    waiter.write("sim-waiting-1\n{\"op\":\"wait\",\"pinId\":\"sim-waiting-1\"}\nsim-waiting-2\n");
    assert_eq!(waiter.answer()["state"], "accepted");
    let mut client = daemon.client();
    client.submit("sim-delivered-1");
    let outcome = client.outcome("sim-delivered-1");
    follower.write("{\"op\":\"tail\",\"last\":1,\"follow\":true}\n");
    assert_eq!(follower.answer(), outcome, "it follows");
    daemon.signal(Signal::TERM);
    assert_eq!(code(&waiter.answer()), "shutting_down");
    assert_eq!(code(&waiter.answer()), "shutting_down", "a submit behind the wait");
    assert_eq!(waiter.line(), None);
    assert_eq!(code(&follower.answer()), "shutting_down");
    assert_eq!(follower.line(), None);
    assert_eq!(client.line(), None);
    let (status, place) = daemon.end();
    assert_eq!(status.code(), Some(0));
    assert!(!place.socket().exists());
}
