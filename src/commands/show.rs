//! `pinwatch show`: shows everything about a PIN, which its ID or its reference names.

use std::path::Path;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::cli::ShowArgs;
use super::client::{self, Client, ClientError};
use super::error::CommandError;
use super::exit::Exit;
use super::human;
use super::output::{Output, note};
use super::table::Column;
use crate::outcome::Metadata;
use crate::pin::PinId;
use crate::protocol::show::{Answer, Pin, Request, SinkState};
use crate::protocol::{Code, Refusal};

pub async fn run(socket: &Path, args: &ShowArgs, mut output: Output) -> Result<Exit, CommandError> {
    let mut client = Client::connect(socket).await?;
    let pin: Option<PinId> = if args.reference { None } else { args.what.parse().ok() };
    let by_pin = match &pin {
        Some(pin) => known(client.ask(&Request::Pin(pin.clone())).await)?.ok(),
        None => None,
    };
    let answer = match by_pin {
        Some(answer) => Ok(answer),
        None => known(client.ask(&Request::Reference(args.what.clone())).await)?,
    };
    let Answer { pin, others } = match answer {
        Ok(answer) => answer,
        Err(refusal) => {
            let what = if pin.is_some() { "PIN or reference" } else { "reference" };
            note(format_args!(
                "the daemon does not know the {what} {}: never submitted, or finished longer ago than store.retention",
                args.what
            ));
            let name = if pin.is_some() { "pinId" } else { "reference" };
            output.refused(json!({name: args.what}), &refusal)?;
            output.flush()?;
            return Ok(Exit::Failed);
        }
    };
    if output.is_json() {
        output.json(pin.get().as_bytes())?;
        if !others.is_empty() {
            output.json(json!({"others": others}).to_string().as_bytes())?;
        }
    } else {
        let (mut rows, sinks) = rows(client::read(&pin)?, Timestamp::now())?;
        if !others.is_empty() {
            let ids: Vec<&str> = others.iter().map(PinId::as_str).collect();
            rows.push((human::count(ids.len() as u64, "other"), ids.join(" ")));
        }
        output.pairs(&rows)?;
        if !sinks.is_empty() {
            output.text("\n")?;
            output.table(SINK, &sinks)?;
        }
    }
    output.flush()?;
    Ok(Exit::Done)
}

/// Separates an answer, or that there is no such PIN, from other errors.
fn known(answer: Result<Answer, ClientError>) -> Result<Result<Answer, Refusal>, ClientError> {
    match answer {
        Err(ClientError::Refused(refusal)) if refusal.code == Code::NotFound => Ok(Err(refusal)),
        answer => answer.map(Ok),
    }
}

const SINK: [Column; 5] = [
    Column::new("SINK", 1).down_to(12),
    Column::new("STATE", 2),
    Column::new("SINCE", 4),
    Column::new("TRIES", 5),
    Column::new("LAST ERROR", 3).down_to(20),
];

/// What the record of a finished PIN has of its submission and its deliveries.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Details {
    reference: Option<String>,
    metadata: Option<Metadata>,
    submitted_at: Option<String>,
    polls: Option<u64>,
    deliveries: Vec<Delivery>,
}

#[derive(Deserialize)]
struct Delivery {
    status: String,
}

/// Names with their values, and the rows of the table of sinks.
type Rows = (Vec<(String, String)>, Vec<[String; 5]>);

/// Formats everything about a PIN: first the PIN, then its outcome, then which sinks have the outcome.
fn rows(pin: Pin, now: Timestamp) -> Result<Rows, ClientError> {
    let record = pin.outcome.as_ref().map(client::read).transpose()?;
    let details: Option<Details> = pin.outcome.as_ref().map(client::read_as).transpose()?;
    let Details { reference, metadata, submitted_at, polls, deliveries } = details.unwrap_or_default();
    let mut rows = Vec::new();
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            rows.push((name.to_owned(), value));
        }
    };
    add("PIN", Some(pin.pin_id.to_string()));
    add("state", pin.state.map(|state| state.as_str().to_owned()));
    add("reference", pin.reference.or(reference));
    add("metadata", pin.metadata.or(metadata).map(|json| json.get().to_owned()));
    add("submitted", pin.submitted_at.or(submitted_at).map(|at| human::when(&at, now)));
    add("submitted by", pin.submitted_by.map(|name| format!("{name} (over HTTP)")));
    add("deadline", pin.deadline_at.map(|at| human::when(&at, now)));
    add("polls", pin.polls.flatten().map(u64::from).or(polls).map(|polls| polls.to_string()));
    add(
        "last answer",
        pin.last_answer.flatten().map(|last| format!("{}, {}", last.what, human::when(&last.at, now))),
    );
    let next_poll = pin.next_poll.flatten().map(|next| match next.at {
        Some(at) => format!("{}, {}", human::when(&at, now), next.why),
        None => next.why,
    });
    add("next poll", next_poll);
    if let Some(record) = record {
        add("outcome", Some(record.outcome));
        let status = record.status.map(|status| match record.description {
            Some(description) => format!("{status}: {description}"),
            None => status,
        });
        add("status", status);
        // One alone is the status above.
        if deliveries.len() > 1 {
            let all: Vec<_> = deliveries.into_iter().map(|delivery| delivery.status).collect();
            add("deliveries", Some(all.join(", ")));
        }
        add("delivered", Some(human::delivered(record.delivered).to_owned()));
        add("error", record.error);
        add("finished", record.finished_at.map(|at| human::when(&at, now)));
        add("seq", Some(record.seq.to_string()));
    }
    let sinks = pin.sinks.unwrap_or_default().into_iter().map(|sink| sink_row(sink, now)).collect();
    Ok((rows, sinks))
}

fn sink_row(sink: SinkState, now: Timestamp) -> [String; 5] {
    [
        sink.name,
        sink.state.into_owned(),
        sink.since.map_or_else(|| "-".to_owned(), |since| human::distance(&since, now)),
        sink.tries.map_or_else(|| "-".to_owned(), |tries| tries.to_string()),
        sink.last_error.unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::table;
    use super::*;

    #[test]
    fn a_finished_pin_is_shown_with_the_sinks_that_have_its_outcome() {
        let pin = serde_json::from_str(
            r#"{"pinId":"9C81","state":"finished",
                "outcome":{"seq":7,"pinId":"9C81","outcome":"final","status":"MESSAGE_DELIVERED",
                           "description":"Message sent and delivered","delivered":true,
                           "deliveries":[{"status":"MESSAGE_SENT","finalStatus":false},{"status":"MESSAGE_DELIVERED","finalStatus":true}],
                           "reference":"order\u001b-42","metadata":{"shop":7},
                           "submittedAt":"2026-01-02T00:00:00.000Z","finishedAt":"2026-01-02T00:00:04.000Z","polls":4},
                "sinks":[{"name":"stdout","state":"delivered","since":"2026-01-02T00:00:05.000Z"},
                         {"name":"hook","state":"retrying","since":"2026-01-02T00:00:05.000Z","tries":3,"lastError":"503"}]}"#,
        );
        let (rows, sinks) = super::rows(pin.unwrap(), "2026-01-02T00:01:00Z".parse().unwrap()).unwrap();
        let text = format!("{}\n{}", table::pairs(&rows, None), table::table(SINK, &sinks, None).0);
        insta::assert_snapshot!(text, @r#"
        PIN         9C81
        state       finished
        reference   order\u{1b}-42
        metadata    {"shop":7}
        submitted   2026-01-02T00:00:00.000Z (1m ago)
        polls       4
        outcome     final
        status      MESSAGE_DELIVERED: Message sent and delivered
        deliveries  MESSAGE_SENT, MESSAGE_DELIVERED
        delivered   yes
        finished    2026-01-02T00:00:04.000Z (56s ago)
        seq         7

        SINK    STATE      SINCE    TRIES  LAST ERROR
        stdout  delivered  55s ago  -
        hook    retrying   55s ago  3      503
        "#);
    }
}
