//! Any answer at all: the first line is a status code, the lines until an empty one are headers, the rest is
//! the body. No panic; no text that is more than one short line; no wait out of bounds; nothing kept that is
//! larger than its limit.
#![no_main]

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use pinwatch::outcome::MAX_KEPT;
use pinwatch::poll::{
    LONGEST, MAX_BODY, MAX_DESCRIPTION, MAX_STATUS, MAX_TEXT, Meaning, SHORTEST,
};
use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};

fuzz_target!(|data: &[u8]| {
    let (first, rest) = line(data);
    let code = str::from_utf8(first).ok().and_then(|code| code.parse().ok()).unwrap_or(200);
    let Ok(status) = StatusCode::from_u16(code) else { return };
    let (mut headers, mut body) = (HeaderMap::new(), rest);
    for name in [RETRY_AFTER, DATE, LOCATION] {
        let (value, rest) = line(body);
        body = rest;
        if value.is_empty() {
            break;
        }
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(name, value);
        }
    }
    let now = Timestamp::from_second(1_767_355_200).expect("a time of this century");
    let fault = format!("the body is cut off: {}", String::from_utf8_lossy(body));
    for body in [Ok(body), Err(fault.as_str())] {
        check(&Meaning::of(None, status, &headers, body, now), body.unwrap_or_default());
    }
});

fn line(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &[]),
    }
}

fn check(meaning: &Meaning, body: &[u8]) {
    match meaning {
        Meaning::Deliveries(deliveries) => {
            assert!(body.len() <= MAX_BODY && deliveries.len() <= MAX_KEPT);
            for delivery in deliveries {
                let status = delivery.status.as_str();
                assert!(!status.is_empty() && status.len() <= MAX_STATUS);
                let description = delivery.description.as_deref().unwrap_or_default();
                assert!(description.chars().count() <= MAX_DESCRIPTION + 1);
                assert!(!status.contains(char::is_control) && !description.contains(char::is_control));
            }
        }
        Meaning::Unreadable(text) | Meaning::Rejected(text) | Meaning::Unavailable(text) => {
            assert!(!text.is_empty() && !text.contains(char::is_control));
            assert!(text.chars().count() <= MAX_TEXT);
        }
        Meaning::Throttled(wait) => assert!((SHORTEST..=LONGEST).contains(wait)),
        Meaning::Unauthorized(code) => assert!(matches!(code, 401 | 403)),
        Meaning::NotFound => {}
    }
}
