//! What an endpoint's answer means: delivered, refused for good, or later.
//!
//! Pure, "now" is an argument. Promises one of the three for every status there is, waits within
//! [`SHORTEST`](crate::poll::SHORTEST) and [`LONGEST`](crate::poll::LONGEST), and error texts of one bounded
//! line without control characters. Silence is never success. Knows no connection, and not what follows.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::StatusCode;

use crate::poll::error_text::named;
use crate::poll::retry_after::retry_after;
use crate::text::bounded;

/// How much of a body is read for the error text, in bytes.
pub const MAX_BODY: usize = 4096;

/// How much of that is told, in characters.
const MAX_TEXT: usize = 256;

/// What became of one try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The receiver has it.
    Delivered,
    /// The receiver will never take it: a dead letter.
    Refused(String),
    /// It may take it at another time.
    Later { error: String, wait: Wait },
}

/// How long the endpoint asked to be left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It did not.
    Unsaid,
    /// With these outcomes.
    ThisOne(Duration),
    /// With everything: it is overloaded, or we ask too much of it.
    Everything(Duration),
}

impl Answer {
    /// A try that got no answer.
    pub fn none(error: impl Into<String>) -> Self {
        Self::Later { error: error.into(), wait: Wait::Unsaid }
    }

    /// What an answer with this status, `Retry-After` and beginning of a body means.
    pub fn of(status: StatusCode, after: Option<&[u8]>, body: &[u8], now: Timestamp) -> Self {
        let asked = || retry_after(after, now);
        let wait = match status.as_u16() {
            200..=299 => return Self::Delivered,
            429 => Wait::Everything(asked()),
            503 if after.is_some() => Wait::Everything(asked()),
            // Timed out, in conflict with something else that goes on, or too early: another try may do.
            408 | 409 | 425 => this_one(after.map(|_| asked())),
            400..=499 => return Self::Refused(error_text(status, body)),
            // Redirects are not followed: the URL is whom the operator trusts. Whoever moved it may move it back.
            _ => this_one(after.map(|_| asked())),
        };
        Self::Later { error: error_text(status, body), wait }
    }
}

fn this_one(asked: Option<Duration>) -> Wait {
    asked.map_or(Wait::Unsaid, Wait::ThisOne)
}

/// `404 Not Found: no such hook`; pages for people are left out.
fn error_text(status: StatusCode, body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body.get(..MAX_BODY).unwrap_or(body));
    let said = bounded(&body, MAX_TEXT);
    match said.is_empty() || said.starts_with('<') {
        true => named(status),
        false => format!("{}: {said}", named(status)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(status: u16, after: Option<&str>, body: &str) -> Answer {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        Answer::of(StatusCode::from_u16(status).unwrap(), after.map(str::as_bytes), body.as_bytes(), now)
    }

    #[test]
    fn every_status_is_delivered_refused_or_later() {
        use Wait::{Everything, ThisOne, Unsaid};
        let secs = Duration::from_secs;
        let refused = |error: &str| Answer::Refused(error.to_owned());
        let later = |error: &str, wait| Answer::Later { error: error.to_owned(), wait };
        for (status, after, expected) in [
            (200, None, Answer::Delivered),
            (201, Some("30"), Answer::Delivered),
            (202, None, Answer::Delivered),
            (204, None, Answer::Delivered),
            (299, None, Answer::Delivered),
            (301, None, later("301 Moved Permanently", Unsaid)),
            (302, Some("30"), later("302 Found", ThisOne(secs(30)))),
            (304, None, later("304 Not Modified", Unsaid)),
            (308, None, later("308 Permanent Redirect", Unsaid)),
            (400, None, refused("400 Bad Request")),
            (401, None, refused("401 Unauthorized")),
            (403, None, refused("403 Forbidden")),
            (404, Some("30"), refused("404 Not Found")),
            (408, None, later("408 Request Timeout", Unsaid)),
            (408, Some("30"), later("408 Request Timeout", ThisOne(secs(30)))),
            (409, None, later("409 Conflict", Unsaid)),
            (410, None, refused("410 Gone")),
            (413, None, refused("413 Payload Too Large")),
            (422, None, refused("422 Unprocessable Entity")),
            (425, None, later("425 Too Early", Unsaid)),
            (429, None, later("429 Too Many Requests", Everything(secs(1)))),
            (429, Some("30"), later("429 Too Many Requests", Everything(secs(30)))),
            (
                429,
                Some("Fri, 02 Jan 2026 03:05:05 GMT"),
                later("429 Too Many Requests", Everything(secs(60))),
            ),
            (429, Some("9999999"), later("429 Too Many Requests", Everything(secs(3600)))),
            (499, None, refused("499")),
            (500, None, later("500 Internal Server Error", Unsaid)),
            (500, Some("30"), later("500 Internal Server Error", ThisOne(secs(30)))),
            (502, None, later("502 Bad Gateway", Unsaid)),
            (503, None, later("503 Service Unavailable", Unsaid)),
            (503, Some("30"), later("503 Service Unavailable", Everything(secs(30)))),
            (503, Some("soon"), later("503 Service Unavailable", Everything(secs(1)))),
            (504, None, later("504 Gateway Timeout", Unsaid)),
            (599, None, later("599", Unsaid)),
            (999, None, later("999", Unsaid)),
            (101, None, later("101 Switching Protocols", Unsaid)),
        ] {
            assert_eq!(answer(status, after, ""), expected, "{status} with Retry-After {after:?}");
        }
    }

    #[test]
    fn what_the_endpoint_says_is_told_in_one_harmless_line() {
        for (body, expected) in [
            ("no such hook", "404 Not Found: no such hook"),
            ("{\"error\":\"bad\"}", "404 Not Found: {\"error\":\"bad\"}"),
            (" a\r\nb\u{1b}[2Jc ", "404 Not Found: a b [2Jc"),
            (" \n", "404 Not Found"),
            ("<html>Oh no</html>", "404 Not Found"),
        ] {
            assert_eq!(answer(404, None, body), Answer::Refused(expected.to_owned()), "{body:?}");
        }
        let Answer::Refused(long) = answer(404, None, &"x".repeat(100_000)) else { panic!() };
        assert!(long.chars().count() < 300 && long.ends_with('…'));
    }

    proptest! {
        #[test]
        fn no_answer_breaks_out_of_its_bounds(status in 100u16..1000, after: Option<Vec<u8>>, body: Vec<u8>) {
            let status = StatusCode::from_u16(status).unwrap();
            match Answer::of(status, after.as_deref(), &body, Timestamp::UNIX_EPOCH) {
                Answer::Delivered => prop_assert!(status.is_success()),
                Answer::Refused(error) => {
                    prop_assert!(status.is_client_error());
                    prop_assert!(!error.chars().any(char::is_control) && error.chars().count() < 320);
                }
                Answer::Later { error, wait } => {
                    prop_assert!(!status.is_success() && !error.chars().any(char::is_control));
                    if let Wait::ThisOne(wait) | Wait::Everything(wait) = wait {
                        prop_assert!((1..=3600).contains(&wait.as_secs()));
                    }
                }
            }
        }
    }
}
