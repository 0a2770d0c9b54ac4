//! `pinwatch replay`, `pinwatch dead-letters replay` and `drop`: request that a sink receives outcomes again, or never.
//!
//! Promises to report for each named PIN or seq whether there was anything to do, and to end with 1 if there was nothing for
//! some: the user believes that there is.

use std::path::Path;

use futures_util::stream;
use serde_json::json;

use super::admin_cli::{LettersArgs, ReplayArgs};
use super::all_matching::{self, Action, Deed};
use super::client::{self, Client, ClientError};
use super::error::CommandError;
use super::exit::Exit;
use super::output::{Output, note};
use crate::pin::PinId;
use crate::protocol::filter::{About, Filter};
use crate::protocol::{self, drop, replay};

/// Outcomes that the command line names.
#[derive(Clone, Copy)]
enum Named<'a> {
    Pin(&'a PinId),
    Seq(i64),
    Range(i64, i64),
}

/// `pinwatch replay`
pub async fn run(socket: &Path, args: &ReplayArgs, output: Output) -> Result<Exit, CommandError> {
    let filter = args.filter.filter(About::OutcomesAtSink)?;
    if args.all {
        let action = Action::AtSink(Deed::Replay, &args.sink);
        return all_matching::run(socket, action, &filter, args.yes, output).await;
    }
    check_no_filter(&filter)?;
    let ids = args.ids.iter().map(Named::Pin);
    let range = args.from.zip(args.to).map(|(from, to)| Named::Range(from, to));
    if let Some((from, to)) = args.from.zip(args.to).filter(|(from, to)| from > to) {
        return Err(CommandError::Usage(format!("--from {from} is after --to {to}")));
    }
    carry_out(socket, Deed::Replay, &args.sink, ids.chain(range).collect(), output).await
}

/// `pinwatch dead-letters replay`
pub async fn dead(socket: &Path, args: &LettersArgs, output: Output) -> Result<Exit, CommandError> {
    letters(socket, Deed::ReplayDead, args, output).await
}

/// `pinwatch dead-letters drop`
pub async fn drop(socket: &Path, args: &LettersArgs, output: Output) -> Result<Exit, CommandError> {
    letters(socket, Deed::Drop, args, output).await
}

async fn letters(
    socket: &Path,
    deed: Deed,
    args: &LettersArgs,
    output: Output,
) -> Result<Exit, CommandError> {
    let filter = args.filter.filter(About::OutcomesAtSink)?;
    if args.all {
        let action = Action::AtSink(deed, &args.sink);
        return all_matching::run(socket, action, &filter, args.yes, output).await;
    }
    check_no_filter(&filter)?;
    let ids = args.ids.iter().map(Named::Pin);
    let seqs = args.seqs.iter().map(|seq| Named::Seq(*seq));
    carry_out(socket, deed, &args.sink, ids.chain(seqs).collect(), output).await
}

fn check_no_filter(filter: &Filter) -> Result<(), CommandError> {
    if filter.is_empty() {
        return Ok(());
    }
    Err(CommandError::Usage("a filter needs --all: it is about everything that matches".to_owned()))
}

async fn carry_out(
    socket: &Path,
    deed: Deed,
    sink: &str,
    named: Vec<Named<'_>>,
    mut output: Output,
) -> Result<Exit, CommandError> {
    let mut client = Client::connect(socket).await?;
    let requests = named.into_iter().map(|named| (named, deed.request(sink, named)));
    let (mut total, mut exit) = (0, Exit::Done);
    client
        .pipeline(stream::iter(requests), |named, line, _| {
            match client::parse::<replay::Request>(line) {
                Ok(replay::Answer { count, .. }) => {
                    total += count;
                    if count == 0 {
                        note(format_args!("{named}: {}", deed.nothing()));
                        exit = Exit::Failed;
                    }
                    if output.is_json() {
                        let mut line = named.json(sink);
                        line["count"] = count.into();
                        output.json(line.to_string().as_bytes())?;
                    }
                }
                Err(ClientError::Refused(refusal)) => {
                    note(format_args!("{named}: refused: {}", refusal));
                    output.refused(named.json(sink), &refusal)?;
                    exit = Exit::Failed;
                }
                Err(error) => return Err(CommandError::from(error)),
            }
            Ok(())
        })
        .await?;
    if !output.is_json() {
        output.text(&format!("{}\n", deed.done(total)))?;
    }
    output.flush()?;
    Ok(exit)
}

impl Deed {
    /// The line of the request. All these requests have the same kind of answer.
    fn request(self, sink: &str, named: Named<'_>) -> Vec<u8> {
        let (pin_id, from, to) = match named {
            Named::Pin(pin) => (Some(pin.clone()), None, None),
            Named::Seq(seq) => (None, Some(seq), Some(seq)),
            Named::Range(from, to) => (None, Some(from), Some(to)),
        };
        let sink = sink.to_owned();
        match self {
            Self::Drop => protocol::request(&drop::Request { sink, pin_id, from, to, ..Default::default() }),
            Self::Replay | Self::ReplayDead => {
                let dead = self == Self::ReplayDead;
                protocol::request(&replay::Request { sink, pin_id, from, to, dead, ..Default::default() })
            }
        }
    }

    /// Why no outcome was found.
    fn nothing(self) -> &'static str {
        match self {
            Self::Replay => {
                "nothing to replay: not there yet, on its way to the sink, or past store.retention"
            }
            Self::ReplayDead | Self::Drop => "no dead letter of this sink",
        }
    }
}

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pin(pin) => write!(f, "PIN {pin}"),
            Self::Seq(seq) => write!(f, "seq {seq}"),
            Self::Range(from, to) => write!(f, "seq {from} to {to}"),
        }
    }
}

impl Named<'_> {
    /// The members of a JSON line that identify the named outcomes.
    fn json(self, sink: &str) -> serde_json::Value {
        match self {
            Self::Pin(pin) => json!({"sink": sink, "pinId": pin.as_str()}),
            Self::Seq(seq) => json!({"sink": sink, "seq": seq}),
            Self::Range(from, to) => json!({"sink": sink, "from": from, "to": to}),
        }
    }
}
