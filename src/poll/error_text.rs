//! Turns an answer other than 200 into one short text for a record or a log line.
//!
//! Promises a bounded text without control characters: it reaches terminals and journals, and an error body must not control
//! them. Reads both shapes of the API's error bodies, and falls back on the status code's name for what proxies send. Pure. Must
//! not know what follows from an error.

use reqwest::StatusCode;
use serde_json::Value;

use crate::http_client::{harmless, named};

/// `400 Bad Request: BAD_REQUEST: Invalid argument`, or the part of it that the answer contains.
pub(super) fn error_text(status: StatusCode, body: &[u8]) -> String {
    let name = named(status);
    match said(body) {
        Some(said) => harmless(&format!("{name}: {said}")),
        None => name,
    }
}

/// The message of a body in one of the API's error shapes, else its plain text; nothing for HTML, for JSON of another shape, and
/// for an empty body.
pub(super) fn said(body: &[u8]) -> Option<String> {
    let text = str::from_utf8(body).ok()?.trim();
    match text.bytes().next()? {
        b'{' => said_in_json(&serde_json::from_str(text).ok()?),
        // HTML or XML, and JSON that is no object.
        b'<' | b'[' | b'"' => None,
        _ => Some(harmless(text)).filter(|text| !text.is_empty()),
    }
}

/// The message of a body in the error shapes of other APIs: `message` (Twilio, Sinch), `error_text` (Vonage), or `detail` and
/// `title` (RFC 9457). Nothing for a body that [`said`] reads.
pub(super) fn said_by_others(body: &[u8]) -> Option<String> {
    if said(body).is_some() {
        return None;
    }
    let body: Value = serde_json::from_slice(body).ok()?;
    ["message", "error_text", "detail", "title"].into_iter().find_map(|field| word(&body, field))
}

fn said_in_json(body: &Value) -> Option<String> {
    let exception = ["serviceException", "policyException"]
        .into_iter()
        .find_map(|kind| body.get("requestError")?.get(kind))
        .filter(|exception| exception.is_object());
    let (code, text) = match exception {
        Some(exception) => (word(exception, "messageId"), word(exception, "text")),
        None => (word(body, "errorCode"), word(body, "description")),
    };
    let mut parts: Vec<String> = [code, text].into_iter().flatten().collect();
    if exception.is_none() && !parts.is_empty() {
        parts.extend(violations(body));
    }
    Some(harmless(&parts.join(": "))).filter(|text| !text.is_empty())
}

/// The violations of the flat shape, such as `pinId must match "[0-9A-F]+"`; at most four.
fn violations(body: &Value) -> Option<String> {
    let violations: Vec<String> = body
        .get("violations")?
        .as_array()?
        .iter()
        .take(4)
        .filter_map(|violation| match (word(violation, "property"), word(violation, "violation")) {
            (Some(property), Some(violation)) => Some(format!("{property} {violation}")),
            (None, said) | (said, None) => said,
        })
        .collect();
    Some(violations.join("; ")).filter(|text| !text.is_empty())
}

/// A field's string or number, unless it is empty.
fn word(object: &Value, field: &str) -> Option<String> {
    match object.get(field)? {
        Value::String(text) => Some(harmless(text)).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http_client::MAX_TEXT;

    fn text(body: &str) -> String {
        error_text(StatusCode::BAD_REQUEST, body.as_bytes())
    }

    #[test]
    fn both_error_shapes_of_the_api_are_read() {
        for (body, expected) in [
            (
                r#"{"requestError":{"serviceException":{"messageId":"BAD_REQUEST","text":"Invalid pinId"}}}"#,
                "400 Bad Request: BAD_REQUEST: Invalid pinId",
            ),
            (
                r#"{"requestError":{"policyException":{"messageId":"POL0001","text":"A policy error"}}}"#,
                "400 Bad Request: POL0001: A policy error",
            ),
            (r#"{"requestError":{"serviceException":{"text":"Only text"}}}"#, "400 Bad Request: Only text"),
            (
                r#"{"errorCode":"E400","description":"Bad","action":"Check","violations":[],"resources":[]}"#,
                "400 Bad Request: E400: Bad",
            ),
            (
                r#"{"errorCode":400,"violations":[{"property":"pinId","violation":"is too short"},{"violation":"no"}]}"#,
                "400 Bad Request: 400: pinId is too short; no",
            ),
        ] {
            assert_eq!(text(body), expected);
        }
    }

    #[test]
    fn a_body_without_a_message_is_described_by_its_status_code() {
        for body in [
            "",
            " \n",
            "<html><h1>Nope</h1></html>",
            "{}",
            "{",
            "[1]",
            r#""x""#,
            r#"{"requestError":null}"#,
            r#"{"requestError":{"serviceException":"x"}}"#,
            r#"{"errorCode":null,"description":{}}"#,
            r#"{"unrelated":"x"}"#,
        ] {
            assert_eq!(text(body), "400 Bad Request", "{body}");
        }
        assert_eq!(error_text(StatusCode::BAD_GATEWAY, b"\xff\xfe"), "502 Bad Gateway");
        assert_eq!(error_text(StatusCode::from_u16(599).unwrap(), b""), "599");
    }

    #[test]
    fn plain_text_of_a_proxy_is_kept() {
        assert_eq!(text(" upstream connect\r\n error "), "400 Bad Request: upstream connect error");
    }

    #[test]
    fn error_texts_lose_control_characters_and_are_cut_to_the_maximum_length() {
        let body = r#"{"errorCode":"E\u001b[2J","description":"a\r\n\u0000level=error\u202eb\u0085c"}"#;
        assert_eq!(text(body), "400 Bad Request: E [2J: a level=error b c");
        let long = text(&"x".repeat(10_000));
        assert_eq!((long.chars().count(), long.ends_with("x…")), (MAX_TEXT, true));
    }

    proptest! {
        #[test]
        fn any_body_makes_one_bounded_line_without_control_characters(body: Vec<u8>, text: String) {
            for text in [error_text(StatusCode::BAD_REQUEST, &body), error_text(StatusCode::BAD_REQUEST, text.as_bytes())] {
                prop_assert!(text.chars().count() <= MAX_TEXT);
                prop_assert!(!text.chars().any(char::is_control));
            }
        }
    }
}
