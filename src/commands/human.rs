//! How results look to people: aligned tables, times with their distance from now.
//!
//! Promises that nothing which a submitter or the API wrote can move the cursor or colour the screen. Knows
//! no stream: everything here makes strings.

use std::time::Duration;

use jiff::Timestamp;

use super::protocol::Record;
use crate::text::printable;

/// `rows` under `headings`, in columns two spaces apart, each line with its newline.
pub fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = headings.map(width);
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(width(cell));
        }
    }
    let rows = rows.iter().map(|row| line(&row.each_ref().map(String::as_str), widths));
    [line(&headings, widths)].into_iter().chain(rows).collect()
}

/// Names and values in two columns, without headings.
pub fn pairs(rows: &[(String, String)]) -> String {
    let widest = rows.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
    rows.iter().map(|(name, value)| line(&[name, value], [widest, 0])).collect()
}

/// The width of a cell as it is shown.
fn width(cell: &str) -> usize {
    printable(cell).chars().count()
}

fn line<const N: usize>(cells: &[&str; N], widths: [usize; N]) -> String {
    let mut text = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        text += &format!("{:<width$}  ", &*printable(cell));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// A table of outcomes that grows by a row at a time, so its widths are fixed beforehand.
pub struct OutcomeRows {
    pin_width: usize,
    has_headings: bool,
}

impl OutcomeRows {
    /// With room for PIN IDs of `pin_width` characters; Infobip's have 32.
    pub fn new(pin_width: usize) -> Self {
        Self { pin_width: pin_width.clamp(8, 40), has_headings: false }
    }

    /// The row of one outcome; the first time, below the headings.
    pub fn row(&mut self, record: &Record) -> String {
        let widths = [self.pin_width, 9, 30, 9, 5, 6, 0];
        let headings = ["PIN", "OUTCOME", "STATUS", "DELIVERED", "POLLS", "SEQ", "REFERENCE"];
        let mut text = String::new();
        if !self.has_headings {
            self.has_headings = true;
            text += &line(&headings, widths);
        }
        let polls = record.polls.map_or_else(String::new, |polls| polls.to_string());
        let cells = [
            &record.pin_id,
            &record.outcome,
            record.status.as_deref().unwrap_or("-"),
            delivered(record.delivered),
            &polls,
            &record.seq.to_string(),
            record.reference.as_deref().unwrap_or_default(),
        ];
        text + &line(&cells, widths)
    }
}

/// Whether a PIN was delivered, in a word.
pub fn delivered(delivered: Option<bool>) -> &'static str {
    match delivered {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    }
}

/// A time of the wire, with how far it is from now; as it came where it is no time.
pub fn when(text: &str, now: Timestamp) -> String {
    match text.parse::<Timestamp>() {
        Ok(time) => format!("{text} ({})", away(time, now)),
        Err(_) => text.to_owned(),
    }
}

/// How far a time of the wire is from now; as it came where it is no time.
pub fn distance(text: &str, now: Timestamp) -> String {
    text.parse().map_or_else(|_| text.to_owned(), |time| away(time, now))
}

fn away(time: Timestamp, now: Timestamp) -> String {
    let distance = time.duration_since(now);
    let seconds = Duration::from_secs(distance.unsigned_abs().as_secs());
    if seconds.is_zero() {
        return "now".to_owned();
    }
    let seconds = short(seconds);
    if distance.is_negative() { format!("{seconds} ago") } else { format!("in {seconds}") }
}

/// A duration in its two greatest units: `2days 3h`, `1m 5s`, `1s 840ms`.
pub fn short(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let text = humantime::format_duration(Duration::from_millis(millis)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// A count with its noun: `1 PIN`, `2 PINs`.
pub fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_without_blanks() {
        let rows = [["a".into(), "1".into()], ["long".into(), String::new()]];
        assert_eq!(table(["NAME", "N"], &rows), "NAME  N\na     1\nlong\n");
    }

    #[test]
    fn a_reference_cannot_colour_the_screen() {
        let rows = [["a\x1b[31m\r\nb".into(), "1".into()], ["\u{202e}\u{9b}2J".into(), "2".into()]];
        assert_eq!(
            table(["REFERENCE", "N"], &rows),
            "REFERENCE         N\na\\u{1b}[31m\\r\\nb  1\n\\u{202e}\\u{9b}2J  2\n"
        );
        assert_eq!(pairs(&[("x\x07".into(), "é".into())]), "x\\u{7}  é\n");
    }

    #[test]
    fn times_tell_their_distance_from_now() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        assert_eq!(when("2026-01-02T00:01:05.000Z", now), "2026-01-02T00:01:05.000Z (in 1m 5s)");
        assert_eq!(when("2025-12-30T21:00:00.500Z", now), "2025-12-30T21:00:00.500Z (2days 2h ago)");
        assert_eq!(distance("2026-01-01T23:59:59.500Z", now), "now");
        assert_eq!(when("soon", now), "soon");
    }
}
