//! How polls reach the API: IPv4, IPv6 and proxies, which never see the key.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use crate::support::{Mock, Place, TIMEOUT, until};
use serde_json::json;
use wiremock::ResponseTemplate;

const GOOD: &str = r#"[{"status":"MESSAGE_DELIVERED","description":"x","finalStatus":true}]"#;

/// A server that answers each connection's first request, and reports the request's head.
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
    let head = heads.recv_timeout(TIMEOUT).unwrap();
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
    direct.recv_timeout(TIMEOUT).expect("a TLS handshake");
    assert!(through_proxy.try_recv().is_err());
    daemon.terminate();
}

#[test]
fn a_key_that_the_api_echoes_appears_in_no_log_answer_or_outcome() {
    let key = "Key-3f9a7c/Zq+71";
    let escaped: String = key.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
    let split = key.replace('a', r"\u0061").replace('/', r"\/");
    let encoded = "S2V5LTNmOWE3Yy9acSs3MQ";
    let api = Mock::start();
    let json = |body: String| ResponseTemplate::new(200).set_body_raw(body, "application/json");
    let said = [key, &escaped, &split, encoded];
    for (n, said) in said.iter().enumerate() {
        let delivery = |status: &str, is_final: bool| {
            format!(r#"[{{"status":"{status}","description":"for App {said}","finalStatus":{is_final}}}]"#)
        };
        api.answers(&format!("FINAL-{n}"), json(delivery("MESSAGE_DELIVERED", true)));
        api.answers(&format!("OPEN-{n}"), json(delivery("MESSAGE_WAITING_DELIVERY", false)));
        api.answers(&format!("STATUS-{n}"), json(delivery(&format!("App {said}"), true)));
        let error = format!(
            r#"{{"requestError":{{"serviceException":{{"messageId":"{said}","text":"App {said}"}}}}}}"#
        );
        api.answers(
            &format!("REFUSED-{n}"),
            ResponseTemplate::new(400).set_body_raw(error.clone(), "application/json"),
        );
        api.answers(&format!("DOWN-{n}"), ResponseTemplate::new(503).set_body_raw(error, "application/json"));
    }
    let daemon = Place::new(&api.base_url()).key(key).set("log.level", "debug").start();
    let mut client = daemon.client();
    let mut told = String::new();
    let kinds = ["FINAL", "OPEN", "STATUS", "REFUSED", "DOWN"];
    let pins: Vec<String> =
        kinds.iter().flat_map(|kind| (0..said.len()).map(move |n| format!("{kind}-{n}"))).collect();
    client.submit_all(&pins);
    for n in 0..said.len() {
        told += &client.outcome(&format!("FINAL-{n}")).to_string();
    }
    for pin in &pins {
        told += &until("it was answered", || {
            let shown = client.op(&json!({"op": "show", "pinId": pin}));
            let is_answered = !shown["pin"]["lastAnswer"].is_null() || shown["pin"]["state"] == "finished";
            is_answered.then(|| shown.to_string())
        });
    }
    told += &client.stats().to_string();
    let records = daemon.all_records(said.len());
    told += &serde_json::to_string(&records).unwrap();
    assert!(told.contains("for App ***"), "{told}");
    let place = daemon.terminate();
    told += &place.stderr();
    for secret in ["Key-3f9a", &escaped, &split, r"\u0061", encoded] {
        assert!(!told.contains(secret), "{secret} is in {told}");
    }
}
