//! `pinwatch tail`: prints outcome records unchanged, the newest or all from a position on.
//!
//! Promises with `-f` that no record is left out or printed twice, across restarts of the daemon and whichever node finds an
//! outcome: it continues from the last position that it received, and remembers what it printed since. It reports outcomes
//! removed before it could print them on stderr, and among the positions too.

use std::collections::HashSet;
use std::path::Path;

use super::cli::TailArgs;
use super::client::{Client, ClientError};
use super::error::CommandError;
use super::exit::Exit;
use super::human::OutcomeRows;
use super::output::{Output, note};
use super::reconnect::Reconnect;
use crate::protocol::Record;
use crate::protocol::filter::{About, Filter};
use crate::protocol::tail::{Answer, Line, Range, Request, Start};

pub async fn run(socket: &Path, args: &TailArgs, output: Output) -> Result<Exit, CommandError> {
    let filter = args.filter.filter(About::Outcomes)?;
    let mut client = Client::connect(socket).await?;
    let mut tail = Tail {
        filter,
        start: args.from.clone(),
        printed: HashSet::new(),
        again: HashSet::new(),
        rows: output.outcome_rows(32),
        output,
    };
    let mut reconnect = Reconnect::new();
    loop {
        match tail.session(&mut client, args).await {
            Err(CommandError::Client(error)) if args.follow && error.is_lost() => {
                tail.output.flush()?;
                tail.again.extend(tail.printed.drain());
                drop(client);
                client = reconnect.again(socket, &error).await;
            }
            end => {
                tail.output.flush()?;
                return end.map(|()| Exit::Done);
            }
        }
    }
}

struct Tail {
    filter: Filter,
    /// The last position received, or where to begin; `None` means "at the newest".
    start: Option<Start>,
    /// The seqs of the outcomes printed since that position, at most one page of the daemon.
    printed: HashSet<i64>,
    /// The seqs of outcomes that an earlier session printed since that position, and that the daemon will send again.
    again: HashSet<i64>,
    rows: OutcomeRows,
    output: Output,
}

impl Tail {
    /// Prints the existing outcomes, then follows if `args.follow`.
    async fn session(&mut self, client: &mut Client, args: &TailArgs) -> Result<(), CommandError> {
        let last = self.start.is_none().then_some(args.last);
        let request = Request {
            from: self.start.clone(),
            last,
            follow: args.follow,
            positions: true,
            filter: self.filter.clone(),
        };
        client.send(&request).await?;
        let mut is_answered = false;
        loop {
            if !client.has_next() {
                self.output.flush()?;
            }
            // The first line must come soon, and so must all lines of a tail that does not follow.
            let (tailed, line) = match is_answered && args.follow {
                true => client.tailed().await?,
                false => client.tailed_due().await?,
            };
            is_answered = true;
            match tailed {
                Line::Record(record) => self.print(&record, line)?,
                Line::Notice(Answer::Position { position }) => {
                    if args.positions {
                        self.output.json(line)?;
                    }
                    self.start = Some(Start::Position(position));
                    self.printed.clear();
                }
                Line::Notice(Answer::Removed { removed: Range { from, to } }) => {
                    if args.positions {
                        self.output.json(line)?;
                    }
                    self.output.flush()?;
                    note(format_args!(
                        "outcomes from seq {from} to {to} are missing here: store.retention removed them before they were read"
                    ));
                }
                // A tail that follows ends only when the daemon does.
                Line::Notice(Answer::End { .. }) if args.follow => return Err(ClientError::Closed.into()),
                Line::Notice(Answer::End { .. }) => return Ok(()),
            }
        }
    }

    fn print(&mut self, record: &Record, line: &[u8]) -> Result<(), CommandError> {
        let came_before = self.again.remove(&record.seq);
        if !self.printed.insert(record.seq) || came_before {
            return Ok(());
        }
        if self.output.is_json() { self.output.json(line) } else { self.output.text(&self.rows.row(record)) }
    }
}
