//! `pinwatch cancel`: withdraws PINs.

use std::path::Path;

use futures_util::stream;
use serde_json::json;

use super::all_matching::{self, Action};
use super::cli::CancelArgs;
use super::client::{self, Client, ClientError};
use super::error::CommandError;
use super::exit::Exit;
use super::output::{Output, note};
use super::table::Column;
use crate::protocol::filter::About;
use crate::protocol::{self, cancel};

const COLUMNS: [Column; 4] = [
    Column::new("PIN", 1).down_to(32),
    Column::new("STATE", 2),
    Column::new("OUTCOME", 3),
    Column::new("LAST STATUS", 4).down_to(16),
];

pub async fn run(socket: &Path, args: &CancelArgs, mut output: Output) -> Result<Exit, CommandError> {
    let filter = args.filter.filter(About::InFlight)?;
    if args.all {
        return all_matching::run(socket, Action::Cancel, &filter, args.yes, output).await;
    }
    if !filter.is_empty() {
        return Err(CommandError::Usage(
            "a filter needs --all: it withdraws every PIN that matches".to_owned(),
        ));
    }
    let mut client = Client::connect(socket).await?;
    let requests = args.ids.iter().map(|id| (id, protocol::request(&cancel::Request { pin_id: id.clone() })));
    let mut rows = Vec::new();
    let mut exit = Exit::Done;
    client
        .pipeline(stream::iter(requests), |id, line, _| {
            match client::parse::<cancel::Request>(line) {
                Ok(_) if output.is_json() => output.json(line)?,
                Ok(cancel::Answer { pin_id, state, outcome }) => {
                    let record = outcome.as_ref().map(client::read).transpose()?;
                    let (outcome, status) = record.map_or_else(Default::default, |record| {
                        (record.outcome, record.status.unwrap_or_else(|| "-".to_owned()))
                    });
                    rows.push([pin_id.to_string(), state.as_str().to_owned(), outcome, status]);
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
