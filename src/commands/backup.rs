//! `pinwatch backup`: copies the database to one file, whether a daemon runs or not.
//!
//! Reads the database itself, because the daemon may write only where its unit allows.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::config;
use super::error::CommandError;
use super::exit::Exit;
use super::globals::Globals;
use super::human;
use super::output::{Output, note};
use super::progress::Progress;
use super::stop_signal::stop_signal;
use crate::config::StoreUrl;
use crate::store::backup::{Amount, BackupError, Step, backup};

/// The time between two lines of progress if there is no terminal for a bar.
const REPORT_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The file to create; only this user can read it
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Replace an existing file once the new backup is complete
    #[arg(long)]
    pub force: bool,
}

pub async fn run(globals: &Globals, args: &BackupArgs, mut output: Output) -> Result<Exit, CommandError> {
    let from = match config::store_url(globals)? {
        StoreUrl::Sqlite(path) => path,
        url @ StoreUrl::Postgres { .. } => {
            return Err(CommandError::Usage(format!(
                "the store is PostgreSQL, whose own tool makes the backup, with the user and sslmode of store.url: \
                 pg_dump --format=custom --file={} --dbname='{url}'",
                args.file.display()
            )));
        }
    };
    let failed = |error| BackupError::Io { doing: "look at", path: args.file.clone(), source: error };
    let file = std::path::absolute(&args.file).map_err(failed)?;
    let progress = Progress::of_bytes(0);
    let mut reported = Instant::now();
    let mut watch = |step| match step {
        Step::Copying { bytes, all } => {
            // An estimate: free pages are not copied, and pages of the write-ahead log may be.
            progress.set_of(bytes.min(all), all);
            progress.message(|| format!("of {}", megabytes(all)));
            if !progress.is_shown() && reported.elapsed() >= REPORT_EVERY {
                reported = Instant::now();
                note(format_args!("{} of {} are copied", megabytes(bytes), megabytes(all)));
            }
        }
        Step::Checking => progress.message(|| "copied; reading it back".to_owned()),
    };
    let made = tokio::select! {
        made = backup(&from, &file, args.force, &mut watch) => made?,
        // Dropping the backup removes its unfinished file.
        _ = stop_signal() => return Err(BackupError::Stopped.into()),
    };
    progress.end();
    let Amount { pins, outcomes, bytes } = made;
    if output.is_json() {
        let line =
            json!({"file": file.to_string_lossy(), "bytes": bytes, "pins": pins, "outcomes": outcomes});
        output.json(line.to_string().as_bytes())?;
    } else {
        output.text(&format!(
            "{}: {} in flight, {}, {}; read back and whole\n",
            file.display(),
            human::count(pins, "PIN"),
            human::count(outcomes, "outcome"),
            megabytes(bytes)
        ))?;
    }
    output.flush()?;
    Ok(Exit::Done)
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}
