//! Waiting for the outcomes of a set of PINs, over restarts of the daemon.
//!
//! One tail from a position known beforehand, rather than a `wait` for each PIN: one connection whatever the
//! number, outcomes in the order in which they come, and after a restart it goes on where it was. The position is
//! taken before anything is asked about a PIN, so an outcome that comes in between is in the tail. After each
//! reconnection, and where outcomes were removed before the tail came to them, all PINs are asked about once more: one
//! that the daemon no longer knows will never come.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use futures_util::stream;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::client::{self, Client, ClientError};
use super::error::CommandError;
use super::exit::Exit;
use super::human::{self, OutcomeRows};
use super::output::Output;
use super::progress::Progress;
use super::protocol::{Record, Refusal, Request, Shown, Start, Story, Tailed};
use super::reconnect::Reconnect;

/// PINs that are named in a message; of the others only the number is told.
const NAMED: usize = 20;

/// A set of PINs whose outcomes are waited for.
pub struct Watch {
    waiting: HashSet<Box<str>>,
    /// All up to here was seen; none before the first session.
    position: Option<Start>,
    /// Whether PINs may have finished before `position`, or be unknown.
    needs_check: bool,
    has_undelivered: bool,
    unknown: u64,
    printed: u64,
    rows: OutcomeRows,
    output: Output,
    progress: Progress,
}

impl Watch {
    /// Waits for PINs of which nothing is known.
    pub fn of(pins: impl IntoIterator<Item = Box<str>>, output: Output) -> Self {
        let waiting: HashSet<_> = pins.into_iter().collect();
        let width = waiting.iter().map(|pin| pin.len()).max().unwrap_or(0);
        Self { needs_check: true, waiting, ..Self::new(None, width, output) }
    }

    /// Will wait for PINs that are added while they are submitted, after `position` was asked for.
    pub fn from(position: String, output: Output) -> Self {
        Self::new(Some(Start::Position(position)), 32, output)
    }

    fn new(position: Option<Start>, pin_width: usize, output: Output) -> Self {
        Self {
            waiting: HashSet::new(),
            position,
            needs_check: false,
            has_undelivered: false,
            unknown: 0,
            printed: 0,
            rows: output.outcome_rows(pin_width),
            output,
            progress: Progress::hidden(),
        }
    }

    /// Adds a PIN that the daemon has in flight.
    pub fn add(&mut self, pin: &str) {
        self.waiting.insert(pin.into());
    }

    /// Prints an outcome, and no longer waits for its PIN.
    pub fn take(&mut self, record: &Record, line: &[u8]) -> Result<(), CommandError> {
        self.waiting.remove(record.pin_id.as_str());
        self.has_undelivered |= record.delivered != Some(true);
        self.printed += 1;
        if self.output.is_json() {
            self.output.json(line)?;
        } else {
            let row = self.rows.row(record);
            let output = &mut self.output;
            self.progress.above(|| output.text(&row).and_then(|()| output.flush()))?;
        }
        self.progress.set(self.printed);
        Ok(())
    }

    /// Tells a program why a PIN has no outcome.
    pub fn refused(&mut self, named: Value, refusal: &Refusal) -> Result<(), CommandError> {
        self.output.refused(named, refusal)
    }

    /// Shows what was printed so far.
    pub fn flush(&mut self) -> Result<(), CommandError> {
        self.output.flush()
    }

    /// Waits until all have their outcome, or the time is up.
    pub async fn run(
        mut self,
        path: &Path,
        client: Client,
        within: Option<Duration>,
    ) -> Result<Exit, CommandError> {
        if self.waiting.len() > 1 {
            self.progress = Progress::of_outcomes(self.waiting.len() as u64 + self.printed);
            self.progress.set(self.printed);
        }
        let sessions = self.sessions(path, client);
        let in_time = match within {
            Some(within) => timeout(within, sessions).await,
            None => Ok(sessions.await),
        };
        self.progress.end();
        let mut exit = Exit::Done;
        match in_time {
            Ok(result) => {
                self.output.flush()?;
                result?;
            }
            Err(_elapsed) => {
                self.tell_missing()?;
                exit = exit.or_worse(Exit::TimedOut);
            }
        }
        if self.has_undelivered {
            exit = exit.or_worse(Exit::NotDelivered);
        }
        if self.unknown > 0 {
            exit = exit.or_worse(Exit::Failed);
        }
        Ok(exit)
    }

    async fn sessions(&mut self, path: &Path, mut client: Client) -> Result<(), CommandError> {
        let mut reconnect = Reconnect::new();
        loop {
            match self.session(&mut client).await {
                Err(CommandError::Client(error)) if error.is_lost() => {
                    self.output.flush()?;
                    // The old connection is closed before a new one is asked for.
                    drop(client);
                    client = reconnect.again(path, &error).await;
                    self.needs_check = true;
                }
                // The tail has the connection.
                Ok(()) if self.needs_check => {
                    drop(client);
                    client = Client::connect(path).await?;
                }
                end => return end,
            }
        }
    }

    /// Ends when nobody is waited for any more, or when PINs are to be asked about.
    async fn session(&mut self, client: &mut Client) -> Result<(), CommandError> {
        if self.position.is_none() {
            self.position = Some(Start::Position(client.newest_position().await?));
        }
        if self.needs_check {
            self.check(client).await?;
            self.needs_check = false;
        }
        if self.waiting.is_empty() {
            return Ok(());
        }
        let from = self.position.as_ref();
        client.send(&Request::Tail { from, last: None, follow: true, positions: true }).await?;
        while !self.waiting.is_empty() {
            if !client.has_next() {
                self.output.flush()?;
            }
            match client.tailed().await? {
                (Tailed::Record(record), line) => {
                    if self.waiting.contains(record.pin_id.as_str()) {
                        self.take(&record, line)?;
                    }
                }
                (Tailed::Removed { .. }, _) => self.needs_check = true,
                (Tailed::Position(position), _) => {
                    self.position = Some(Start::Position(position));
                    // Only here, so that what was removed is behind it.
                    if self.needs_check {
                        return Ok(());
                    }
                }
                // A tail that follows has no end but that of the daemon.
                (Tailed::End { .. }, _) => return Err(ClientError::Closed.into()),
            }
        }
        Ok(())
    }

    /// Asks about every PIN: which have their outcome already, and which are unknown.
    async fn check(&mut self, client: &mut Client) -> Result<(), CommandError> {
        let mut pins: Vec<_> = self.waiting.iter().cloned().collect();
        pins.sort_unstable();
        let requests = pins.into_iter().map(|pin| {
            let line = Request::Show { pin_id: &pin }.line();
            (pin, line)
        });
        client
            .pipeline(stream::iter(requests), |pin, line, _| match client::parse::<Shown>(line) {
                Ok(shown) => {
                    let story: Story = client::read(shown.pin.get().as_bytes())?;
                    match story.outcome {
                        Some(outcome) if story.state == "finished" => {
                            let record = client::read(outcome.get().as_bytes())?;
                            self.take(&record, outcome.get().as_bytes())
                        }
                        _ => Ok(()),
                    }
                }
                Err(ClientError::Refused(refusal)) if refusal.is_not_found() => {
                    self.waiting.remove(&pin);
                    self.unknown += 1;
                    self.progress.note(format_args!("the daemon does not know PIN {pin}: submit it first"));
                    self.refused(json!({"pinId": pin}), &refusal)
                }
                Err(error) => Err(error.into()),
            })
            .await
    }

    fn tell_missing(&mut self) -> Result<(), CommandError> {
        let mut pins: Vec<_> = self.waiting.iter().map(|pin| &**pin).collect();
        pins.sort_unstable();
        let refusal = Refusal::new("timeout", "the time was up before there was an outcome");
        for pin in &pins {
            self.output.refused(json!({"pinId": pin}), &refusal)?;
        }
        self.output.flush()?;
        let more = if pins.len() > NAMED { ", …" } else { "" };
        pins.truncate(NAMED);
        self.progress.note(format_args!(
            "timed out: {} without an outcome yet, still in flight: {}{more}",
            human::count(self.waiting.len() as u64, "PIN"),
            pins.join(", "),
        ));
        Ok(())
    }
}
