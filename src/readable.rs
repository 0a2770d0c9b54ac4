//! Numbers, durations and times as people read them, in tables, on the status page and in the verdict. Pure.

use std::time::Duration;

use jiff::Timestamp;

/// Formats a duration in its two largest units: `2days 3h`, `1m 5s`, `1s 840ms`.
pub fn short(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let text = humantime::format_duration(Duration::from_millis(millis)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Formats the distance of a time from now; returns the text unchanged if it is not a time.
pub fn distance(text: &str, now: Timestamp) -> String {
    text.parse().map_or_else(|_| text.to_owned(), |time| away(time, now))
}

/// As [`distance`], of something that comes: what is overdue comes now.
pub fn upcoming(text: &str, now: Timestamp) -> String {
    text.parse().map_or_else(|_| text.to_owned(), |time: Timestamp| away(time.max(now), now))
}

fn away(time: Timestamp, now: Timestamp) -> String {
    let distance = time.duration_since(now);
    match (Duration::from_secs(distance.unsigned_abs().as_secs()), distance.is_negative()) {
        (Duration::ZERO, _) => "now".to_owned(),
        (seconds, true) => format!("{} ago", short(seconds)),
        (seconds, false) => format!("in {}", short(seconds)),
    }
}

/// Formats a count with its noun: `1 PIN`, `1,204 PINs`.
pub fn count(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// Formats a number with a comma between thousands: `1,204`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_their_distance_from_now() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        assert_eq!(distance("2026-01-01T23:59:59.500Z", now), "now");
        assert_eq!(distance("soon", now), "soon");
        assert_eq!(upcoming("2026-01-01T23:00:00Z", now), "now");
        assert_eq!(upcoming("2026-01-02T00:00:12Z", now), "in 12s");
    }

    #[test]
    fn numbers_are_written_with_separators_and_plurals() {
        let of = [(0, "0"), (999, "999"), (1204, "1,204"), (12_345_678, "12,345,678")];
        for (number, text) in of {
            assert_eq!(thousands(number), text);
        }
        assert_eq!((count(1, "PIN"), count(1204, "PIN")), ("1 PIN".into(), "1,204 PINs".into()));
        assert_eq!(short(Duration::from_millis(65_400)), "1m 5s");
    }
}
