//! Requests and refusals, line by line, and bytes that mean nothing.

use proptest::prelude::*;

use super::*;

fn code(line: impl AsRef<[u8]>) -> &'static str {
    match parse(line.as_ref()) {
        Ok(_) => "ok",
        Err(refusal) => refusal.code.as_str(),
    }
}

#[test]
fn a_bare_pin_id_is_a_submit() {
    for line in ["9C817C6F8AF3D48F9FE553282AFA2B67", " 9C81 ", "9C81\r"] {
        assert!(matches!(parse(line.as_bytes()), Ok(Request::Submit(_))), "{line:?}");
    }
}

#[test]
fn every_op_is_understood() {
    for line in [
        r#"{"op":"submit","pinId":"A","reference":"r","metadata":{"a":[1]},"deadline":"15m","again":true}"#,
        r#"{"op":"submit","pinId":"A","deadline":"1year"}"#,
        r#"{"op":"show","pinId":"A"}"#,
        r#"{"op":"cancel","pinId":"A"}"#,
        r#"{"op":"list"}"#,
        r#"{"op":"list","limit":5,"after":"A"}"#,
        r#"{"op":"wait","pinId":"A","timeout":"5s"}"#,
        r#"{"op":"tail","from":7,"follow":true}"#,
        r#"{"op":"tail","last":7}"#,
        r#"{"op":"dead_letters"}"#,
        r#"{"op":"dead_letters","sink":"hook","pinId":"A","after":"hook/7","limit":3}"#,
        r#"{"op":"dead_letters","from":7,"to":7}"#,
        r#"{"op":"replay","sink":"hook","pinId":"A"}"#,
        r#"{"op":"replay","sink":"hook","from":1,"to":9,"dead":true}"#,
        r#"{"op":"drop","sink":"hook","from":1,"to":9}"#,
        r#"{"op":"forget_sink","sink":"hook"}"#,
        r#"{"op":"stats"}"#,
        r#" { "op" : "ping" } "#,
    ] {
        assert_eq!(code(line), "ok", "{line}");
    }
}

#[test]
fn each_bad_line_has_its_code() {
    let deep =
        format!(r#"{{"op":"submit","pinId":"A","metadata":{}{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    let deeper = format!("{{\"op\":{}", "[".repeat(30_000));
    for (line, expected) in [
        (&b""[..], "invalid_request"),
        (b"   ", "invalid_request"),
        (b"[\"A\"]", "invalid_request"),
        (b"\"A\"", "invalid_request"),
        (b"a b", "invalid_pin_id"),
        (b"a\0b", "invalid_pin_id"),
        (b"..", "invalid_pin_id"),
        (b"\xff\xfe", "invalid_pin_id"),
        (b"{\"op\":\"ping\"", "invalid_json"),
        (b"{op:ping}", "invalid_json"),
        (b"{\"op\":\"ping\"} x", "invalid_json"),
        (b"{\"op\":\"\xff\"}", "invalid_json"),
        (b"{\"op\":\"pi\0ng\"}", "invalid_json"),
        (b"{}", "invalid_request"),
        (b"{\"op\":7}", "invalid_request"),
        (b"{\"op\":\"fly\"}", "unknown_op"),
        (b"{\"op\":\"show\"}", "invalid_request"),
        (b"{\"op\":\"show\",\"pinId\":\"a/b\"}", "invalid_pin_id"),
        (b"{\"op\":\"show\",\"pinId\":\"a\",\"again\":true}", "invalid_request"),
        (b"{\"op\":\"submit\",\"pinId\":\"a\",\"colour\":1}", "invalid_request"),
        (b"{\"op\":\"submit\",\"pinId\":\"a\",\"deadline\":\"15\"}", "invalid_request"),
        (b"{\"op\":\"submit\",\"pinId\":\"a\",\"deadline\":\"0s\"}", "invalid_request"),
        (b"{\"op\":\"submit\",\"pinId\":\"a\",\"deadline\":\"400d\"}", "invalid_request"),
        (b"{\"op\":\"tail\",\"from\":1,\"last\":1}", "invalid_request"),
        (b"{\"op\":\"replay\",\"pinId\":\"A\"}", "invalid_request"),
        (b"{\"op\":\"replay\",\"sink\":\"s\"}", "invalid_request"),
        (b"{\"op\":\"replay\",\"sink\":\"s\",\"from\":9,\"to\":1}", "invalid_request"),
        (b"{\"op\":\"replay\",\"sink\":\"s\",\"from\":1,\"to\":2,\"pinId\":\"A\"}", "invalid_request"),
        (b"{\"op\":\"dead_letters\",\"after\":\"x\"}", "invalid_request"),
        (b"{\"op\":\"dead_letters\",\"from\":1}", "invalid_request"),
        (deep.as_bytes(), "invalid_request"),
        (deeper.as_bytes(), "invalid_request"),
    ] {
        let shown = String::from_utf8_lossy(&line[..line.len().min(60)]);
        assert_eq!(code(line), expected, "{shown}");
    }
}

#[test]
fn metadata_is_kept_to_the_letter_and_its_strings_do_not_count_as_depth() {
    let line =
        format!(r#"{{"op":"submit","pinId":"A","metadata":{{"x":"{}\"[","n":1.50}}}}"#, "[".repeat(99));
    let Ok(Request::Submit(submit)) = parse(line.as_bytes()) else { panic!("refused: {line}") };
    assert!(line.contains(submit.metadata.unwrap().get()));
}

proptest! {
    #[test]
    fn no_bytes_panic(line: Vec<u8>) {
        let _ = parse(&line);
    }

    #[test]
    fn no_text_that_looks_like_a_request_panics(line in r#"\{"op":"(submit|tail|wait)"(,"[a-zA-Z]{1,9}":("[^"]{0,9}"|[0-9e.-]{1,20}|\{|\[|null)){0,4}\}?"#) {
        let _ = parse(line.as_bytes());
    }
}
