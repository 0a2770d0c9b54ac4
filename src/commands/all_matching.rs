//! `--all` of `cancel`, `replay`, `dead-letters replay` and `dead-letters drop`: acts on everything that matches, after a
//! preview.
//!
//! Promises to act only on what the filter matches as of the preview's beginning, and on no more PINs than the preview counted.
//! After Ctrl-C it finishes the part that runs, or gives up waiting for it after a moment, and reports what was done.

use std::io::{IsTerminal, stderr, stdin};
use std::num::NonZeroU32;
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::task::yield_now;
use tokio::time::timeout;

use super::client::{Client, ClientError};
use super::error::CommandError;
use super::exit::Exit;
use super::human;
use super::output::{Output, note};
use super::progress::Progress;
use super::stop_signal::stop_signal;
use crate::protocol::count::{self, Of};
use crate::protocol::filter::Filter;
use crate::protocol::{cancel_matching, drop, replay};

/// How long the part under way may still take after Ctrl-C. Most take milliseconds, and then the total is exact.
const LAST_PART: Duration = Duration::from_secs(1);

/// The most that a part acts on.
const PART: u64 = 500;

/// What is done to outcomes at a sink.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Replay,
    ReplayDead,
    Drop,
}

/// What is done to everything that matches.
#[derive(Clone, Copy)]
pub enum Action<'a> {
    Cancel,
    /// To outcomes, or dead letters, of this sink.
    AtSink(Deed, &'a str),
}

pub async fn run(
    socket: &Path,
    action: Action<'_>,
    filter: &Filter,
    is_agreed: bool,
    mut output: Output,
) -> Result<Exit, CommandError> {
    let can_ask = stdin().is_terminal() && stderr().is_terminal();
    if !is_agreed && !can_ask {
        return Err(CommandError::Usage(
            "--all asks before it changes anything, and there is no terminal to ask on: add --yes".to_owned(),
        ));
    }
    let mut client = Client::connect(socket).await?;
    let began = Instant::now();
    let matching = preview(&mut client, action, filter).await?;
    note(format_args!("this affects {}: {filter}", action.things(matching)));
    // Even if nothing matches, the daemon may have a reason to refuse.
    if !is_agreed && matching > 0 {
        note(format_args!("{}? Type yes:", action.question()));
        if !answered_yes().await {
            note("nothing is changed");
            return Ok(Exit::Failed);
        }
    }
    let progress = Progress::of_matches(matching);
    let mut stopped = pin!(stop_signal());
    let (mut total, mut after, mut is_stopped) = (0, None, false);
    loop {
        // Gives a signal that came together with the answer a chance to be noticed.
        yield_now().await;
        if is_stopped || stopped.as_mut().now_or_never().is_some() {
            output.flush()?;
            progress.note(format_args!("stopped: {}; the rest is untouched", action.done(total)));
            return Ok(Exit::Failed);
        }
        let as_of = filter.as_of(began.elapsed(), Timestamp::now());
        let mut part = pin!(action.part(&mut client, as_of, matching.saturating_sub(total), after));
        let answer = tokio::select! {
            answer = &mut part => Some(answer),
            _ = &mut stopped => {
                is_stopped = true;
                timeout(LAST_PART, &mut part).await.ok()
            }
        };
        let answer = match answer {
            Some(Ok(answer)) => answer,
            Some(Err(error)) => {
                progress
                    .note(format_args!("{} before this failed; the rest is untouched", action.done(total)));
                return Err(error.into());
            }
            None => {
                output.flush()?;
                progress.note(format_args!(
                    "stopped while the daemon worked on a part of at most {PART}, which may still be done; before it: {}",
                    action.done(total)
                ));
                return Ok(Exit::Failed);
            }
        };
        total += answer.count;
        after = answer.next;
        if output.is_json() {
            progress.above(|| {
                output.json(action.line(answer.count).to_string().as_bytes())?;
                output.flush()
            })?;
        }
        progress.set(total);
        let is_enough = matches!(action, Action::Cancel) && total >= matching;
        if after.is_none() || is_enough {
            progress.end();
            return finish(output, action, total);
        }
    }
}

fn finish(mut output: Output, action: Action<'_>, total: u64) -> Result<Exit, CommandError> {
    if !output.is_json() {
        output.text(&format!("{}\n", action.done(total)))?;
    }
    output.flush()?;
    Ok(Exit::Done)
}

/// Returns how many match.
async fn preview(client: &mut Client, action: Action<'_>, filter: &Filter) -> Result<u64, ClientError> {
    let progress = Progress::of_lines();
    let (mut total, mut after) = (0, None);
    loop {
        let part = client.ask(&action.count(filter.clone(), after)).await?;
        total += part.count;
        after = part.next;
        if after.is_none() {
            return Ok(total);
        }
        progress.message(|| format!("{} match so far", human::thousands(total)));
    }
}

impl Deed {
    /// Says what was done to this many.
    pub fn done(self, count: u64) -> String {
        match self {
            Self::Replay => format!("{}: delivered again from now on", human::count(count, "outcome")),
            Self::ReplayDead => {
                format!("{}: delivered again from now on", human::count(count, "dead letter"))
            }
            Self::Drop => format!("{}: dropped", human::count(count, "dead letter")),
        }
    }
}

impl Action<'_> {
    fn count(self, filter: Filter, after: Option<String>) -> count::Request {
        let (of, sink) = match self {
            Self::Cancel => (Of::InFlight, None),
            Self::AtSink(Deed::Replay, _) => (Of::Outcomes, None),
            Self::AtSink(Deed::ReplayDead | Deed::Drop, sink) => (Of::DeadLetters, Some(sink.to_owned())),
        };
        count::Request { of, sink, filter, after }
    }

    /// Acts on the next part: on `left` at most, if they are PINs in flight. Their status changes, so that more can match now than
    /// the preview counted.
    async fn part(
        self,
        client: &mut Client,
        filter: Filter,
        left: u64,
        after: Option<String>,
    ) -> Result<count::Answer, ClientError> {
        let all = true;
        match self {
            Self::Cancel => {
                let Some(left) = NonZeroU32::new(u32::try_from(left).unwrap_or(u32::MAX)) else {
                    return Ok(count::Answer { count: 0, next: None });
                };
                client.ask(&cancel_matching::Request { filter, all, limit: Some(left), after }).await
            }
            Self::AtSink(Deed::Drop, sink) => {
                let sink = sink.to_owned();
                client.ask(&drop::Request { sink, filter, all, after, ..Default::default() }).await
            }
            Self::AtSink(deed, sink) => {
                let (sink, dead) = (sink.to_owned(), deed == Deed::ReplayDead);
                client.ask(&replay::Request { sink, dead, filter, all, after, ..Default::default() }).await
            }
        }
    }

    fn things(self, count: u64) -> String {
        match self {
            Self::Cancel => format!("{} in flight", human::count(count, "PIN")),
            Self::AtSink(Deed::Replay, _) => human::count(count, "outcome"),
            Self::AtSink(_, sink) => format!("{} of the sink {sink}", human::count(count, "dead letter")),
        }
    }

    fn question(self) -> String {
        match self {
            Self::Cancel => "withdraw them all".to_owned(),
            Self::AtSink(Deed::Drop, sink) => {
                format!("drop them all, so that the sink {sink} never gets them")
            }
            Self::AtSink(_, sink) => format!("deliver them all to the sink {sink} again"),
        }
    }

    fn done(self, count: u64) -> String {
        match self {
            Self::Cancel => format!("{} withdrawn", human::count(count, "PIN")),
            Self::AtSink(deed, _) => deed.done(count),
        }
    }

    /// The line of JSON about a part.
    fn line(self, count: u64) -> Value {
        match self {
            Self::Cancel => json!({"count": count}),
            Self::AtSink(_, sink) => json!({"sink": sink, "count": count}),
        }
    }
}

/// Whether the next line of the terminal is `yes`.
async fn answered_yes() -> bool {
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        stdin().read_line(&mut line).map(|_| line)
    });
    matches!(line.await, Ok(Ok(line)) if line.trim() == "yes")
}
