//! `pinwatch migrate-store`: copies a store into one of the other kind, while no daemon runs.
//!
//! Opens the stores itself: there is no daemon to ask.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::error::CommandError;
use super::exit::Exit;
use super::output::{Output, note};
use super::progress::Progress;
use crate::config::StoreUrl;
use crate::store::migrate::{Amount, migrate};

/// The time between two lines of progress if there is no terminal for a bar.
const REPORT_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub struct MigrateStoreArgs {
    /// The store to move, as in store.url; it keeps all its data
    #[arg(long, value_name = "URL")]
    pub from: String,
    /// The new store: an empty database, or a file that does not exist yet
    #[arg(long, value_name = "URL")]
    pub to: String,
    /// Send the password to a PostgreSQL on another machine even if its certificate is not checked
    #[arg(long)]
    pub allow_insecure_tls: bool,
}

pub async fn run(args: &MigrateStoreArgs, mut output: Output) -> Result<Exit, CommandError> {
    let url = |option: &str, text: &str| {
        let url = StoreUrl::parse(text, args.allow_insecure_tls);
        url.map_err(|error| CommandError::Usage(format!("{option} {error}")))
    };
    let (from, to) = (url("--from", &args.from)?, url("--to", &args.to)?);
    let progress = Progress::of_rows();
    let mut reported = Instant::now();
    let moved = migrate(&from, &to, &mut |all: &Amount, moved: &Amount| {
        progress.set_of(moved.rows(), all.rows());
        if !progress.is_shown() && reported.elapsed() >= REPORT_EVERY {
            reported = Instant::now();
            note(format_args!("{} of {} rows are moved", moved.rows(), all.rows()));
        }
    })
    .await?;
    progress.end();
    let Amount { pins, outcomes, undelivered, sinks } = moved;
    if output.is_json() {
        let line = json!({"pins": pins, "outcomes": outcomes, "undelivered": undelivered, "sinks": sinks});
        output.json(line.to_string().as_bytes())?;
    } else {
        output.text(&format!(
            "moved {pins} PINs in flight, {outcomes} outcomes, {undelivered} that a sink still lacks or has given \
             up, {sinks} sinks\n"
        ))?;
    }
    output.flush()?;
    note(format_args!(
        "{to} now has everything. {from} still has it too: start no daemon on it, or PINs are polled and delivered twice"
    ));
    Ok(Exit::Done)
}
