//! Classifies an answer as one pure function: what each answer means is in `docs/operations.md`, "What ends a PIN".
//!
//! Promises a [`Meaning`] for every answer. Knows status codes, headers and bodies; must not know the network, the clock or the
//! schedule.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{DATE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{StatusCode, Url};

use super::error_text::{error_text, said, said_by_others};
use super::{answer, mapped};
use crate::config::Answer;
use crate::http_client::retry_after::{http_date, retry_after};
use crate::http_client::{harmless, named};
use crate::outcome::{self, Delivery};

/// The result of one poll, whatever the API, a proxy or the network did. Each text is one short line without control characters
/// or secrets.
#[derive(Debug, Clone, PartialEq)]
pub enum Meaning {
    /// 200 and understood; of very many deliveries, those that [`outcome::kept`] keeps. Empty if nothing is known yet.
    Deliveries(Vec<Delivery>),
    /// 200, but unreadable, too large or cut off; the text says why. Also any other success, whose deliveries could not be
    /// trusted.
    Unreadable(String),
    /// 400 and other 4xx: the API refuses this PIN; the text is the API's.
    Rejected(String),
    /// 401, 403: the credentials are wrong, or may not read this PIN; the schedule finds out which (`core/credentials.rs`).
    Unauthorized(u16),
    /// 404
    NotFound,
    /// 429: not before this long from now; between a second and an hour.
    Throttled(Duration),
    /// 5xx, connect, TLS, DNS, time-out; the text says which. Also redirects, which are not followed, 407, which comes from a
    /// proxy, and 408, 421, 425, 426 and 431, which concern the connection or the request: the PIN causes none of them.
    Unavailable(String),
    /// No request was sent, because this machine has no file descriptor, memory, port or resolver for it; the text says which.
    /// Says nothing about the API or the PIN.
    NotSent(String),
}

impl Meaning {
    /// Whether a PIN may end by this answer alone. A refusal must be repeated on other connections.
    pub(super) fn may_end(&self) -> bool {
        matches!(self, Self::Deliveries(deliveries) if deliveries.iter().any(|delivery| delivery.final_status))
    }

    /// The meaning of an answer. `[api.answer]` describes it, or it is the default preset's. `body` is the whole
    /// decompressed body, or what went wrong while it was read; `now` is the wall time, for a `Retry-After` that is a date.
    ///
    /// If the status code alone decides, a body that could not be read makes no difference.
    pub fn of(
        described: Option<&Answer>,
        status: StatusCode,
        headers: &HeaderMap,
        body: Result<&[u8], &str>,
        now: Timestamp,
    ) -> Self {
        let text = || {
            let body = body.unwrap_or_default();
            let of_others = described.and_then(|_| said_by_others(body));
            of_others.map_or_else(
                || error_text(status, body),
                |said| harmless(&format!("{}: {said}", named(status))),
            )
        };
        match status.as_u16() {
            200 => match body {
                Ok(body) => deliveries(described, body),
                Err(fault) => Self::Unreadable(harmless(fault)),
            },
            100..=299 => Self::Unreadable(format!("{} where 200 was due", named(status))),
            300..=399 => Self::Unavailable(redirect(status, headers)),
            401 | 403 => Self::Unauthorized(status.as_u16()),
            404 => Self::NotFound,
            429 => Self::Throttled(throttled(headers, now)),
            407 | 408 | 421 | 425 | 426 | 431 => Self::Unavailable(text()),
            400..=499 => Self::Rejected(text()),
            _ => Self::Unavailable(text()),
        }
    }
}

fn deliveries(described: Option<&Answer>, body: &[u8]) -> Meaning {
    let read = match described {
        None => answer::deliveries(body),
        Some(described) => mapped::deliveries(described, body),
    };
    match read {
        Ok(deliveries) => Meaning::Deliveries(outcome::kept(deliveries)),
        Err(fault) => Meaning::Unreadable(match said(body) {
            // Some gateways send 200 with the error in the body; the error is then the useful text.
            Some(said) => harmless(&format!("{fault}; it says: {said}")),
            None => fault,
        }),
    }
}

/// The wait of a 429. A date is compared with the server's own `Date` if it sends one: our clock may be wrong, but the difference
/// between the two headers is right.
fn throttled(headers: &HeaderMap, now: Timestamp) -> Duration {
    let now = headers.get(DATE).and_then(|date| http_date(date.as_bytes())).unwrap_or(now);
    retry_after(headers.get(RETRY_AFTER).map(|value| value.as_bytes()), now)
}

/// `302 Found: redirects are not followed (to https://login.example)`: only scheme, host and port of the target, because the rest
/// may contain tokens.
fn redirect(status: StatusCode, headers: &HeaderMap) -> String {
    let target = headers
        .get(LOCATION)
        .and_then(|location| location.to_str().ok())
        .and_then(|location| Url::parse(location).ok())
        .filter(Url::has_host)
        .map(|target| format!(" (to {})", target.origin().ascii_serialization()))
        .unwrap_or_default();
    harmless(&format!("{}: redirects are not followed{target}", named(status)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::HeaderName;

    use super::*;
    use crate::outcome::Status;

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    fn of(code: u16, headers: &[(HeaderName, &str)], body: Result<&str, &str>) -> Meaning {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        Meaning::of(None, StatusCode::from_u16(code).unwrap(), &headers, body.map(str::as_bytes), now())
    }

    fn exception(id: &str) -> String {
        format!(r#"{{"requestError":{{"serviceException":{{"messageId":"{id}","text":"Some text"}}}}}}"#)
    }

    fn unavailable(text: &str) -> Meaning {
        Meaning::Unavailable(text.to_owned())
    }

    #[test]
    fn every_documented_status_is_read_with_its_final_by_table() {
        let sms = crate::outcome::SmsStatus::ALL.iter().copied().map(Status::Sms);
        let calls = crate::outcome::CallStatus::ALL.iter().copied().map(Status::Call);
        for status in sms.chain(calls) {
            let delivery = Delivery {
                description: status.description().map(Into::into),
                final_status: status.is_final_by_table(),
                status: status.clone(),
            };
            let body = format!(r#"[{{"status":"{status}"}}]"#);
            assert_eq!(of(200, &[], Ok(&body)), Meaning::Deliveries(vec![delivery]));
        }
    }

    #[test]
    fn a_200_that_is_not_understood_is_unreadable() {
        assert_eq!(of(200, &[], Ok("[]")), Meaning::Deliveries(vec![]));
        for (body, fault) in [
            (Ok(""), "empty"),
            (Ok("<html>"), "expected value"),
            (Ok(r#"[{"status":"#), "EOF"),
            (Err("the body is over 64 KiB"), "over 64 KiB"),
            (Err("the body is cut off"), "cut off"),
        ] {
            let Meaning::Unreadable(text) = of(200, &[], body) else { panic!("{body:?}") };
            assert!(text.contains(fault), "{text}");
        }
    }

    #[test]
    fn an_error_inside_a_200_is_unreadable_and_is_named() {
        let Meaning::Unreadable(text) = of(200, &[], Ok(&exception("GENERAL_ERROR"))) else { panic!() };
        assert!(text.ends_with("it says: GENERAL_ERROR: Some text"), "{text}");
    }

    #[test]
    fn a_success_other_than_200_is_unreadable() {
        for code in [101, 201, 202, 204, 206] {
            let Meaning::Unreadable(text) = of(code, &[], Ok("[]")) else { panic!("{code}") };
            assert!(text.starts_with(&code.to_string()), "{text}");
        }
    }

    #[test]
    fn a_redirect_is_unavailable_and_names_only_the_targets_origin() {
        let target = "https://user:hunter2@login.example:8443/path?token=hunter2#x";
        assert_eq!(
            of(302, &[(LOCATION, target)], Ok("")),
            unavailable("302 Found: redirects are not followed (to https://login.example:8443)")
        );
        for location in ["/elsewhere", "data:hunter2", "http://", ""] {
            assert_eq!(
                of(308, &[(LOCATION, location)], Ok("")),
                unavailable("308 Permanent Redirect: redirects are not followed")
            );
        }
        assert_eq!(of(304, &[], Ok("")), unavailable("304 Not Modified: redirects are not followed"));
    }

    #[test]
    fn a_4xx_answer_rejects_the_pin_with_the_apis_text() {
        assert_eq!(
            of(400, &[], Ok(&exception("BAD_REQUEST"))),
            Meaning::Rejected("400 Bad Request: BAD_REQUEST: Some text".into())
        );
        for code in [400, 402, 405, 406, 409, 410, 414, 415, 422, 451, 499] {
            for body in [Ok("<html>"), Ok(""), Err("the body is cut off")] {
                let Meaning::Rejected(text) = of(code, &[], body) else { panic!("{code} {body:?}") };
                assert!(text.starts_with(&code.to_string()), "{text}");
            }
        }
    }

    #[test]
    fn a_401_or_403_means_wrong_credentials_and_does_not_reject_the_pin() {
        for code in [401, 403] {
            assert_eq!(of(code, &[], Ok(&exception("UNAUTHORIZED"))), Meaning::Unauthorized(code));
            assert_eq!(of(code, &[], Err("the body is cut off")), Meaning::Unauthorized(code));
        }
    }

    #[test]
    fn a_404_means_not_found_with_any_body() {
        for body in [Ok("<html>"), Ok(""), Err("the body is cut off")] {
            assert_eq!(of(404, &[], body), Meaning::NotFound);
        }
    }

    #[test]
    fn a_429_means_throttled_for_the_time_of_its_retry_after() {
        for (value, seconds) in [
            ("7", 7),
            ("Fri, 02 Jan 2026 03:05:05 GMT", 60),
            ("Fri, 02 Jan 2026 03:00:00 GMT", 1),
            ("soon", 1),
            ("86400", 3600),
        ] {
            assert_eq!(
                of(429, &[(RETRY_AFTER, value)], Err("the body is cut off")),
                Meaning::Throttled(Duration::from_secs(seconds)),
                "{value}"
            );
        }
        assert_eq!(of(429, &[], Ok("")), Meaning::Throttled(Duration::from_secs(1)));
    }

    #[test]
    fn a_date_to_retry_after_is_read_by_the_servers_own_clock() {
        let headers =
            [(DATE, "Fri, 02 Jan 2026 09:00:00 GMT"), (RETRY_AFTER, "Fri, 02 Jan 2026 09:00:30 GMT")];
        assert_eq!(of(429, &headers, Ok("")), Meaning::Throttled(Duration::from_secs(30)));
    }

    #[test]
    fn a_5xx_answer_or_one_that_asks_for_a_retry_means_unavailable() {
        assert_eq!(
            of(503, &[], Ok(&exception("SERVICE_UNAVAILABLE"))),
            unavailable("503 Service Unavailable: SERVICE_UNAVAILABLE: Some text")
        );
        assert_eq!(of(407, &[], Ok("<html>")), unavailable("407 Proxy Authentication Required"));
        for code in [408, 421, 425, 426, 431, 500, 501, 502, 503, 504, 520, 599, 600, 999] {
            for body in [Ok("<html>"), Ok(""), Err("the body is cut off")] {
                let Meaning::Unavailable(text) = of(code, &[], body) else { panic!("{code} {body:?}") };
                assert!(text.starts_with(&code.to_string()), "{text}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_answer_panics_or_is_given_a_text_that_is_not_one_short_line(
            code in 100u16..1000,
            headers in prop::collection::vec(any::<u8>(), 0..60),
            body: Vec<u8>,
        ) {
            let status = StatusCode::from_u16(code).unwrap();
            let value = reqwest::header::HeaderValue::from_bytes(&headers).ok();
            let names = [RETRY_AFTER, DATE, LOCATION];
            let headers = names.into_iter().filter_map(|name| Some((name, value.clone()?))).collect();
            match Meaning::of(None, status, &headers, Ok(&body), now()) {
                Meaning::Unreadable(text) | Meaning::Rejected(text) | Meaning::Unavailable(text) => {
                    prop_assert!(!text.is_empty() && !text.contains(char::is_control));
                    prop_assert!(text.chars().count() <= super::super::MAX_TEXT);
                }
                _ => {}
            }
        }
    }
}
