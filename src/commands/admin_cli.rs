//! The arguments of `dead-letters`, `replay` and `sinks`, and their help.
//!
//! A PIN ID can be a bare number, so a bare argument is always a PIN ID; a seq needs `--seq`. Promises, like [`cli`](super::cli),
//! that arguments that parse are well formed. Must not know the daemon.

use clap::builder::RangedU64ValueParser;
use clap::{ArgGroup, Args, Subcommand};

use super::filter_args::FilterArgs;
use super::globals::Link;
use super::help;
use crate::pin::PinId;

#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// List dead letters
    #[command(after_help = help::DEAD_LETTERS_LIST)]
    List(LettersListArgs),
    /// Show everything about a dead letter
    #[command(after_help = help::DEAD_LETTERS_SHOW)]
    Show(LettersShowArgs),
    /// Deliver dead letters again, under the same id
    #[command(
        after_help = help::DEAD_LETTERS_REPLAY,
        override_usage = "pinwatch dead-letters replay --sink <NAME> <ID|--seq <SEQ>|--all>"
    )]
    Replay(LettersArgs),
    /// Discard dead letters
    #[command(
        after_help = help::DEAD_LETTERS_DROP,
        override_usage = "pinwatch dead-letters drop --sink <NAME> <ID|--seq <SEQ>|--all>"
    )]
    Drop(LettersArgs),
}

#[derive(Debug, Subcommand)]
pub enum Sinks {
    /// List the sinks: the progress of each, and what stops it
    #[command(after_help = help::SINKS_LIST)]
    List(Link),
    /// Forget a sink that is no longer configured, and its dead letters
    #[command(after_help = help::SINKS_FORGET)]
    Forget(ForgetArgs),
}

#[derive(Debug, Args)]
pub struct LettersListArgs {
    /// List only dead letters of this sink
    #[arg(long, value_name = "NAME")]
    pub sink: Option<String>,
    /// The most dead letters to list
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = RangedU64ValueParser::<u32>::new().range(1..))]
    pub limit: u32,
    /// Continue a list: the token that the previous one printed at its end
    #[arg(long, value_name = "TOKEN")]
    pub after: Option<String>,
    #[command(flatten)]
    pub link: Link,
    #[command(flatten)]
    pub filter: FilterArgs,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").args(["id", "seq"]).required(true))]
pub struct LettersShowArgs {
    /// PIN ID
    #[arg(value_name = "ID")]
    pub id: Option<PinId>,
    /// Instead of a PIN ID: the outcome's seq
    #[arg(long, value_name = "SEQ")]
    pub seq: Option<i64>,
    /// Show only the dead letter of this sink
    #[arg(long, value_name = "NAME")]
    pub sink: Option<String>,
    #[command(flatten)]
    pub link: Link,
}

/// Selects dead letters of a sink.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").args(["ids", "seqs", "all"]).required(true))]
pub struct LettersArgs {
    /// PIN IDs
    #[arg(value_name = "ID")]
    pub ids: Vec<PinId>,
    /// Instead of PIN IDs: the outcomes' seqs; repeatable
    #[arg(long = "seq", value_name = "SEQ", value_delimiter = ',')]
    pub seqs: Vec<i64>,
    /// All dead letters of the sink that match the filters, after confirmation
    #[arg(long)]
    pub all: bool,
    /// Show how many match, but do not ask
    #[arg(long, requires = "all")]
    pub yes: bool,
    /// The sink
    #[arg(long, value_name = "NAME")]
    pub sink: String,
    #[command(flatten)]
    pub link: Link,
    #[command(flatten)]
    pub filter: FilterArgs,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").args(["ids", "from", "all"]).required(true))]
pub struct ReplayArgs {
    /// PIN IDs: the newest outcome of each
    #[arg(value_name = "ID")]
    pub ids: Vec<PinId>,
    /// Instead of PIN IDs: the outcomes from this seq to the one of --to
    #[arg(long, value_name = "SEQ", requires = "to")]
    pub from: Option<i64>,
    /// The last seq, included
    #[arg(long, value_name = "SEQ", requires = "from")]
    pub to: Option<i64>,
    /// Every outcome that matches the filters, after confirmation; without filters, every outcome that is kept
    #[arg(long)]
    pub all: bool,
    /// Show how many match, but do not ask
    #[arg(long, requires = "all")]
    pub yes: bool,
    /// The sink
    #[arg(long, value_name = "NAME")]
    pub sink: String,
    #[command(flatten)]
    pub link: Link,
    #[command(flatten)]
    pub filter: FilterArgs,
}

#[derive(Debug, Args)]
pub struct ForgetArgs {
    /// The sink
    #[arg(value_name = "NAME")]
    pub name: String,
    #[command(flatten)]
    pub link: Link,
}
