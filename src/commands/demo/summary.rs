//! The demonstration's summary: how many PINs ended in which way, and how long that took.

use std::collections::BTreeMap;
use std::time::Duration;

use super::took;
use crate::commands::human;
use crate::commands::table::{Column, table};
use crate::protocol::Record;

const COLUMNS: [Column; 4] = [
    Column::new("OUTCOME", 1),
    Column::new("STATUS", 2).down_to(16),
    Column::new("PINS", 3),
    Column::new("MEDIAN TIME", 4),
];

/// The outcomes so far.
#[derive(Default)]
pub struct Summary {
    took: BTreeMap<(String, String), Vec<Duration>>,
    delivered: u64,
}

impl Summary {
    pub fn add(&mut self, record: &Record) {
        let status = record.status.clone().unwrap_or_else(|| "-".to_owned());
        self.took.entry((record.outcome.clone(), status)).or_default().push(took(record).unwrap_or_default());
        self.delivered += u64::from(record.delivered == Some(true));
    }

    /// The number of outcomes.
    pub fn all(&self) -> usize {
        self.took.values().map(Vec::len).sum()
    }

    /// Formats a table with a row for each kind of end, the most frequent first, and a summary line below it.
    pub fn render(&self, room: Option<usize>) -> String {
        let mut kinds: Vec<_> = self.took.iter().collect();
        kinds.sort_by_key(|(_, took)| std::cmp::Reverse(took.len()));
        let rows: Vec<_> = kinds
            .iter()
            .map(|((outcome, status), took)| {
                [outcome.clone(), status.clone(), took.len().to_string(), human::short(median(took))]
            })
            .collect();
        let all: Vec<_> = self.took.values().flatten().copied().collect();
        format!(
            "\n{}\n{}: {} delivered; half of them were final within {}\n",
            table(COLUMNS, &rows, room).0,
            human::count(all.len() as u64, "PIN"),
            self.delivered,
            human::short(median(&all)),
        )
    }
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_lists_the_most_frequent_status_first_with_its_median_time() {
        let mut summary = Summary::default();
        for (status, seconds) in [
            ("MESSAGE_EXPIRED", 9),
            ("MESSAGE_DELIVERED", 1),
            ("MESSAGE_DELIVERED", 3),
            ("MESSAGE_DELIVERED", 2),
        ] {
            let line = serde_json::json!({
                "seq": 1, "pinId": "9C81", "outcome": "final", "status": status,
                "delivered": status == "MESSAGE_DELIVERED",
                "submittedAt": "2026-01-02T00:00:00.000Z", "finishedAt": format!("2026-01-02T00:00:0{seconds}.000Z"),
            });
            summary.add(&serde_json::from_value(line).unwrap());
        }
        insta::assert_snapshot!(summary.render(None), @r"
        OUTCOME  STATUS             PINS  MEDIAN TIME
        final    MESSAGE_DELIVERED  3     2s
        final    MESSAGE_EXPIRED    1     9s

        4 PINs: 3 delivered; half of them were final within 3s
        ");
    }
}
