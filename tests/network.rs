//! How polls reach the API: IPv4 and IPv6, proxies, and what is never sent to them.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use common::{PATIENCE, Place};

const GOOD: &str = r#"[{"status":"MESSAGE_DELIVERED","description":"x","finalStatus":true}]"#;

/// A server that answers each connection's first request, and tells its head.
fn server(address: &str, answer: String) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind(address).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heads, received) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            if heads.send(serve(stream, &answer)).is_err() {
                return;
            }
        }
    });
    (port, received)
}

fn serve(mut stream: TcpStream, answer: &str) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut head = String::new();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|read| read > 0) {}
    let _ = stream.write_all(answer.as_bytes());
    head
}

fn good() -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{GOOD}", GOOD.len())
}

#[test]
fn the_api_is_reached_by_ipv4_by_ipv6_and_by_name() {
    for (listen, host) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "[::1]"), ("127.0.0.1:0", "localhost")] {
        let (port, _heads) = server(listen, good());
        let daemon = Place::new(&format!("http://{host}:{port}")).start();
        daemon.client().submit("A");
        assert_eq!(daemon.all_records(1)[0]["outcome"], "final", "by {host}");
        daemon.terminate();
    }
}

#[test]
fn https_goes_through_the_proxy_of_the_environment_which_never_sees_the_key() {
    let (port, heads) = server("127.0.0.1:0", "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n".into());
    let place = Place::new("https://api.example").key("hunter2-hunter2");
    let mut command = place.command();
    command.env("HTTPS_PROXY", format!("http://127.0.0.1:{port}"));
    let daemon = place.start_by(command);
    daemon.client().submit("A");
    let head = heads.recv_timeout(PATIENCE).unwrap();
    assert!(head.starts_with("CONNECT api.example:443 "), "{head}");
    assert!(!head.contains("hunter2"), "{head}");
    daemon.terminate();
}

#[test]
fn a_host_in_no_proxy_is_reached_without_one() {
    let (proxy, through_proxy) = server("127.0.0.1:0", String::new());
    let (port, direct) = server("127.0.0.1:0", String::new());
    let place = Place::new(&format!("https://localhost:{port}"));
    let mut command = place.command();
    command.env("HTTPS_PROXY", format!("http://127.0.0.1:{proxy}")).env("NO_PROXY", "localhost");
    let daemon = place.start_by(command);
    daemon.client().submit("A");
    direct.recv_timeout(PATIENCE).expect("a TLS handshake");
    assert!(through_proxy.try_recv().is_err());
    daemon.terminate();
}
