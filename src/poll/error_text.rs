//! What an answer that is no 200 says for itself, as one short text for a record or a log line.
//!
//! Pure. Reads both shapes of the API's error bodies, and falls back on the status code's own name for what
//! proxies send. The text is bounded and has no control characters: it ends up on terminals and in journals,
//! and whoever can write an error body must not be able to write there.

use reqwest::StatusCode;
use serde_json::Value;

/// The longest text, in characters.
pub const MAX_TEXT: usize = 512;

/// `400 Bad Request: BAD_REQUEST: Invalid argument`, or only as much of it as the answer has.
pub(super) fn error_text(status: StatusCode, body: &[u8]) -> String {
    let name = named(status);
    match said(body) {
        Some(said) => harmless(&format!("{name}: {said}")),
        None => name,
    }
}

/// `404 Not Found`; for a code that has no name, `599`.
pub(super) fn named(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_str()),
        None => status.as_str().to_owned(),
    }
}

/// What a body says in one of the API's error shapes, else its plain text; nothing for HTML, for JSON of
/// another shape, and for an empty one.
pub(super) fn said(body: &[u8]) -> Option<String> {
    let text = str::from_utf8(body).ok()?.trim();
    match text.bytes().next()? {
        b'{' => said_in_json(&serde_json::from_str(text).ok()?),
        // HTML or XML, and JSON that is no object.
        b'<' | b'[' | b'"' => None,
        _ => Some(harmless(text)).filter(|text| !text.is_empty()),
    }
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

/// A field's string or number, if it says anything.
fn word(object: &Value, field: &str) -> Option<String> {
    match object.get(field)? {
        Value::String(text) => Some(harmless(text)).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The text in one line of at most [`MAX_TEXT`] characters.
pub(super) fn harmless(text: &str) -> String {
    bounded(text, MAX_TEXT)
}

/// The text in one line of at most `limit` characters, `…` at its end where it was cut. Control characters
/// and those that turn the direction of writing count as white space; runs of that become one space.
pub(super) fn bounded(text: &str, limit: usize) -> String {
    let is_gap = |c: char| c.is_whitespace() || c.is_control() || turns_direction(c);
    let mut line = String::with_capacity(text.len().min(limit));
    let mut left = limit;
    for word in text.split(is_gap).filter(|word| !word.is_empty()) {
        for c in (!line.is_empty()).then_some(' ').into_iter().chain(word.chars()) {
            if left == 0 {
                line.pop();
                line.push('…');
                return line;
            }
            line.push(c);
            left -= 1;
        }
    }
    line
}

/// Unicode's bidirectional controls, which can make a terminal show another text than the one that is there.
fn turns_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}
