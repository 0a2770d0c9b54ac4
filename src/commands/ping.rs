//! `pinwatch ping`: reports whether the daemon runs, and its version.

use std::path::Path;
use std::time::Instant;

use super::client::Client;
use super::error::CommandError;
use super::exit::Exit;
use super::output::Output;
use crate::protocol::ping;
use crate::text::printable;

pub async fn run(socket: &Path, mut output: Output) -> Result<Exit, CommandError> {
    let started = Instant::now();
    let pong = Client::connect(socket).await?.ask(&ping::Request {}).await?;
    if output.is_json() {
        output.json(serde_json::json!({"ok": true, "version": pong.version}).to_string().as_bytes())?;
    } else {
        let micros = started.elapsed().as_micros();
        let version = printable(&pong.version);
        output.text(&format!("pinwatch {version} answers at {} in {micros} µs\n", socket.display()))?;
    }
    output.flush()?;
    Ok(Exit::Done)
}
