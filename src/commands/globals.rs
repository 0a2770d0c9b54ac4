//! Options that many commands have: where the configuration and the daemon are, and how results look.

use std::path::PathBuf;

use clap::Args;

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Globals {
    /// Configuration file [default: /etc/pinwatch/pinwatch.toml]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// Set one key of the configuration; overrides file and environment; repeatable
    #[arg(
        long = "set",
        global = true,
        value_name = "SECTION.KEY=VALUE",
        value_parser = setting,
        help_heading = "Global options"
    )]
    pub sets: Vec<String>,
    /// Print results as JSON lines, even on a terminal
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Print tables in full, even if the terminal is narrower
    #[arg(long, global = true, help_heading = "Global options")]
    pub wide: bool,
}

/// Options of every client of the daemon.
#[derive(Debug, Clone, Args)]
pub struct Link {
    /// The daemon's socket [default: $PINWATCH_SOCKET, else intake.socket of the configuration]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

fn setting(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() => Ok(text.to_owned()),
        _ => Err("write section.key=value, such as schedule.deadline=2h".to_owned()),
    }
}
