//! `pinwatch dead-letters`: lists outcomes that a sink did not accept and that are not retried.

use std::path::Path;

use jiff::Timestamp;
use serde_json::json;

use super::admin_cli::{LettersListArgs, LettersShowArgs};
use super::client::{self, Client, ClientError};
use super::error::CommandError;
use super::exit::Exit;
use super::human;
use super::output::{Output, note};
use super::table::Column;
use crate::protocol::dead_letters::{DeadLetter, Request};
use crate::protocol::filter::About;
use crate::protocol::{Code, Raw};

/// How many dead letters one request asks for: the answer is one line of bounded length.
const PAGE: u32 = 500;

const COLUMNS: [Column; 7] = [
    Column::new("SINK", 3).down_to(12),
    Column::new("SEQ", 4),
    Column::new("PIN", 1).down_to(32),
    Column::new("OUTCOME", 7),
    Column::new("TRIES", 6),
    Column::new("LAST TRY", 5),
    Column::new("ERROR", 2).down_to(24),
];

pub async fn list(socket: &Path, args: &LettersListArgs, mut output: Output) -> Result<Exit, CommandError> {
    let filter = args.filter.filter(About::OutcomesAtSink)?;
    let request =
        Request { sink: args.sink.clone(), filter, after: args.after.clone(), ..Request::default() };
    let mut pages = Pages { client: Client::connect(socket).await?, request };
    let now = Timestamp::now();
    let (mut left, mut rows) = (args.limit, Vec::new());
    while left > 0 {
        let letters = pages.next(left).await?;
        left = left.saturating_sub(letters.len() as u32);
        for letter in letters {
            if output.is_json() {
                output.json(letter.get().as_bytes())?;
            } else {
                rows.push(row(client::read(&letter)?, now)?);
            }
        }
        if pages.request.after.is_none() {
            break;
        }
    }
    if !rows.is_empty() {
        output.table(COLUMNS, &rows)?;
    }
    output.end_list(pages.request.after.as_deref())?;
    if pages.request.after.is_none() && !output.is_json() && rows.is_empty() {
        note(if pages.request.filter.is_empty() { "no dead letters" } else { "no dead letter matches" });
    }
    Ok(Exit::Done)
}

fn row(letter: DeadLetter, now: Timestamp) -> Result<[String; 7], ClientError> {
    let outcome = match &letter.outcome {
        Some(outcome) => client::read(outcome)?.outcome,
        None => "-".to_owned(),
    };
    let last_try = letter.last_try_at.map_or_else(|| "-".to_owned(), |at| human::distance(&at, now));
    let (seq, tries) = (letter.seq.to_string(), letter.tries.to_string());
    let error = letter.error.unwrap_or_default();
    Ok([letter.sink, seq, letter.pin_id.to_string(), outcome, tries, last_try, error])
}

pub async fn show(socket: &Path, args: &LettersShowArgs, mut output: Output) -> Result<Exit, CommandError> {
    let (pin_id, seq) = (args.id.clone(), args.seq);
    let request = Request { sink: args.sink.clone(), pin_id, from: seq, to: seq, ..Request::default() };
    let mut pages = Pages { client: Client::connect(socket).await?, request };
    let (now, mut found) = (Timestamp::now(), false);
    loop {
        for letter in pages.next(PAGE).await? {
            if output.is_json() {
                output.json(letter.get().as_bytes())?;
            } else {
                output.text(if found { "\n" } else { "" })?;
                output.pairs(&pairs(client::read(&letter)?, now)?)?;
            }
            found = true;
        }
        if pages.request.after.is_none() {
            break;
        }
    }
    if found {
        output.flush()?;
        return Ok(Exit::Done);
    }
    let (which, named) = match (&args.id, args.seq) {
        (None, Some(seq)) => (format!("seq {seq}"), json!({"seq": seq})),
        (id, _) => {
            let id = id.as_ref().map_or("", |id| id.as_str());
            (format!("PIN {id}"), json!({"pinId": id}))
        }
    };
    let what = format!("{which} is no dead letter; \"pinwatch dead-letters list\" lists all of them");
    output.refused(named, &Code::NotFound.because(what.clone()))?;
    output.flush()?;
    note(what);
    Ok(Exit::Failed)
}

/// A dead letter as names and values: first its state, then the outcome.
fn pairs(letter: DeadLetter, now: Timestamp) -> Result<Vec<(String, String)>, ClientError> {
    let mut rows = vec![("sink".to_owned(), letter.sink), ("seq".to_owned(), letter.seq.to_string())];
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            rows.push((name.to_owned(), value));
        }
    };
    add("PIN", Some(letter.pin_id.to_string()));
    add("tries", Some(letter.tries.to_string()));
    add("first try", letter.since.map(|at| human::when(&at, now)));
    add("last try", letter.last_try_at.map(|at| human::when(&at, now)));
    add("error", letter.error);
    if let Some(outcome) = letter.outcome {
        let record = client::read(&outcome)?;
        add("outcome", Some(record.outcome));
        add("status", record.status);
        add("delivered", Some(human::delivered(record.delivered).to_owned()));
        add("reference", record.reference);
        add("finished", record.finished_at.map(|at| human::when(&at, now)));
        add("record", Some(outcome.get().to_owned()));
    }
    Ok(rows)
}

/// Reads dead letters page by page.
struct Pages {
    client: Client,
    /// The request for the next page; its `after` is where the page begins.
    request: Request,
}

impl Pages {
    /// Reads the next page, with at most this many letters.
    async fn next(&mut self, most: u32) -> Result<Vec<Raw<DeadLetter>>, ClientError> {
        self.request.limit = Some(most.min(PAGE));
        let page = self.client.ask(&self.request).await?;
        self.request.after = page.next;
        Ok(page.dead_letters)
    }
}

#[cfg(test)]
mod tests {
    use super::super::table;
    use super::*;

    #[test]
    fn a_dead_letter_is_shown_with_its_error_and_its_outcome() {
        let letter = serde_json::from_str(
            r#"{"sink":"hook","seq":7,"pinId":"9C81","tries":3,"since":"2026-01-02T00:00:00.000Z",
                "lastTryAt":"2026-01-02T00:00:30.000Z","error":"410 \u001b[31mGone",
                "outcome":{"seq":7,"pinId":"9C81","outcome":"final","status":"MESSAGE_DELIVERED","delivered":true,"reference":"order-42"}}"#,
        );
        let pairs = pairs(letter.unwrap(), "2026-01-02T00:01:00Z".parse().unwrap()).unwrap();
        insta::assert_snapshot!(table::pairs(&pairs, None), @r#"
        sink       hook
        seq        7
        PIN        9C81
        tries      3
        first try  2026-01-02T00:00:00.000Z (1m ago)
        last try   2026-01-02T00:00:30.000Z (30s ago)
        error      410 \u{1b}[31mGone
        outcome    final
        status     MESSAGE_DELIVERED
        delivered  yes
        reference  order-42
        record     {"seq":7,"pinId":"9C81","outcome":"final","status":"MESSAGE_DELIVERED","delivered":true,"reference":"order-42"}
        "#);
    }
}
