//! `pinwatch cancel --all`: withdraws every PIN in flight that matches, after a preview.
//!
//! Withdraws nothing that was submitted after the preview began. Ctrl-C stops between two requests.

use std::io::{IsTerminal, stderr, stdin};
use std::path::Path;
use std::time::Instant;

use serde_json::json;

use super::client::Client;
use super::error::CommandError;
use super::exit::Exit;
use super::human;
use super::output::{Output, note};
use super::stop_signal::stop_signal;
use crate::protocol::filter::Filter;
use crate::protocol::{cancel_matching, count};

pub async fn run(
    socket: &Path,
    filter: &Filter,
    is_agreed: bool,
    mut output: Output,
) -> Result<Exit, CommandError> {
    let is_asked = !is_agreed;
    if is_asked && !(stdin().is_terminal() && stderr().is_terminal()) {
        return Err(CommandError::Usage(
            "cancel --all asks before it withdraws PINs, and there is no terminal: add --yes".to_owned(),
        ));
    }
    let mut client = Client::connect(socket).await?;
    let began = Instant::now();
    if is_asked {
        let matching = preview(&mut client, filter).await?;
        note(format_args!("{} in flight match: {filter}", human::count(matching, "PIN")));
        if matching == 0 {
            return finish(output, 0);
        }
        note(format_args!("withdraw them all ({filter})? Type yes:"));
        if !answered_yes().await {
            note("nothing is withdrawn");
            return Ok(Exit::Failed);
        }
    }
    let mut stopped = std::pin::pin!(stop_signal());
    let (mut total, mut after) = (0, None);
    loop {
        let request = cancel_matching::Request { filter: filter.as_of(began.elapsed()), all: true, after };
        // The request that is under way is always awaited, so that the total is exact.
        let answer = client.ask(&request).await?;
        total += answer.count;
        after = answer.next;
        if output.is_json() {
            output.json(json!({"count": answer.count}).to_string().as_bytes())?;
            output.flush()?;
        } else if after.is_some() {
            note(format_args!("{} withdrawn so far", human::count(total, "PIN")));
        }
        if after.is_none() {
            return finish(output, total);
        }
        let stop = futures_util::FutureExt::now_or_never(&mut stopped);
        if stop.is_some() {
            output.flush()?;
            note(format_args!("stopped: {} withdrawn, the rest is untouched", human::count(total, "PIN")));
            return Ok(Exit::Failed);
        }
    }
}

fn finish(mut output: Output, total: u64) -> Result<Exit, CommandError> {
    if !output.is_json() {
        output.text(&format!("{} withdrawn\n", human::count(total, "PIN")))?;
    }
    output.flush()?;
    Ok(Exit::Done)
}

async fn preview(client: &mut Client, filter: &Filter) -> Result<u64, CommandError> {
    let (mut total, mut after) = (0, None);
    loop {
        let part = client.ask(&count::Request { filter: filter.clone(), after }).await?;
        total += part.count;
        after = part.next;
        if after.is_none() {
            return Ok(total);
        }
    }
}

/// Whether the next line of the terminal is `yes`.
async fn answered_yes() -> bool {
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        stdin().read_line(&mut line).map(|_| line)
    });
    matches!(line.await, Ok(Ok(line)) if line.trim() == "yes")
}
