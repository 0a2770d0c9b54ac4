//! Classifies an endpoint's answer: delivered, refused, or later.
//!
//! Promises one of the three for every status code, waits within the bounds of [`retry_after`], and texts of one
//! bounded line without control characters. Pure: the current time is an argument. Must not know connections or what
//! follows from an answer.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::StatusCode;

use super::advice;
use crate::http_client::named;
use crate::http_client::retry_after::retry_after;
use crate::text::bounded;

/// The most characters of a receiver's text that are kept.
const MAX_TEXT: usize = 256;

/// The result of one try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The receiver has the outcomes.
    Delivered,
    /// The receiver refuses the request (4xx).
    Refused(Failure),
    /// The receiver may accept the request later. It may have seen it.
    Later { failure: Failure, wait: Wait },
    /// The receiver did not process the request: there was no connection, or the server said so.
    Unprocessed(Failure),
    /// No request can be made of the outcomes.
    Unsendable(String),
}

/// Why a try did not deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The status code or the kind of the failure, and advice, without any of the receiver's text.
    pub summary: String,
    /// The summary, and the receiver's text.
    pub text: String,
}

/// The pause that the endpoint asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It asked for none.
    Unsaid,
    /// Before these outcomes are sent again.
    ThisOne(Duration),
    /// Before anything is sent: the endpoint is overloaded, or its rate limit is reached.
    Everything(Duration),
}

impl From<String> for Failure {
    /// A failure without a text from the receiver.
    fn from(summary: String) -> Self {
        Self { text: summary.clone(), summary }
    }
}

impl Answer {
    /// The result of a try that got no answer.
    pub fn none(why: impl Into<String>) -> Self {
        Self::Later { failure: Failure::from(why.into()), wait: Wait::Unsaid }
    }

    /// Classifies an answer with this status, `Retry-After` and body; `said` is the receiver's text, without secrets.
    pub fn of(
        status: StatusCode,
        after: Option<&[u8]>,
        body: &[u8],
        said: Option<&str>,
        now: Timestamp,
    ) -> Self {
        let asked = || retry_after(after, now);
        let failure = || failure(status, body, said);
        let wait = match status.as_u16() {
            200..=299 => return Self::Delivered,
            429 => Wait::Everything(asked()),
            503 if after.is_some() => Wait::Everything(asked()),
            // These concern the connection, a proxy or the moment, and not the outcome: another try may succeed.
            407 | 408 | 409 | 421 | 425 | 426 | 431 => this_one(after.map(|_| asked())),
            400..=499 => return Self::Refused(failure()),
            // Redirects are not followed: the operator trusts only this URL.
            _ => this_one(after.map(|_| asked())),
        };
        Self::Later { failure: failure(), wait }
    }
}

fn this_one(asked: Option<Duration>) -> Wait {
    asked.map_or(Wait::Unsaid, Wait::ThisOne)
}

/// `404 Not Found: no such hook`; HTML pages are left out.
fn failure(status: StatusCode, body: &[u8], said: Option<&str>) -> Failure {
    let summary = match advice::on_answer(status, body) {
        Some(advice) => format!("{} ({advice})", named(status)),
        None => named(status),
    };
    let said = bounded(said.unwrap_or_default(), MAX_TEXT);
    match said.is_empty() || said.starts_with('<') {
        true => Failure::from(summary),
        false => Failure { text: format!("{summary}: {said}"), summary },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(status: u16, after: Option<&str>, body: &str) -> Answer {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let status = StatusCode::from_u16(status).unwrap();
        Answer::of(status, after.map(str::as_bytes), body.as_bytes(), Some(body), now)
    }

    #[test]
    fn every_http_status_means_delivered_refused_or_later() {
        use Wait::{Everything, ThisOne, Unsaid};
        let secs = Duration::from_secs;
        let refused = |error: &str| Answer::Refused(error.to_owned().into());
        let later = |error: &str, wait| Answer::Later { failure: error.to_owned().into(), wait };
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
            (401, None, refused("401 Unauthorized (check secret and headers)")),
            (403, None, refused("403 Forbidden (check secret and headers)")),
            (404, Some("30"), refused("404 Not Found")),
            (408, None, later("408 Request Timeout", Unsaid)),
            (408, Some("30"), later("408 Request Timeout", ThisOne(secs(30)))),
            (409, None, later("409 Conflict", Unsaid)),
            (410, None, refused("410 Gone")),
            (407, None, later("407 Proxy Authentication Required", Unsaid)),
            (421, None, later("421 Misdirected Request", Unsaid)),
            (426, None, later("426 Upgrade Required", Unsaid)),
            (431, None, later("431 Request Header Fields Too Large", Unsaid)),
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
    fn the_answer_of_an_endpoint_is_quoted_in_one_line_without_control_characters() {
        for (body, expected) in [
            ("no such hook", "404 Not Found: no such hook"),
            ("{\"error\":\"bad\"}", "404 Not Found: {\"error\":\"bad\"}"),
            (" a\r\nb\u{1b}[2Jc ", "404 Not Found: a b [2Jc"),
            (" \n", "404 Not Found"),
            ("<html>Oh no</html>", "404 Not Found"),
        ] {
            let failure = Failure { summary: "404 Not Found".to_owned(), text: expected.to_owned() };
            assert_eq!(answer(404, None, body), Answer::Refused(failure), "{body:?}");
        }
        let Answer::Refused(long) = answer(404, None, &"x".repeat(100_000)) else { panic!() };
        assert!(long.text.chars().count() < 300 && long.text.ends_with('…'));
    }

    proptest! {
        #[test]
        fn any_answer_makes_one_bounded_line_and_a_wait_of_at_most_an_hour(status in 100u16..1000, after: Option<Vec<u8>>, said: Option<String>) {
            let status = StatusCode::from_u16(status).unwrap();
            let harmless = |text: &str| !text.chars().any(char::is_control) && text.chars().count() < 320;
            let body = said.as_deref().unwrap_or_default().as_bytes();
            match Answer::of(status, after.as_deref(), body, said.as_deref(), Timestamp::UNIX_EPOCH) {
                Answer::Delivered => prop_assert!(status.is_success()),
                Answer::Refused(failure) => {
                    prop_assert!(status.is_client_error());
                    prop_assert!(harmless(&failure.text));
                }
                Answer::Later { failure, wait } => {
                    prop_assert!(!status.is_success() && harmless(&failure.text));
                    if let Wait::ThisOne(wait) | Wait::Everything(wait) = wait {
                        prop_assert!((1..=3600).contains(&wait.as_secs()));
                    }
                }
                Answer::Unprocessed(_) | Answer::Unsendable(_) => prop_assert!(false, "it was answered"),
            }
        }
    }
}
