//! Waits for the outcomes of a set of PINs, across restarts of the daemon.
//!
//! Uses one tail from a known position instead of a `wait` per PIN: one connection for any number of PINs, outcomes in their
//! order, and after a restart it continues where it was. It takes the position before it asks about any PIN, so the tail contains
//! an outcome that arrives in between. After each reconnection, and where outcomes were removed before the tail reached them, it
//! asks about all PINs again: a PIN that the daemon no longer knows will never end.

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
use super::reconnect::Reconnect;
use crate::pin::PinId;
use crate::protocol::tail::{Answer, Line, Start};
use crate::protocol::{self, Code, Record, Refusal, State, show, tail};

/// The most PINs that a message names; further ones are only counted.
const NAMED: usize = 20;

/// Waits for the outcomes of a set of PINs.
pub struct Watch {
    waiting: HashSet<PinId>,
    /// All outcomes up to here were seen; `None` before the first session.
    position: Option<Start>,
    /// Whether PINs may have finished before `position` or be unknown to the daemon.
    needs_check: bool,
    has_undelivered: bool,
    unknown: u64,
    printed: u64,
    rows: OutcomeRows,
    output: Output,
    progress: Progress,
}

impl Watch {
    /// Creates a set of PINs that may have finished already.
    pub fn of(pins: impl IntoIterator<Item = PinId>, output: Output) -> Self {
        let waiting: HashSet<_> = pins.into_iter().collect();
        let width = waiting.iter().map(|pin| pin.as_str().len()).max().unwrap_or(0);
        Self { needs_check: true, waiting, ..Self::new(None, width, output) }
    }

    /// Creates an empty set for PINs that are added as they are submitted. `position` must have been read before that.
    pub fn from(position: Start, output: Output) -> Self {
        Self::new(Some(position), 32, output)
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

    /// Adds a PIN that is in flight.
    pub fn add(&mut self, pin: PinId) {
        self.waiting.insert(pin);
    }

    /// Prints an outcome and removes its PIN from the set.
    pub fn take(&mut self, record: &Record, line: &[u8]) -> Result<(), CommandError> {
        self.waiting.remove(&record.pin_id);
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

    /// Flushes the output.
    pub fn flush(&mut self) -> Result<(), CommandError> {
        self.output.flush()
    }

    /// Waits until all PINs have their outcome, or until the time limit.
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
                self.report_missing()?;
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
                    // Closes the old connection before it opens a new one.
                    drop(client);
                    client = reconnect.again(path, &error).await;
                    self.needs_check = true;
                }
                // The tail occupies the old connection.
                Ok(()) if self.needs_check => {
                    drop(client);
                    client = Client::connect(path).await?;
                }
                end => return end,
            }
        }
    }

    /// Follows the outcomes until the set is empty, or until it must ask about the PINs.
    async fn session(&mut self, client: &mut Client) -> Result<(), CommandError> {
        let position = match self.position.clone() {
            Some(position) => position,
            None => self.position.insert(client.newest_position().await?).clone(),
        };
        if self.needs_check {
            self.check(client).await?;
            self.needs_check = false;
        }
        if self.waiting.is_empty() {
            return Ok(());
        }
        client.send(&tail::Request::follow(position)).await?;
        while !self.waiting.is_empty() {
            if !client.has_next() {
                self.output.flush()?;
            }
            match client.tailed().await? {
                (Line::Record(record), line) => {
                    if self.waiting.contains(&record.pin_id) {
                        self.take(&record, line)?;
                    }
                }
                (Line::Notice(Answer::Removed { .. }), _) => self.needs_check = true,
                (Line::Notice(Answer::Position { position }), _) => {
                    self.position = Some(Start::Position(position));
                    // Only now, because this position is after the removed outcomes.
                    if self.needs_check {
                        return Ok(());
                    }
                }
                // A tail that follows ends only when the daemon does.
                (Line::Notice(Answer::End { .. }), _) => return Err(ClientError::Closed.into()),
            }
        }
        Ok(())
    }

    /// Asks about every PIN, whether it has its outcome already or is unknown.
    async fn check(&mut self, client: &mut Client) -> Result<(), CommandError> {
        let mut pins: Vec<_> = self.waiting.iter().cloned().collect();
        pins.sort_unstable();
        let requests = pins.into_iter().map(|pin| {
            let line = protocol::request(&show::Request::Pin(pin.clone()));
            (pin, line)
        });
        client
            .pipeline(stream::iter(requests), |pin, line, _| match client::parse::<show::Request>(line) {
                Ok(show::Answer { pin, .. }) => {
                    let pin = client::read(&pin)?;
                    match pin.outcome {
                        Some(outcome) if pin.state == Some(State::Finished) => {
                            self.take(&client::read(&outcome)?, outcome.get().as_bytes())
                        }
                        _ => Ok(()),
                    }
                }
                Err(ClientError::Refused(refusal)) if refusal.code == Code::NotFound => {
                    self.waiting.remove(&pin);
                    self.unknown += 1;
                    self.progress.note(format_args!("the daemon does not know PIN {pin}: submit it first"));
                    self.refused(json!({"pinId": pin.as_str()}), &refusal)
                }
                Err(error) => Err(error.into()),
            })
            .await
    }

    fn report_missing(&mut self) -> Result<(), CommandError> {
        let mut pins: Vec<_> = self.waiting.iter().map(PinId::as_str).collect();
        pins.sort_unstable();
        let refusal = Code::Timeout.because("the time was up before there was an outcome");
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
