//! Formats results for people: outcomes in rows, times with their distance from now. Pure.

use jiff::Timestamp;

use super::table::{Column, Layout};
use crate::protocol::Record;
pub use crate::readable::{count, distance, short, thousands, upcoming};

/// A table of outcomes that gets one row at a time, so its widths are fixed in advance.
pub struct OutcomeRows {
    layout: Layout<7>,
    has_headings: bool,
}

const OUTCOME: [Column; 7] = [
    Column::new("PIN", 1).down_to(32),
    Column::new("OUTCOME", 4),
    Column::new("STATUS", 2).down_to(24),
    Column::new("DELIVERED", 3),
    Column::new("POLLS", 7),
    Column::new("SEQ", 6),
    Column::new("REFERENCE", 5).down_to(12),
];

impl OutcomeRows {
    /// Creates a table for PIN IDs of `pin_width` characters; Infobip's have 32.
    pub fn new(pin_width: usize, room: Option<usize>) -> Self {
        let layout = Layout::new(OUTCOME, [pin_width.clamp(8, 40), 9, 30, 9, 5, 6, 40], room);
        Self { layout, has_headings: false }
    }

    /// Whether columns are left out for lack of room.
    pub fn leaves_out(&self) -> bool {
        self.layout.leaves_out()
    }

    /// Formats the row of an outcome; the first row comes with the headings above it.
    pub fn row(&mut self, record: &Record) -> String {
        let is_first = !std::mem::replace(&mut self.has_headings, true);
        let headings = if is_first { self.layout.headings() } else { String::new() };
        let polls = record.polls.map_or_else(String::new, |polls| polls.to_string());
        let cells = [
            record.pin_id.as_str(),
            &record.outcome,
            record.status.as_deref().unwrap_or("-"),
            delivered(record.delivered),
            &polls,
            &record.seq.to_string(),
            record.reference.as_deref().unwrap_or_default(),
        ];
        headings + &self.layout.line(cells)
    }
}

/// Says in one word whether a PIN was delivered.
pub fn delivered(delivered: Option<bool>) -> &'static str {
    match delivered {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    }
}

/// Formats a time from the protocol with its distance from now; returns the text unchanged if it is not a time.
pub fn when(text: &str, now: Timestamp) -> String {
    match text.parse::<Timestamp>() {
        Ok(_) => format!("{text} ({})", distance(text, now)),
        Err(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_with_their_distance_from_now() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        assert_eq!(when("2026-01-02T00:01:05.000Z", now), "2026-01-02T00:01:05.000Z (in 1m 5s)");
        assert_eq!(when("2025-12-30T21:00:00.500Z", now), "2025-12-30T21:00:00.500Z (2days 2h ago)");
        assert_eq!(when("soon", now), "soon");
    }
}
