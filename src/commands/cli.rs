//! Defines the command line and the texts of `--help`.
//!
//! Promises that parsed arguments are well formed; usage errors end here, with status 2. Must not execute anything.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, RangedU64ValueParser};
use clap::{ArgGroup, Args, Parser, Subcommand};

use super::admin_cli::{DeadLetters, ReplayArgs, Sinks};
use super::backup::BackupArgs;
use super::filter_args::{FilterArgs, OutcomeFilterArgs};
use super::globals::{Globals, Link};
use super::help;
use super::migrate_store::MigrateStoreArgs;
use crate::config::PRESETS;
use crate::http::tokens::{Name, Scope};
use crate::outcome::Metadata;
use crate::pin::PinId;
use crate::protocol::parse_duration;
use crate::protocol::submit::parse_deadline;
use crate::protocol::tail::Start;
use crate::simulate::{Preset, SimulateArgs};

/// Waits for the final status of Infobip 2FA PINs, and delivers how each ended
#[derive(Debug, Parser)]
#[command(
    name = "pinwatch",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    // Independent of the terminal's width: a narrower terminal wraps long lines itself, and they can still be copied as one.
    term_width = 80,
    after_help = help::TOP
)]
pub struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    /// With --version: print what the program is built from
    #[arg(long)]
    pub verbose: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon
    #[command(after_help = help::RUN)]
    Run,
    /// Submit PINs
    #[command(after_help = help::SUBMIT)]
    Submit(SubmitArgs),
    /// Wait for PINs' outcomes
    #[command(after_help = help::WAIT)]
    Wait(WaitArgs),
    /// Show everything about a PIN, by its ID or its reference
    #[command(after_help = help::SHOW)]
    Show(ShowArgs),
    /// List the PINs in flight, or finished ones
    #[command(after_help = help::LIST)]
    List(ListArgs),
    /// Withdraw PINs; their outcome is "cancelled"
    #[command(after_help = help::CANCEL)]
    Cancel(CancelArgs),
    /// Print outcomes: the newest ones, or all from a given one on
    #[command(after_help = help::TAIL)]
    Tail(TailArgs),
    /// List, show, replay or drop outcomes that a sink did not accept
    #[command(subcommand, after_help = help::DEAD_LETTERS, arg_required_else_help = true, disable_help_subcommand = true)]
    DeadLetters(DeadLetters),
    /// Deliver outcomes to a sink again, under the same id
    #[command(after_help = help::REPLAY)]
    Replay(ReplayArgs),
    /// List the sinks, or forget one that is no longer configured
    #[command(subcommand, after_help = help::SINKS, arg_required_else_help = true, disable_help_subcommand = true)]
    Sinks(Sinks),
    /// Print the daemon's statistics
    #[command(after_help = help::STATS)]
    Stats(Link),
    /// Watch the daemon live: verdict, numbers, sinks, and the oldest PINs in flight
    #[command(after_help = help::LIVE)]
    Top(TopArgs),
    /// Show at which ages PINs are polled, what that costs, and what was learned
    #[command(after_help = help::SCHEDULE)]
    Schedule(Link),
    /// List the nodes, if several machines share the PINs
    #[command(after_help = help::NODES)]
    Nodes(Link),
    /// Check that the daemon answers
    #[command(after_help = help::PING)]
    Ping(Link),
    /// Print the path of the daemon's socket, for programs that use it
    #[command(after_help = help::SOCKET)]
    Socket(Link),
    /// Make a token for the HTTP API
    #[command(subcommand, after_help = help::TOKEN, arg_required_else_help = true, disable_help_subcommand = true)]
    Token(Token),
    /// List the APIs that api.preset can name, or print one
    #[command(after_help = help::PRESETS)]
    Presets(PresetsArgs),
    /// Check the configuration and print the values in effect
    #[command(after_help = help::CHECK_CONFIG)]
    CheckConfig,
    /// Copy the database to a file, whether the daemon runs or not
    #[command(after_help = help::BACKUP)]
    Backup(BackupArgs),
    /// Move everything from SQLite to PostgreSQL, or back
    #[command(after_help = help::MIGRATE_STORE)]
    MigrateStore(MigrateStoreArgs),
    /// Check key, network, clock and permissions, and say how to solve problems
    #[command(after_help = help::DOCTOR)]
    Doctor(DoctorArgs),
    /// Simulate the API: answer polls for any PIN
    Simulate(SimulateArgs),
    /// Show everything at work for a few seconds, without account, network or root
    #[command(after_help = help::DEMO)]
    Demo(DemoArgs),
    /// Print a completion script for a shell
    #[command(after_help = help::COMPLETIONS)]
    Completions(CompletionsArgs),
    /// Print the manual page, or write one for each command
    #[command(after_help = help::MAN)]
    Man(ManArgs),
}

#[derive(Debug, Args)]
pub struct SubmitArgs {
    /// PIN IDs, or "-" to read them from stdin
    #[arg(value_name = "ID", required_unless_present = "file", conflicts_with = "file")]
    pub ids: Vec<String>,
    /// Read PINs from a file: a line is a PIN ID, or a JSON object with pinId, reference, metadata,
    /// deadline, again
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Your own name for the PIN, which its outcome carries
    #[arg(long, value_name = "TEXT")]
    pub reference: Option<String>,
    /// JSON that the outcome carries unchanged
    #[arg(long, value_name = "JSON", value_parser = metadata)]
    pub metadata: Option<Metadata>,
    /// Give a PIN up if it is not final after this time [default: schedule.deadline]
    #[arg(long, value_name = "DURATION", value_parser = parse_deadline)]
    pub deadline: Option<Duration>,
    /// Poll PINs again that have already finished
    #[arg(long)]
    pub again: bool,
    /// Wait for the outcomes and print them as they come
    #[arg(long)]
    pub wait: bool,
    /// With --wait: how long to wait for all of them [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "wait")]
    pub timeout: Option<Duration>,
    #[command(flatten)]
    pub link: Link,
}

#[derive(Debug, Args)]
pub struct WaitArgs {
    /// PIN IDs
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<PinId>,
    /// How long to wait for all of them [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    #[command(flatten)]
    pub link: Link,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// PIN ID; if no PIN has this ID, the reference
    #[arg(value_name = "ID|REFERENCE")]
    pub what: String,
    /// Treat it as a reference, even if a PIN has this ID
    #[arg(long)]
    pub reference: bool,
    #[command(flatten)]
    pub link: Link,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// The most PINs to list
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = RangedU64ValueParser::<u32>::new().range(1..))]
    pub limit: u32,
    /// Continue a list: the token that the previous one printed at its end
    #[arg(long, value_name = "TOKEN")]
    pub after: Option<String>,
    #[command(flatten)]
    pub link: Link,
    #[command(flatten)]
    pub filter: OutcomeFilterArgs,
}

#[derive(Debug, Args)]
pub struct TopArgs {
    /// Print one frame and end; it takes a second, because rates need two moments
    #[arg(long)]
    pub once: bool,
    #[command(flatten)]
    pub link: Link,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").args(["ids", "all"]).required(true))]
pub struct CancelArgs {
    /// PIN IDs
    #[arg(value_name = "ID")]
    pub ids: Vec<PinId>,
    /// Withdraw every PIN in flight that matches the filters, after confirmation; without filters, every PIN
    #[arg(long)]
    pub all: bool,
    /// Show how many match, but do not ask
    #[arg(long, requires = "all")]
    pub yes: bool,
    #[command(flatten)]
    pub link: Link,
    #[command(flatten)]
    pub filter: FilterArgs,
}

#[derive(Debug, Args)]
pub struct TailArgs {
    /// Continue with new outcomes, also after a restart of the daemon
    #[arg(short, long)]
    pub follow: bool,
    /// How many of the newest outcomes to print
    #[arg(short = 'n', long = "last", value_name = "N", default_value_t = 10)]
    pub last: u32,
    /// Instead, print all outcomes from this seq on, or all after this position
    #[arg(long, value_name = "SEQ|POSITION", conflicts_with = "last", value_parser = start)]
    pub from: Option<Start>,
    /// Also print positions, as JSON; a later tail with --from POSITION continues without gaps or duplicates
    #[arg(long)]
    pub positions: bool,
    #[command(flatten)]
    pub link: Link,
    #[command(flatten)]
    pub filter: OutcomeFilterArgs,
}

#[derive(Debug, Subcommand)]
pub enum Token {
    /// Print a new token, and its line for http.tokens_file
    #[command(after_help = help::TOKEN_NEW)]
    New(TokenNewArgs),
}

#[derive(Debug, Args)]
pub struct TokenNewArgs {
    /// The holder of the token; the log and the history of its PINs show this name
    #[arg(long, value_name = "NAME")]
    pub name: Name,
    /// What it allows: submit (PINs and their outcomes), read (everything that changes nothing), admin (everything)
    #[arg(long, value_name = "SCOPE")]
    pub scope: Scope,
}

#[derive(Debug, Args)]
pub struct PresetsArgs {
    /// The preset to print, as TOML
    #[arg(value_parser = PossibleValuesParser::new(PRESETS.iter().map(|preset| preset.name)))]
    pub name: Option<String>,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Ask the API about this PIN, and show how each field of the answer is read
    #[arg(long, value_name = "ID")]
    pub pin: Option<PinId>,
    /// Make no check; send one signed test delivery to this webhook, which the configuration has
    #[arg(long, value_name = "SINK", conflicts_with = "pin")]
    pub send_test: Option<String>,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// How many PINs
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = RangedU64ValueParser::<u64>::new().range(1..=1000))]
    pub pins: u64,
    /// The same seed makes the PINs end in the same way
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// The API that is simulated
    #[arg(long, value_name = "NAME", default_value = "infobip-2fa-pin", value_enum)]
    pub preset: Preset,
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write a page for each command into this directory, which is created if missing
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Parses a seq or a position. Only checks how a position begins; the daemon parses it.
fn start(text: &str) -> Result<Start, String> {
    match text.parse() {
        Ok(seq) => Ok(Start::Seq(seq)),
        Err(_) if text.starts_with('p') => Ok(Start::Position(text.to_owned())),
        Err(_) => Err("write a seq, such as 1200, or a position that --positions printed".to_owned()),
    }
}

fn metadata(text: &str) -> Result<Metadata, String> {
    serde_json::from_str(text).map_err(|error| format!("{error}; write JSON, such as '{{\"user\":7}}'"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use unicode_width::UnicodeWidthStr;

    use super::*;

    #[test]
    fn the_definition_of_the_command_line_has_no_contradiction() {
        Cli::command().debug_assert();
    }

    /// Every command and subcommand, as clap builds it at run time.
    fn all() -> Vec<clap::Command> {
        let mut top = Cli::command();
        top.build();
        let (mut all, mut to_go) = (Vec::new(), vec![top]);
        while let Some(command) = to_go.pop() {
            to_go.extend(command.get_subcommands().cloned());
            all.push(command);
        }
        all
    }

    #[test]
    fn help_has_at_most_80_columns_and_breaks_no_line_of_an_example() {
        for mut command in all() {
            let help = command.render_long_help().to_string();
            for line in help.lines() {
                assert!(line.width() <= 80, "{}: {line}", command.get_name());
            }
            let below = command.get_after_help().unwrap_or_default().to_string();
            // Indented lines are examples and tables.
            let examples = below.lines().filter(|line| line.starts_with("  "));
            for example in examples {
                assert!(
                    help.lines().any(|line| line == example),
                    "{}: {example} in {help}",
                    command.get_name()
                );
            }
        }
    }

    #[test]
    fn the_help_of_every_command_has_two_to_four_examples() {
        for command in all() {
            let help = command.get_after_help().unwrap_or_default().to_string();
            let examples = help.lines().filter(|line| line.trim_start().starts_with("pinwatch ")).count();
            assert!((2..=4).contains(&examples), "{} has {examples} examples", command.get_name());
        }
    }
}
