//! `pinwatch list`: lists PINs, page by page.

use std::path::Path;

use jiff::Timestamp;

use super::cli::ListArgs;
use super::client::{self, Client};
use super::error::CommandError;
use super::exit::Exit;
use super::human;
use super::output::{Output, note};
use super::table::Column;
use crate::protocol::filter::About;
use crate::protocol::list::Request;
use crate::protocol::show::Pin;

/// How many PINs one request asks for: the answer is one line of bounded length.
const PAGE: u32 = 500;

const COLUMNS: [Column; 7] = [
    Column::new("PIN", 1).down_to(32),
    Column::new("SUBMITTED", 7),
    Column::new("DEADLINE", 5),
    Column::new("POLLS", 6),
    Column::new("LAST STATUS", 2).down_to(16),
    Column::new("NEXT POLL", 3),
    Column::new("REFERENCE", 4).down_to(12),
];

pub async fn run(socket: &Path, args: &ListArgs, mut output: Output) -> Result<Exit, CommandError> {
    let filter = args.filter.filter(About::Either)?;
    let mut client = Client::connect(socket).await?;
    let (mut after, mut left) = (args.after.clone(), args.limit);
    let mut rows = Vec::new();
    let (mut finished, mut outcome_rows) = (String::new(), None);
    while left > 0 {
        let page =
            client.ask(&Request { limit: Some(left.min(PAGE)), after, filter: filter.clone() }).await?;
        let now = Timestamp::now();
        for pin in &page.pins {
            if output.is_json() {
                output.json(pin.get().as_bytes())?;
            } else {
                let pin = client::read(pin)?;
                if let Some(outcome) = &pin.outcome {
                    let rows = outcome_rows.get_or_insert_with(|| output.outcome_rows(32));
                    finished.push_str(&rows.row(&client::read(outcome)?));
                } else {
                    rows.push(row(pin, now));
                }
            }
        }
        left = left.saturating_sub(page.pins.len() as u32);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if !rows.is_empty() {
        output.table(COLUMNS, &rows)?;
    }
    output.text(&finished)?;
    output.end_list(after.as_deref())?;
    if after.is_none() && !output.is_json() && rows.is_empty() && finished.is_empty() {
        note(if filter.is_empty() { "no PIN is in flight" } else { "no PIN matches" });
    }
    Ok(Exit::Done)
}

fn row(pin: Pin, now: Timestamp) -> [String; 7] {
    let distance =
        |time: Option<String>| time.map_or_else(|| "-".to_owned(), |time| human::distance(&time, now));
    [
        pin.pin_id.to_string(),
        distance(pin.submitted_at),
        distance(pin.deadline_at),
        pin.polls.flatten().map_or_else(String::new, |polls| polls.to_string()),
        pin.last_status.flatten().unwrap_or_else(|| "-".to_owned()),
        distance(pin.next_poll_at.flatten()),
        pin.reference.unwrap_or_default(),
    ]
}
