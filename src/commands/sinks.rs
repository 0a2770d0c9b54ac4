//! `pinwatch sinks`: how far each sink is, also those that are not configured any more, and forgetting those.

use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::client::Client;
use super::error::CommandError;
use super::exit::Exit;
use super::human;
use super::output::{Output, note};
use super::protocol::{Counted, Request, SinkNumbers, SinksOfStats};
use super::table::Column;
use super::upkeep_cli::ForgetArgs;

const COLUMNS: [Column; 7] = [
    Column::new("SINK", 1).down_to(12),
    Column::new("CONFIGURED", 6),
    Column::new("CURSOR", 7),
    Column::new("BEHIND", 4),
    Column::new("RETRYING", 5),
    Column::new("DEAD LETTERS", 3),
    Column::new("TROUBLE", 2).down_to(24),
];

pub async fn list(socket: &Path, mut output: Output) -> Result<Exit, CommandError> {
    let SinksOfStats { stats } = Client::connect(socket).await?.ask(&Request::Stats).await?;
    if output.is_json() {
        for (name, numbers) in stats.sinks {
            let mut line = json!({"name": name});
            if let (Some(line), Value::Object(numbers)) = (line.as_object_mut(), numbers) {
                line.extend(numbers);
            }
            output.json(line.to_string().as_bytes())?;
        }
    } else {
        let now = Timestamp::now();
        let rows: Vec<_> = stats.sinks.into_iter().map(|(name, numbers)| row(name, numbers, now)).collect();
        output.table(COLUMNS, &rows)?;
    }
    output.flush()?;
    Ok(Exit::Done)
}

/// What the daemon does not tell, an older one, is a blank cell.
fn row(name: String, numbers: Value, now: Timestamp) -> [String; 7] {
    let numbers: SinkNumbers = serde_json::from_value(numbers).unwrap_or_default();
    let number = |number: Option<i64>| number.map_or_else(String::new, |number| number.to_string());
    let configured = match numbers.configured {
        Some(true) => "yes",
        Some(false) => "no",
        None => "",
    };
    let trouble = numbers
        .trouble
        .map(|trouble| format!("{} (since {})", trouble.what, human::distance(&trouble.since, now)));
    [
        name,
        configured.to_owned(),
        number(numbers.cursor),
        number(numbers.behind),
        number(numbers.retrying),
        number(numbers.dead_letters),
        trouble.unwrap_or_else(|| "-".to_owned()),
    ]
}

pub async fn forget(socket: &Path, args: &ForgetArgs, mut output: Output) -> Result<Exit, CommandError> {
    let sink = args.name.as_str();
    let Counted { count } = Client::connect(socket).await?.ask(&Request::ForgetSink { sink }).await?;
    if output.is_json() {
        output.json(json!({"sink": sink, "forgotten": count > 0}).to_string().as_bytes())?;
    } else {
        output.text("forgotten: outcomes are kept for it no more, and its dead letters are gone\n")?;
    }
    output.flush()?;
    note(format_args!("if {} is configured again, it is a new sink", sink));
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_a_sinks_trouble_and_what_an_older_daemon_tells_not_is_blank() {
        let now = "2026-01-02T00:01:00Z".parse().unwrap();
        let trouble = json!({"since": "2026-01-02T00:00:00.000Z", "what": "503"});
        let numbers = json!({"configured": true, "cursor": 7, "behind": 2, "retrying": 1, "deadLetters": 3,
                             "closed": false, "trouble": trouble});
        assert_eq!(
            row("hook".into(), numbers, now),
            ["hook", "yes", "7", "2", "1", "3", "503 (since 1m ago)"]
        );
        assert_eq!(row("old".into(), json!({"cursor": 7}), now), ["old", "", "7", "", "", "", "-"]);
    }
}
