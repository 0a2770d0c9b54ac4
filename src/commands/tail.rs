//! `pinwatch tail`: outcome records as they are, the newest or all from one on.
//!
//! Promises with `-f` that no record is left out or printed twice, also over restarts of the daemon: it
//! always asks for the seq after the last that it printed, and never prints a smaller one.

use std::path::Path;

use super::cli::TailArgs;
use super::client::{Client, ClientError};
use super::error::CommandError;
use super::exit::Exit;
use super::human::OutcomeRows;
use super::output::Output;
use super::protocol::{Record, Request, Tailed};
use super::reconnect::Reconnect;

pub async fn run(socket: &Path, args: &TailArgs, output: Output) -> Result<Exit, CommandError> {
    let mut client = Client::connect(socket).await?;
    let mut tail = Tail { next: args.from, rows: OutcomeRows::new(32), output };
    let mut reconnect = Reconnect::new();
    loop {
        match tail.session(&mut client, args).await {
            Err(CommandError::Client(error)) if args.follow && error.is_lost() => {
                tail.output.flush()?;
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
    /// The first seq that was not printed; none while that is "of the newest".
    next: Option<i64>,
    rows: OutcomeRows,
    output: Output,
}

impl Tail {
    /// Prints what there is, then follows if that is wanted.
    async fn session(&mut self, client: &mut Client, args: &TailArgs) -> Result<(), CommandError> {
        let last = self.next.is_none().then_some(args.last);
        client.send(&Request::Tail { from: self.next, last, follow: false }).await?;
        loop {
            match client.tailed_due().await? {
                (Tailed::Record(record), line) => self.print(&record, line)?,
                (Tailed::End { next }, _) => {
                    // With no outcome at all, only this says where to go on.
                    self.next = self.next.max(Some(next));
                    break;
                }
            }
        }
        if !args.follow {
            return Ok(());
        }
        client.send(&Request::Tail { from: self.next, last: None, follow: true }).await?;
        loop {
            if !client.has_next() {
                self.output.flush()?;
            }
            match client.tailed().await? {
                (Tailed::Record(record), line) => self.print(&record, line)?,
                // A tail that follows has no end but that of the daemon.
                (Tailed::End { .. }, _) => return Err(ClientError::Closed.into()),
            }
        }
    }

    fn print(&mut self, record: &Record, line: &[u8]) -> Result<(), CommandError> {
        if self.next.is_some_and(|next| record.seq < next) {
            return Ok(());
        }
        self.next = Some(record.seq.saturating_add(1));
        if self.output.is_json() { self.output.json(line) } else { self.output.text(&self.rows.row(record)) }
    }
}
