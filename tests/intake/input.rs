//! Invalid input: each line is answered with its code, in order, and the connection stays usable.

use serde_json::json;

use super::{idle, polling};
use crate::support::{Client, code};

/// Lines, each with the code that it is refused with.
fn bad_lines() -> Vec<(Vec<u8>, &'static str)> {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let objects = |depth: usize| r#"{"a":"#.repeat(depth) + "1" + &"}".repeat(depth);
    let with_metadata = |json: &str| format!(r#"{{"op":"submit","pinId":"A","metadata":{json}}}"#);
    let texts = [
        // No request at all.
        (String::new(), "invalid_request"),
        ("  \t ".into(), "invalid_request"),
        (r#"["A"]"#.into(), "invalid_request"),
        (r#""A""#.into(), "invalid_request"),
        ("[".repeat(60_000), "invalid_request"),
        // Lines that are neither JSON nor a PIN ID.
        ("GET / HTTP/1.1".into(), "invalid_pin_id"),
        ("a b".into(), "invalid_pin_id"),
        ("a/b".into(), "invalid_pin_id"),
        ("a,b;c".into(), "invalid_pin_id"),
        ("ä".into(), "invalid_pin_id"),
        ("..".into(), "invalid_pin_id"),
        (".".into(), "invalid_pin_id"),
        ("x".repeat(129), "invalid_pin_id"),
        ("x".repeat(64 * 1024), "invalid_pin_id"),
        ("\u{1b}[31mred".into(), "invalid_pin_id"),
        // NUL bytes.
        ("\0".into(), "invalid_pin_id"),
        ("9C81\0".into(), "invalid_pin_id"),
        ("{\"op\":\"pi\0ng\"}".into(), "invalid_json"),
        ("{\"op\":\"ping\"}\0".into(), "invalid_json"),
        (r#"{"op":"show","pinId":"a\u0000"}"#.into(), "invalid_pin_id"),
        // Invalid JSON.
        ("{".into(), "invalid_json"),
        (r#"{"op":"ping"#.into(), "invalid_json"),
        (r#"{"op":"ping"} {"op":"ping"}"#.into(), "invalid_json"),
        ("{op:ping}".into(), "invalid_json"),
        (r#"{"op":"submit","pinId":"\ud800"}"#.into(), "invalid_json"),
        // Invalid members of an op.
        ("{}".into(), "invalid_request"),
        (r#"{"op":7}"#.into(), "invalid_request"),
        (r#"{"op":"ping","op":"ping"}"#.into(), "invalid_request"),
        (r#"{"op":"fly"}"#.into(), "unknown_op"),
        (r#"{"op":"PING"}"#.into(), "unknown_op"),
        (format!(r#"{{"op":"{}"}}"#, "x".repeat(60_000)), "unknown_op"),
        (r#"{"op":"submit","pinId":"A","colour":"red"}"#.into(), "invalid_request"),
        (r#"{"op":"submit"}"#.into(), "invalid_request"),
        (r#"{"op":"submit","pinId":null}"#.into(), "invalid_request"),
        (r#"{"op":"submit","pinId":7}"#.into(), "invalid_request"),
        (r#"{"op":"submit","pinId":""}"#.into(), "invalid_pin_id"),
        (r#"{"op":"submit","pinId":".."}"#.into(), "invalid_pin_id"),
        (r#"{"op":"submit","pinId":"a/../b"}"#.into(), "invalid_pin_id"),
        (r#"{"op":"submit","pinId":"A","reference":7}"#.into(), "invalid_request"),
        (r#"{"op":"submit","pinId":"A","again":"yes"}"#.into(), "invalid_request"),
        (r#"{"op":"submit","pinId":"A","deadline":30}"#.into(), "invalid_request"),
        (r#"{"op":"submit","pinId":"A","deadline":"30"}"#.into(), "invalid_request"),
        (r#"{"op":"submit","pinId":"A","deadline":"-5s"}"#.into(), "invalid_request"),
        (r#"{"op":"submit","pinId":"A","deadline":"0s"}"#.into(), "invalid_request"),
        (r#"{"op":"submit","pinId":"A","deadline":"9999999999999999999y"}"#.into(), "invalid_request"),
        (r#"{"op":"wait","pinId":"A","timeout":"5"}"#.into(), "invalid_request"),
        (r#"{"op":"list","limit":-1}"#.into(), "invalid_request"),
        (r#"{"op":"list","limit":1.5}"#.into(), "invalid_request"),
        (r#"{"op":"list","limit":99999999999999999999}"#.into(), "invalid_request"),
        (r#"{"op":"show","pinId":"A","again":true}"#.into(), "invalid_request"),
        (r#"{"op":"ping","pinId":"A"}"#.into(), "invalid_request"),
        // Deep.
        (with_metadata(&nested(20_000)), "invalid_request"),
        (with_metadata(&objects(10_000)), "invalid_request"),
        (with_metadata(&nested(33)), "invalid_request"),
        (with_metadata(&"[".repeat(20_000)), "invalid_json"),
        (format!(r#"{{"op":{}}}"#, nested(20_000)), "invalid_request"),
        (format!(r#"{{"op":"submit","pinId":{}}}"#, nested(20_000)), "invalid_request"),
        (format!(r#"{{"op":"submit","pinId":"A","reference":{}}}"#, objects(10_000)), "invalid_request"),
        (format!(r#"{{"op":"list","limit":{}}}"#, nested(20_000)), "invalid_request"),
        (format!(r#"{{"x":{}}}"#, nested(20_000)), "invalid_request"),
        // Long.
        ("x".repeat(64 * 1024 + 1), "line_too_long"),
        ("x".repeat(70 * 1024), "line_too_long"),
        ("x".repeat(10 * 1024 * 1024), "line_too_long"),
        (with_metadata(&format!("{:?}", "x".repeat(70 * 1024))), "line_too_long"),
        (" ".repeat(100_000), "line_too_long"),
    ];
    let bytes: [(&[u8], _); 4] = [
        (b"\xff\xfe9C81", "invalid_pin_id"),
        (b"9C81\xc3", "invalid_pin_id"),
        (b"{\"op\":\"submit\",\"pinId\":\"\xc3\x28\"}", "invalid_json"),
        (b"{\"op\":\"submit\",\"pinId\":\"A\",\"metadata\":\"\xed\xa0\x80\"}", "invalid_json"),
    ];
    let texts = texts.into_iter().map(|(line, code)| (line.into_bytes(), code));
    texts.chain(bytes.into_iter().map(|(line, code)| (line.to_vec(), code))).collect()
}

fn shown(line: &[u8]) -> String {
    format!("{} bytes, {:?}", line.len(), String::from_utf8_lossy(&line[..line.len().min(60)]))
}

fn nothing_is_in_flight(client: &mut Client) {
    assert_eq!(client.op(&json!({"op": "list"})), json!({"ok": true, "pins": []}));
}

#[test]
fn each_invalid_line_is_answered_with_its_code_and_the_connection_stays_open() {
    let daemon = idle();
    let mut client = daemon.client();
    for (line, expected) in bad_lines() {
        let answer = client.ask(&line);
        assert_eq!(code(&answer), expected, "{}: {answer}", shown(&line));
        // The quoted input is short and has no control characters.
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.len() < 400 && !message.contains('\u{1b}'), "{message}");
        assert_eq!(client.op(&json!({"op": "ping"}))["ok"], true, "after {}", shown(&line));
    }
    nothing_is_in_flight(&mut client);
    assert_eq!(client.submit("A"), "accepted");
}

#[test]
fn valid_and_invalid_lines_of_one_write_are_answered_in_order() {
    let daemon = idle();
    let mut client = daemon.client();
    let lines = bad_lines();
    let mut all = Vec::new();
    for (number, (line, _)) in lines.iter().enumerate() {
        all.extend_from_slice(line);
        all.extend_from_slice(format!("\nPIN-{number}\n").as_bytes());
    }
    client.write(&all);
    for (number, (line, expected)) in lines.iter().enumerate() {
        assert_eq!(code(&client.answer()), *expected, "{}", shown(line));
        let pin = format!("PIN-{number}");
        assert_eq!(client.answer(), json!({"ok": true, "pinId": pin, "state": "accepted"}));
    }
}

#[test]
fn the_longest_line_and_the_longest_pin_id_are_accepted() {
    let daemon = idle();
    let mut client = daemon.client();
    let longest = "x".repeat(128);
    assert_eq!(client.submit(&longest), "accepted");
    assert_eq!(client.op(&json!({"op": "show", "pinId": longest}))["pin"]["pinId"], *longest);
    let head = r#"{"op":"submit","pinId":"B","metadata":""#;
    let line = format!("{head}{}\"}}", "x".repeat(64 * 1024 - head.len() - 2));
    assert_eq!(line.len(), 64 * 1024);
    assert_eq!(client.submit(&line), "accepted");
    let nested = "[".repeat(32) + &"]".repeat(32);
    assert_eq!(client.submit(&format!(r#"{{"op":"submit","pinId":"C","metadata":{nested}}}"#)), "accepted");
}

#[test]
fn a_last_line_without_a_newline_is_refused() {
    let (api, daemon) = polling();
    for line in ["sim-delivered-1", r#"{"op":"submit","pinId":"sim-delivered-1"}"#, "{", "x"] {
        let mut client = daemon.client();
        client.write(format!("{{\"op\":\"ping\"}}\n{line}"));
        client.finish();
        assert_eq!(client.answer()["ok"], true);
        assert_eq!(code(&client.answer()), "invalid_request", "{line}");
        assert_eq!(client.line(), None);
    }
    // Nor one whose writer is gone altogether.
    let mut client = daemon.client();
    client.write("sim-delivered-2");
    drop(client);
    let mut client = daemon.client();
    crate::support::until_true("it is gone", || client.stats()["connections"] == 1);
    nothing_is_in_flight(&mut client);
    for pin in ["sim-delivered-1", "sim-delivered-2", "x"] {
        assert_eq!(code(&client.op(&json!({"op": "show", "pinId": pin}))), "not_found");
    }
    assert_eq!(api.counts().requests, 0);
}

#[test]
fn a_line_that_arrives_in_pieces_is_one_line() {
    let daemon = idle();
    let mut client = daemon.client();
    let mut other = daemon.client();
    for piece in ["{\"op\":\"su", "bmit\",\"pinId\":\"9", "C8", "1\"}"] {
        client.write(piece);
        // By the time that another one is answered, the piece was read or could have been.
        assert_eq!(other.op(&json!({"op": "ping"}))["ok"], true);
    }
    assert_eq!(code(&other.op(&json!({"op": "show", "pinId": "9C81"}))), "not_found");
    client.write("\n");
    assert_eq!(client.answer(), json!({"ok": true, "pinId": "9C81", "state": "accepted"}));
}
