//! `pinwatch sinks`: shows the progress of each sink, including those no longer configured, and forgets such sinks.

use std::path::Path;

use jiff::Timestamp;
use serde_json::json;

use super::admin_cli::ForgetArgs;
use super::client::{self, Client, ClientError};
use super::error::CommandError;
use super::exit::Exit;
use super::human;
use super::output::{Output, note};
use super::table::Column;
use crate::protocol::{Raw, forget_sink, stats};

const COLUMNS: [Column; 8] = [
    Column::new("SINK", 1).down_to(12),
    Column::new("CONFIGURED", 7),
    Column::new("CURSOR", 8),
    Column::new("BEHIND", 5),
    Column::new("RETRYING", 6),
    Column::new("DEAD LETTERS", 3),
    Column::new("NEXT ATTEMPT", 4),
    Column::new("TROUBLE", 2).down_to(24),
];

pub async fn list(socket: &Path, mut output: Output) -> Result<Exit, CommandError> {
    let stats::Answer { stats } = Client::connect(socket).await?.ask(&stats::Request {}).await?;
    let sinks = client::read(&stats)?.sinks;
    if output.is_json() {
        for (name, sink) in sinks {
            // Puts the sink's name before its other members.
            let members = sink.get().strip_prefix('{').unwrap_or_default();
            output.json(format!("{{\"name\":{},{members}", json!(name)).as_bytes())?;
        }
    } else {
        let now = Timestamp::now();
        let rows = sinks.into_iter().map(|(name, sink)| row(name, &sink, now));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        output.table(COLUMNS, &rows)?;
    }
    output.flush()?;
    Ok(Exit::Done)
}

fn row(name: String, sink: &Raw<stats::Sink>, now: Timestamp) -> Result<[String; 8], ClientError> {
    let sink = client::read(sink)?;
    let trouble = sink
        .trouble
        .map(|trouble| format!("{} (since {})", trouble.what, human::distance(&trouble.since, now)));
    Ok([
        name,
        if sink.configured { "yes" } else { "no" }.to_owned(),
        sink.cursor.to_string(),
        sink.behind.to_string(),
        sink.retrying.to_string(),
        sink.dead_letters.to_string(),
        sink.next_attempt.map_or_else(|| "-".to_owned(), |time| human::upcoming(&time, now)),
        trouble.unwrap_or_else(|| "-".to_owned()),
    ])
}

pub async fn forget(socket: &Path, args: &ForgetArgs, mut output: Output) -> Result<Exit, CommandError> {
    let sink = &args.name;
    let request = forget_sink::Request { sink: sink.clone() };
    let forget_sink::Answer { count } = Client::connect(socket).await?.ask(&request).await?;
    if output.is_json() {
        output.json(json!({"sink": sink, "forgotten": count > 0}).to_string().as_bytes())?;
    } else {
        output.text("forgotten: no outcomes are kept for it any more, and its dead letters are deleted\n")?;
    }
    output.flush()?;
    note(format_args!("if {} is configured again, it is a new sink", sink));
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_the_numbers_and_the_trouble_of_its_sink() {
        let now = "2026-01-02T00:01:00Z".parse().unwrap();
        let trouble = json!({"since": "2026-01-02T00:00:00.000Z", "what": "503"});
        let sink = json!({"configured": true, "cursor": 7, "behind": 2, "retrying": 1, "deadLetters": 3,
                             "closed": false, "trouble": trouble, "nextAttempt": "2026-01-02T00:01:30.000Z"});
        let sink = Raw::from_json(&sink.to_string()).unwrap();
        assert_eq!(
            row("hook".into(), &sink, now).unwrap(),
            ["hook", "yes", "7", "2", "1", "3", "in 30s", "503 (since 1m ago)"]
        );
    }
}
