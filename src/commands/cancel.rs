//! `pinwatch cancel`: withdraws PINs.

use std::path::Path;

use futures_util::stream;
use serde_json::json;

use super::cli::CancelArgs;
use super::client::{self, Client, ClientError};
use super::error::CommandError;
use super::exit::Exit;
use super::output::{Output, note};
use super::protocol::{Record, Request, Taken};
use super::table::Column;

const COLUMNS: [Column; 4] = [
    Column::new("PIN", 1).down_to(32),
    Column::new("STATE", 2),
    Column::new("OUTCOME", 3),
    Column::new("LAST STATUS", 4).down_to(16),
];

pub async fn run(socket: &Path, args: &CancelArgs, mut output: Output) -> Result<Exit, CommandError> {
    let mut client = Client::connect(socket).await?;
    let requests = args.ids.iter().map(|id| (id, Request::Cancel { pin_id: id.as_str() }.line()));
    let mut rows = Vec::new();
    let mut exit = Exit::Done;
    client
        .pipeline(stream::iter(requests), |id, line, _| {
            match client::parse::<Taken>(line) {
                Ok(_) if output.is_json() => output.json(line)?,
                Ok(taken) => {
                    let outcome = taken.outcome.as_deref();
                    let record: Option<Record> =
                        outcome.map(|json| client::read(json.get().as_bytes())).transpose()?;
                    let (outcome, status) = record.map_or_else(Default::default, |record| {
                        (record.outcome, record.status.unwrap_or_else(|| "-".to_owned()))
                    });
                    rows.push([taken.pin_id, taken.state, outcome, status]);
                }
                Err(ClientError::Refused(refusal)) => {
                    note(format_args!("PIN {id} is not cancelled: {}", refusal));
                    output.refused(json!({"pinId": id.as_str()}), &refusal)?;
                    exit = Exit::Failed;
                }
                Err(error) => return Err(CommandError::from(error)),
            }
            Ok(())
        })
        .await?;
    if !rows.is_empty() {
        output.table(COLUMNS, &rows)?;
    }
    output.flush()?;
    Ok(exit)
}
