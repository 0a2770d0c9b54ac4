//! The command line: starts the daemon, and sends it requests.
//!
//! Each command is a file. Results go to stdout, everything else to stderr; people get tables, programs get JSON lines. A client
//! reaches the daemon only through its socket, with the types of [`protocol`](crate::protocol), like any other program, and must
//! not know the store or the schedule. Only `migrate-store` and `backup` open stores themselves, and need no daemon. [`exit`]
//! defines the exit statuses.

mod admin_cli;
mod all_matching;
mod backup;
mod cancel;
mod chart;
mod check_config;
mod cli;
mod client;
mod config;
mod dead_letters;
mod demo;
mod doctor;
mod error;
mod exit;
mod filter_args;
mod finding;
mod globals;
mod help;
mod human;
mod input;
mod journal;
mod list;
mod log_queue;
mod log_rate_limit;
mod logging;
mod migrate_store;
mod nodes;
mod output;
mod pages;
mod ping;
mod presets;
mod progress;
mod reconnect;
mod replay;
mod run;
mod sandbox;
mod schedule;
mod send_test;
mod show;
mod sinks;
mod stats;
mod stop_signal;
mod submit;
mod table;
mod tail;
mod token;
mod top;
mod wait;
mod watch;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::{ExitCode, Termination};

use clap::Parser;
use clap::error::ErrorKind;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::runtime::Builder;

use admin_cli::{DeadLetters, Sinks};
use cli::{Cli, Command, Token};
use error::CommandError;
pub use exit::Exit;
use globals::{Globals, Link};
use output::Output;

/// Parses the command line, runs the command, and returns its exit status.
pub fn main() -> ExitCode {
    // Several commands read keys and passwords, which a core dump would contain. This works whatever the core pattern and
    // RLIMIT_CORE are, keeps other processes of the same user from reading the memory, and can't fail on Linux.
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        output::note(format_args!(
            "core dumps can't be switched off ({error}): one would have the key in it"
        ));
    }
    run(std::env::args_os()).report()
}

/// Runs a command line in this process; for `fuzz/checks`.
#[doc(hidden)]
pub fn run(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let (ended, is_json) = match Cli::try_parse_from(&arguments) {
        // clap answers as soon as it reads --version, whatever follows.
        Err(answer)
            if answer.kind() == ErrorKind::DisplayVersion
                && arguments.iter().any(|one| one == "--verbose") =>
        {
            (pages::build(), false)
        }
        Ok(cli) => {
            let is_json = is_json(&cli);
            (dispatch(cli, is_json), is_json)
        }
        Err(answer) => (output::clap(answer, wants_json(&arguments)), false),
    };
    ended.unwrap_or_else(|error| {
        if !error.is_broken_pipe() {
            error::error_lines(&error).iter().for_each(output::note);
        }
        if is_json {
            let mut output = Output::new(true, false);
            // Writing to stdout may be what failed.
            let _ = output.refused(serde_json::Value::Null, &error.refusal()).and_then(|()| output.flush());
        }
        Exit::from(&error)
    })
}

/// As [`is_json`], of a command line that clap refuses.
fn wants_json(arguments: &[OsString]) -> bool {
    const TEXT: [&str; 8] = ["run", "simulate", "demo", "socket", "completions", "man", "token", "top"];
    let mut options = arguments.iter().skip(1).take_while(|argument| *argument != "--");
    let is_text = arguments.iter().skip(1).any(|argument| TEXT.iter().any(|name| argument == name));
    options.any(|argument| argument == "--json") || !is_text && !std::io::stdout().is_terminal()
}

/// Whether results and errors are printed as lines of JSON on stdout: with `--json`, or if stdout is not a terminal.
fn is_json(Cli { globals, command, .. }: &Cli) -> bool {
    let is_text = match command {
        Command::Run | Command::Simulate(_) | Command::Demo(_) => true,
        Command::Socket(_) | Command::Completions(_) | Command::Man(_) => true,
        // For TOKEN=$(pinwatch token new …).
        Command::Token(_) => true,
        // A frame is for people.
        Command::Top(_) => true,
        // For presets NAME > FILE.
        Command::Presets(args) => args.name.is_some(),
        Command::Tail(args) if args.positions => return true,
        _ => false,
    };
    globals.json || !is_text && !std::io::stdout().is_terminal()
}

fn dispatch(Cli { globals, verbose, command }: Cli, is_json: bool) -> Result<Exit, CommandError> {
    if verbose {
        return Err(CommandError::Usage("--verbose makes no sense here: it goes with --version".to_owned()));
    }
    let output = || Output::new(is_json, globals.wide);
    let socket = |link: &Link| socket(&globals, link);
    match command {
        Command::Run => {
            refuse_shape(&globals, "run has no results; for JSON logs, use --set log.format=json")?;
            self::run::run(&globals)
        }
        Command::Submit(args) => block_on(submit::run(&socket(&args.link)?, args, output())),
        Command::Wait(args) => block_on(wait::run(&socket(&args.link)?, &args, output())),
        Command::Show(args) => block_on(show::run(&socket(&args.link)?, &args, output())),
        Command::List(args) => block_on(list::run(&socket(&args.link)?, &args, output())),
        Command::Cancel(args) => block_on(cancel::run(&socket(&args.link)?, &args, output())),
        Command::Tail(args) => block_on(tail::run(&socket(&args.link)?, &args, output())),
        Command::DeadLetters(DeadLetters::List(args)) => {
            block_on(dead_letters::list(&socket(&args.link)?, &args, output()))
        }
        Command::DeadLetters(DeadLetters::Show(args)) => {
            block_on(dead_letters::show(&socket(&args.link)?, &args, output()))
        }
        Command::DeadLetters(DeadLetters::Replay(args)) => {
            block_on(replay::dead(&socket(&args.link)?, &args, output()))
        }
        Command::DeadLetters(DeadLetters::Drop(args)) => {
            block_on(replay::drop(&socket(&args.link)?, &args, output()))
        }
        Command::Replay(args) => block_on(replay::run(&socket(&args.link)?, &args, output())),
        Command::Sinks(Sinks::List(link)) => block_on(sinks::list(&socket(&link)?, output())),
        Command::Sinks(Sinks::Forget(args)) => block_on(sinks::forget(&socket(&args.link)?, &args, output())),
        Command::Stats(link) => block_on(stats::run(&socket(&link)?, output())),
        Command::Top(args) => {
            if globals.wide {
                return Err(CommandError::Usage(
                    "--wide makes no sense here: top fits the terminal".to_owned(),
                ));
            }
            block_on(top::run(&socket(&args.link)?, args.once, output()))
        }
        Command::Schedule(link) => block_on(schedule::run(&socket(&link)?, output())),
        Command::Nodes(link) => block_on(nodes::run(&socket(&link)?, output())),
        Command::Token(Token::New(args)) => token::new(&args, output()),
        Command::Ping(link) => block_on(ping::run(&socket(&link)?, output())),
        Command::Socket(link) => {
            let (path, mut output) = (socket(&link)?, output());
            if output.is_json() {
                output.json(serde_json::json!({"socket": path.to_string_lossy()}).to_string().as_bytes())?;
            } else {
                output.text(&format!("{}\n", path.display()))?;
            }
            output.flush()?;
            Ok(Exit::Done)
        }
        Command::Presets(args) => presets::run(&args, output()),
        Command::CheckConfig => check_config::run(&globals, output()),
        Command::Backup(args) => block_on(backup::run(&globals, &args, output())),
        Command::MigrateStore(args) => block_on(migrate_store::run(&args, output())),
        Command::Doctor(args) => block_on(doctor::run(&globals, &args, output())),
        Command::Simulate(args) => {
            refuse_shape(&globals, "simulate has no results")?;
            run::simulate(args)
        }
        Command::Demo(args) => {
            refuse_shape(&globals, "demo is for people; \"pinwatch tail --json\" prints outcomes as JSON")?;
            demo::run(&args)
        }
        Command::Completions(args) => {
            refuse_shape(&globals, "a completion script has no JSON form")?;
            pages::completions(args.shell)
        }
        Command::Man(args) => {
            refuse_shape(&globals, "a manual page has no JSON form")?;
            pages::man(args.dir.as_deref())
        }
    }
}

fn socket(globals: &Globals, link: &Link) -> Result<PathBuf, CommandError> {
    Ok(config::client_socket(globals, link.socket.as_ref())?)
}

/// Refuses options that would have no effect.
fn refuse_shape(globals: &Globals, why_no_json: &str) -> Result<(), CommandError> {
    let refused = match globals {
        Globals { json: true, .. } => format!("--json makes no sense here: {why_no_json}"),
        Globals { wide: true, .. } => "--wide makes no sense here: there is no table".to_owned(),
        _ => return Ok(()),
    };
    Err(CommandError::Usage(refused))
}

/// Runs a client on one thread, which starts quickly: a client has one connection and nothing else to do.
fn block_on(client: impl Future<Output = Result<Exit, CommandError>>) -> Result<Exit, CommandError> {
    Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(CommandError::Runtime)?
        .block_on(client)
}
