//! Tests of every request and refusal, and of random input.

use proptest::prelude::*;

use super::super::request as line_of;
use super::*;

fn refusal(line: impl AsRef<[u8]>) -> Refusal {
    let line = line.as_ref();
    parse(line).expect_err(&String::from_utf8_lossy(line))
}

#[test]
fn a_line_with_only_a_pin_id_is_a_submit() {
    for line in ["9C817C6F8AF3D48F9FE553282AFA2B67", " 9C81 ", "9C81\r"] {
        assert!(matches!(parse(line.as_bytes()), Ok(Request::Submit(_))), "{line:?}");
    }
}

/// Writes a request as a line without its newline.
fn written(request: &Request) -> String {
    let line = match request {
        Request::Submit(request) => line_of(request),
        Request::Show(request) => line_of(request),
        Request::Cancel(request) => line_of(request),
        Request::List(request) => line_of(request),
        Request::Count(request) => line_of(request),
        Request::CancelMatching(request) => line_of(request),
        Request::Wait(request) => line_of(request),
        Request::Tail(request) => line_of(request),
        Request::Stats(request) => line_of(request),
        Request::Schedule(request) => line_of(request),
        Request::Nodes(request) => line_of(request),
        Request::Ping(request) => line_of(request),
        Request::DeadLetters(request) => line_of(request),
        Request::Replay(request) => line_of(request),
        Request::Drop(request) => line_of(request),
        Request::ForgetSink(request) => line_of(request),
    };
    String::from_utf8(line).unwrap().trim_end().to_owned()
}

#[test]
fn every_operation_is_read_back_as_written() {
    for line in [
        r#"{"op":"submit","pinId":"A"}"#,
        r#"{"op":"submit","pinId":"A","reference":"r","metadata":{"a":[1.50]},"deadline":"15m","again":true}"#,
        r#"{"op":"submit","pinId":"A","deadline":"1year"}"#,
        r#"{"op":"show","pinId":"A"}"#,
        r#"{"op":"show","reference":"order-42"}"#,
        r#"{"op":"cancel","pinId":"A"}"#,
        r#"{"op":"list"}"#,
        r#"{"op":"list","limit":5,"after":"A"}"#,
        r#"{"op":"list","filter":{"state":"finished","referencePrefix":"order-4","olderThan":"10m"}}"#,
        r#"{"op":"count","filter":{"reference":"order-42"}}"#,
        r#"{"op":"cancel_matching","filter":{"status":"SENT","newerThan":"1h"},"all":false,"limit":7,"after":"A"}"#,
        r#"{"op":"wait","pinId":"A"}"#,
        r#"{"op":"wait","pinId":"A","timeout":"5s"}"#,
        r#"{"op":"tail","from":7,"follow":true}"#,
        r#"{"op":"tail","from":"p7","follow":true,"positions":true}"#,
        r#"{"op":"tail","last":7,"follow":false}"#,
        r#"{"op":"dead_letters"}"#,
        r#"{"op":"dead_letters","sink":"hook","pinId":"A","after":"hook/7","limit":3}"#,
        r#"{"op":"dead_letters","from":7,"to":7}"#,
        r#"{"op":"replay","sink":"hook","pinId":"A","dead":false}"#,
        r#"{"op":"replay","sink":"hook","from":1,"to":9,"dead":true}"#,
        r#"{"op":"drop","sink":"hook","from":1,"to":9}"#,
        r#"{"op":"forget_sink","sink":"hook"}"#,
        r#"{"op":"stats"}"#,
        r#"{"op":"schedule"}"#,
        r#"{"op":"nodes"}"#,
        r#"{"op":"ping"}"#,
    ] {
        let request = parse(line.as_bytes()).expect(line);
        assert_eq!(written(&request), line);
        // "op" may be at any position, with white space around it.
        let (op, others) = line[1..line.len() - 1].split_once(',').unwrap_or((&line[1..line.len() - 1], ""));
        let comma = if others.is_empty() { "" } else { "," };
        let turned = format!(" {{ {others} {comma} {} }} ", op.replace(':', " : "));
        assert_eq!(written(&parse(turned.as_bytes()).expect(&turned)), line);
    }
    for op in OPERATIONS {
        let line = format!(r#"{{"op":"{op}","colour":1}}"#);
        assert!(refusal(&line).message.contains("unknown field `colour`"), "{:?}", refusal(&line));
    }
}

#[test]
fn each_bad_line_has_its_code() {
    let deep =
        format!(r#"{{"op":"submit","pinId":"A","metadata":{}{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    let deeper = format!("{{\"op\":{}", "[".repeat(30_000));
    for (line, expected) in [
        (&b""[..], Code::InvalidRequest),
        (b"   ", Code::InvalidRequest),
        (b"[\"A\"]", Code::InvalidRequest),
        (b"\"A\"", Code::InvalidRequest),
        (b"a b", Code::InvalidPinId),
        (b"a\0b", Code::InvalidPinId),
        (b"..", Code::InvalidPinId),
        (b"\xff\xfe", Code::InvalidPinId),
        (b"{\"op\":\"ping\"", Code::InvalidJson),
        (b"{op:ping}", Code::InvalidJson),
        (b"{\"op\":\"ping\"} x", Code::InvalidJson),
        (b"{\"op\":\"\xff\"}", Code::InvalidJson),
        (b"{\"op\":\"pi\0ng\"}", Code::InvalidJson),
        (b"{}", Code::InvalidRequest),
        (b"{\"op\":7}", Code::InvalidRequest),
        (b"{\"op\":\"fly\"}", Code::UnknownOp),
        (b"{\"op\":\"show\"}", Code::InvalidRequest),
        (b"{\"op\":\"show\",\"pinId\":\"a\",\"reference\":\"r\"}", Code::InvalidRequest),
        (b"{\"op\":\"show\",\"pinId\":\"a/b\"}", Code::InvalidPinId),
        (b"{\"op\":\"show\",\"pinId\":\"a\",\"pinId\":\"b\"}", Code::InvalidRequest),
        (b"{\"op\":\"show\",\"op\":\"show\",\"pinId\":\"a\"}", Code::InvalidRequest),
        (b"{\"op\":\"show\",\"pinId\":\"a\",\"again\":true}", Code::InvalidRequest),
        (b"{\"op\":\"submit\",\"pinId\":\"a\",\"deadline\":\"15\"}", Code::InvalidRequest),
        (b"{\"op\":\"submit\",\"pinId\":\"a\",\"deadline\":\"0s\"}", Code::InvalidRequest),
        (b"{\"op\":\"submit\",\"pinId\":\"a\",\"deadline\":\"400d\"}", Code::InvalidRequest),
        (b"{\"op\":\"replay\",\"pinId\":\"A\"}", Code::InvalidRequest),
        (deep.as_bytes(), Code::InvalidRequest),
        (deeper.as_bytes(), Code::InvalidJson),
    ] {
        let shown = String::from_utf8_lossy(&line[..line.len().min(60)]);
        assert_eq!(refusal(line).code, expected, "{shown}");
    }
}

#[test]
fn a_refusal_names_the_field_and_what_is_wrong_with_it() {
    for (line, message) in [
        (r#"{"op":"show"}"#, r#"show: give "pinId" or "reference", and not both"#),
        (r#"{"op":"list","after":"A","limit":"x"}"#, r#""limit": invalid type: string "x", expected u32"#),
        (r#"{"limit":-1,"op":"list"}"#, r#""limit": invalid value: integer `-1`, expected u32"#),
        (r#"{"op":"show","pinId":7}"#, r#""pinId": invalid type: integer `7`, expected a PIN ID"#),
        (
            r#"{"op":"show","pinId":"A","again":true}"#,
            r#""again": unknown field `again`, expected `pinId` or `reference`"#,
        ),
        (r#"{"op":"ping","pinId":"A"}"#, r#""pinId": unknown field `pinId`, there are no fields"#),
        (
            r#"{"op":"cancel_matching","filter":{"status":1}}"#,
            r#""filter.status": invalid type: integer `1`, expected a string"#,
        ),
        (
            r#"{"op":"count","filter":{"state":1}}"#,
            r#""filter.state": invalid type: integer `1`, expected a string"#,
        ),
        (
            r#"{"op":"list","filter":{"olderThan":"10"}}"#,
            r#""filter.olderThan": "10" is neither an age, such as 30s, 10m or 2h, nor a time, such as 2026-11-28T14:00:00Z"#,
        ),
        (
            r#"{"op":"count","filter":["in_flight"]}"#,
            r#""filter": invalid type: sequence, expected an object"#,
        ),
        (r#"{"op":"count","filter":null}"#, r#""filter": invalid type: null, expected an object"#),
        (r#"{"op":"count","of":{"outcomes":null}}"#, r#""of": invalid type: map, expected a string"#),
        (r#"{"op":"count","of":"pins"}"#, r#""of": must be in_flight, outcomes or dead_letters"#),
        (r#"{"op":"ping","op":"stats"}"#, r#""op" is given twice"#),
        (r#"{"op":"tail","from":[]}"#, r#""from": a seq, or what an answer gave as "position""#),
        (
            r#"{"op":"wait","pinId":"A","timeout":"15"}"#,
            r#""timeout": "15" is not a duration with its unit, such as 30s, 10m or 2h"#,
        ),
        (
            r#"{"op":"submit","pinId":"A","deadline":"0s"}"#,
            r#""deadline": a deadline is more than 0 and at most 1year (365.25 days)"#,
        ),
    ] {
        assert_eq!(refusal(line).message, message, "{line}");
    }
    let nested = |depth| {
        format!(r#"{{"op":"submit","pinId":"A","metadata":{}{}}}"#, "[".repeat(depth), "]".repeat(depth))
    };
    assert!(parse(nested(32).as_bytes()).is_ok());
    assert_eq!(refusal(nested(33)).message, r#""metadata": metadata is nested at most 32 deep"#);
    assert!(refusal(r#"{"op":"fly"}"#).message.contains("ping, dead_letters"));
}

#[test]
fn a_field_that_is_null_counts_as_missing() {
    for (line, same) in [
        (
            r#"{"op":"submit","pinId":"A","reference":null,"metadata":null,"deadline":null,"again":null}"#,
            r#"{"op":"submit","pinId":"A"}"#,
        ),
        (r#"{"op":"wait","pinId":"A","timeout":null}"#, r#"{"op":"wait","pinId":"A"}"#),
        (r#"{"op":"list","limit":null,"after":null}"#, r#"{"op":"list"}"#),
        (
            r#"{"op":"tail","from":null,"last":null,"follow":null,"positions":null}"#,
            r#"{"op":"tail","follow":false}"#,
        ),
        (
            r#"{"op":"replay","sink":"s","pinId":"A","from":null,"to":null,"dead":null}"#,
            r#"{"op":"replay","sink":"s","pinId":"A","dead":false}"#,
        ),
    ] {
        assert_eq!(written(&parse(line.as_bytes()).expect(line)), same);
    }
}

#[test]
fn metadata_is_kept_unchanged_and_brackets_in_strings_do_not_count_as_depth() {
    let line =
        format!(r#"{{"op":"submit","pinId":"A","metadata":{{"x":"{}\"[","n":1.50}}}}"#, "[".repeat(99));
    let Ok(Request::Submit(submit)) = parse(line.as_bytes()) else { panic!("refused: {line}") };
    assert!(line.contains(submit.metadata.unwrap().get()));
}

proptest! {
    #[test]
    fn no_line_of_bytes_causes_a_panic(line: Vec<u8>) {
        let _ = parse(&line);
    }

    #[test]
    fn no_text_that_looks_like_a_request_causes_a_panic(line in r#"\{"op":"(submit|tail|wait)"(,"[a-zA-Z]{1,9}":("[^"]{0,9}"|[0-9e.-]{1,20}|\{|\[|null)){0,4}\}?"#) {
        let _ = parse(line.as_bytes());
    }
}
