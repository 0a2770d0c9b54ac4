//! `pinwatch wait`: prints PINs' outcomes as they arrive; its status says whether all were delivered.

use std::path::Path;

use super::cli::WaitArgs;
use super::client::Client;
use super::error::CommandError;
use super::exit::Exit;
use super::output::Output;
use super::watch::Watch;

pub async fn run(socket: &Path, args: &WaitArgs, output: Output) -> Result<Exit, CommandError> {
    let client = Client::connect(socket).await?;
    let pins = args.ids.iter().cloned();
    Watch::of(pins, output).run(socket, client, args.timeout).await
}
