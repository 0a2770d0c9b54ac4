//! Hostile and slow HTTP clients.

use std::io::{ErrorKind, Read, Write};

use crate::http::served::{Served, connect, get, send};
use crate::support::until;

/// More connections than one peer may have, loopback included.
const CROWD: usize = 500;

#[test]
fn a_request_with_a_huge_head_is_refused() {
    let served = Served::start();
    let huge = format!("GET /metrics HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "x".repeat(1 << 20));
    // Refused with an answer, or cut off while it was still writing.
    assert!(send(served.address, &huge).is_none_or(|answer| answer.status == 431));
    assert_eq!(served.get("/healthz").status, 200);
}

#[test]
fn a_get_request_is_answered_without_waiting_for_its_body() {
    let served = Served::start();
    let request = "GET /healthz HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n";
    assert_eq!(send(served.address, request).map(|answer| answer.status), Some(200));
}

#[test]
fn bytes_that_are_not_http_close_the_connection() {
    let served = Served::start();
    for noise in ["\0\u{1}\u{2}\r\n\r\n", "sim-delivered-1\n\n", "PRI * HTTP/3.0\r\n\r\n"] {
        assert!(send(served.address, noise).is_none_or(|answer| answer.status >= 400), "{noise:?}");
    }
    assert_eq!(served.get("/healthz").status, 200);
}

#[test]
fn many_silent_connections_use_few_files_and_delay_no_pin() {
    let served = Served::start();
    let files = || std::fs::read_dir(format!("/proc/{}/fd", served.daemon.pid())).map_or(0, Iterator::count);
    served.finish(&["sim-delivered-1"]);
    let before = files();
    let crowd: Vec<_> = (0..CROWD).map(|_| connect(served.address)).collect();
    served.finish(&["sim-delivered-2"]);
    let taken = files().saturating_sub(before);
    assert!(taken <= 460, "{CROWD} connections take {taken} files");
    drop(crowd);
    until("it answers again", || get(served.address, "/healthz").filter(|answer| answer.status == 200));
}

#[test]
fn healthz_is_answered_while_slow_clients_fill_all_connections() {
    let served = Served::start();
    until("all is answered, and those who dawdle have time left", || {
        let mut crowd: Vec<_> = (0..CROWD)
            .map(|_| {
                let mut slow = connect(served.address);
                slow.write_all(b"GET /metrics HTTP/1.1\r\nhost: pin").expect("it takes the first bytes");
                slow
            })
            .collect();
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(served.get(path).status, 200, "{path}");
        }
        // The first one was replaced; the others still have time.
        let in_the_middle = &mut crowd[CROWD / 2];
        in_the_middle.set_nonblocking(true).expect("a socket can be asked without waiting");
        let waits = in_the_middle.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        waits.then_some(())
    });
}

#[test]
fn a_client_that_does_not_complete_its_request_is_cut_off() {
    let served = Served::start();
    let mut slow = connect(served.address);
    slow.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n").expect("it takes the first lines");
    let mut rest = Vec::new();
    // The connection ends; only the time limit of the test could end this before.
    let end = slow.read_to_end(&mut rest);
    let still_open = end.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    assert!(!still_open && !rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
}
