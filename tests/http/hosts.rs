//! Which `Host` headers are accepted.

use crate::http::served::{Served, send};

#[test]
fn a_request_with_a_foreign_host_name_is_refused() {
    let served = Served::with(&["http.hosts=pinwatch.example, other.example"]);
    let port = served.address.port();
    for path in ["/metrics", "/healthz", "/nowhere"] {
        for (host, is_own) in [
            (format!("evil.example:{port}"), false),
            ("evil.example".to_owned(), false),
            (format!("localhost:{port}"), true),
            (served.address.to_string(), true),
            ("PINWATCH.example".to_owned(), true),
            ("other.example:1".to_owned(), true),
        ] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            let answer = send(served.address, &request).expect("it is answered");
            assert_eq!(answer.status != 421, is_own, "{host}: {answer:?}");
            if !is_own {
                assert!(
                    answer.body.contains("http.hosts") && answer.body.contains("evil.example"),
                    "{answer:?}"
                );
                assert!(answer.head.contains("application/problem+json"), "{answer:?}");
            }
        }
    }
    // No browser is that old.
    assert_eq!(send(served.address, "GET /healthz HTTP/1.0\r\n\r\n").map(|answer| answer.status), Some(200));
    let without = send(served.address, "GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n");
    assert_eq!(without.map(|answer| answer.status), Some(400));
}
