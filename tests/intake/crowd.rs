//! Many clients and misbehaving clients: none of them affects another.

use serde_json::json;

use super::idle;
use crate::support::{Client, code, until_true};

/// Checks that a client is served.
fn is_served(client: &mut Client, name: &str) {
    for n in 0..20 {
        assert_eq!(client.submit(&format!("{name}-{n}")), "accepted");
        assert_eq!(client.op(&json!({"op": "ping"}))["ok"], true);
        assert_eq!(client.op(&json!({"op": "show", "pinId": format!("{name}-{n}")}))["ok"], true);
    }
}

#[test]
fn a_client_that_writes_100_000_lines_before_it_reads_one_gets_100_000_answers_in_order() {
    let daemon = idle();
    let mut client = daemon.client();
    let pin = |n: usize| format!("{n:032X}");
    client.write((0..100_000).map(|n| pin(n) + "\n").collect::<String>());
    for n in 0..100_000 {
        assert_eq!(
            client.line().unwrap(),
            format!(r#"{{"ok":true,"pinId":"{}","state":"accepted"}}"#, pin(n))
        );
    }
    assert_eq!(client.stats()["inFlight"], 100_000);
    client.finish();
    assert_eq!(client.line(), None);
}

#[test]
fn a_client_that_never_reads_does_not_keep_another_from_being_served() {
    let daemon = idle();
    let mut deaf = daemon.client();
    // Answers of some 20 MB: more than the system's buffers hold.
    let requests = "{\"op\":\"fly\"}\n".repeat(200_000);
    let mut client = daemon.client();
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| deaf.write(&requests));
        is_served(&mut client, "meanwhile");
        writing.join().unwrap();
    });
    is_served(&mut client, "afterwards");
    // It can still read them: nothing was lost.
    for _ in 0..1000 {
        assert_eq!(code(&deaf.answer()), "unknown_op");
    }
    drop(deaf);
    until_true("it is gone", || client.stats()["connections"] == 1);
}

#[test]
fn a_client_that_stops_in_the_middle_of_a_line_does_not_keep_others_from_being_served() {
    let daemon = idle();
    let mut stopped: Vec<_> =
        [&b"{\"op\":\"pi"[..], b"HALF-A-PIN-I", b"\xff", b"{\"op\":\"submit\",\"metadata\":[[[["]
            .into_iter()
            .map(|half| {
                let mut client = daemon.client();
                client.write(half);
                client
            })
            .collect();
    stopped.push({
        let mut client = daemon.client();
        client.write("x".repeat(500_000));
        client
    });
    is_served(&mut daemon.client(), "others");
    stopped[0].write("ng\"}\n");
    assert_eq!(stopped[0].answer()["ok"], true);
    stopped[1].write("D\n");
    assert_eq!(stopped[1].answer()["pinId"], "HALF-A-PIN-ID");
    stopped[4].write("\n");
    assert_eq!(code(&stopped[4].answer()), "line_too_long");
}
