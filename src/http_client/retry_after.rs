//! Reads `Retry-After`: how long a server asks for a pause.
//!
//! Promises a wait between [`SHORTEST`] and [`LONGEST`], whatever the header says, so that no server can make pinwatch spin or
//! stop for a day. Pure: the current time is an argument. Must not know who waits.

use std::time::Duration;

use jiff::{Timestamp, civil, tz::TimeZone};

/// The wait without a usable header, and the shortest with one: `Retry-After: 0` on a 429 would otherwise cause a flood of
/// requests.
pub const SHORTEST: Duration = Duration::from_secs(1);

/// The longest wait. Then one request is tried, so a server that needs longer says so again.
pub const LONGEST: Duration = Duration::from_secs(3600);

/// The wait that a `Retry-After` value asks for (RFC 9110, section 10.2.3: whole seconds, or an HTTP date), counted from `now`. A
/// missing value, garbage and the past all return [`SHORTEST`].
pub fn retry_after(value: Option<&[u8]>, now: Timestamp) -> Duration {
    value.and_then(|value| wanted(value, now)).unwrap_or(SHORTEST).clamp(SHORTEST, LONGEST)
}

fn wanted(value: &[u8], now: Timestamp) -> Option<Duration> {
    let value = value.trim_ascii();
    if !value.is_empty() && value.iter().all(u8::is_ascii_digit) {
        // More digits than fit are still a number, and a long wait.
        let seconds = str::from_utf8(value).ok()?.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds));
    }
    // A date in the past is a negative span, which has no `Duration`.
    Duration::try_from(http_date(value)?.duration_since(now)).ok()
}

/// Parses an HTTP date. RFC 9110, section 5.6.7: recipients accept all three forms.
pub fn http_date(value: &[u8]) -> Option<Timestamp> {
    // The longest form has 33 characters; no parser needs to see more.
    let text = str::from_utf8(value.get(..40.min(value.len()))?).ok()?;
    let civil = |format| civil::DateTime::strptime(format, text).ok();
    civil("%a, %d %b %Y %H:%M:%S GMT") // IMF-fixdate
        .or_else(|| civil("%A, %d-%b-%y %H:%M:%S GMT")) // RFC 850
        .or_else(|| civil("%a %b %e %H:%M:%S %Y")) // asctime
        // The last hours of the year 9999 do not fit a `Timestamp`, but are far away too.
        .map(|time| TimeZone::UTC.to_timestamp(time).unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        "1994-11-06T08:49:00Z".parse().unwrap()
    }

    fn wait(value: &str) -> u64 {
        retry_after(Some(value.as_bytes()), now()).as_secs()
    }

    #[test]
    fn a_retry_after_in_seconds_is_limited_to_one_second_to_one_hour() {
        for (value, seconds) in [
            ("0", 1),
            ("1", 1),
            ("30", 30),
            (" 30 ", 30),
            ("007", 7),
            ("3600", 3600),
            ("3601", 3600),
            ("99999999999999999999999", 3600),
        ] {
            assert_eq!(wait(value), seconds, "{value:?}");
        }
    }

    #[test]
    fn all_three_forms_of_an_http_date_are_waited_for() {
        for (value, seconds) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", 37),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 37),
            ("Sun Nov  6 08:49:37 1994", 37),
            ("Sun, 06 Nov 1994 09:19:00 GMT", 1800),
            ("Mon, 07 Nov 1994 08:49:37 GMT", 3600),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 3600),
        ] {
            assert_eq!(wait(value), seconds, "{value:?}");
        }
    }

    #[test]
    fn a_past_invalid_or_missing_retry_after_means_one_second() {
        assert_eq!(retry_after(None, now()), SHORTEST);
        for value in [
            "",
            " ",
            "-5",
            "+5",
            "1.5",
            "soon",
            "30 s",
            "Sun, 06 Nov 1994 08:48:59 GMT",
            "Thu, 01 Jan 1970 00:00:00 GMT",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT, and so on and so forth",
            "1994-11-06T08:49:37Z",
        ] {
            assert_eq!(wait(value), 1, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn any_retry_after_header_makes_a_wait_of_one_second_to_one_hour(value: Vec<u8>, at in 0i64..250_000_000_000) {
            let now = Timestamp::from_second(at).unwrap();
            let wait = retry_after(Some(&value), now);
            prop_assert!((SHORTEST..=LONGEST).contains(&wait));
        }
    }
}
