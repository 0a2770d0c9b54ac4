//! `pinwatch submit`: submits PINs to the daemon, and with `--wait` waits for their outcomes.
//!
//! Promises that every PIN is accounted for: accepted, a duplicate, finished, or refused and named. A PIN counts only once the
//! daemon has answered, which it does when the PIN is durable.

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::task::{Context, Poll, ready};

use futures_util::stream;
use serde_json::json;

use super::cli::SubmitArgs;
use super::client::{self, Client, ClientError};
use super::error::CommandError;
use super::exit::Exit;
use super::human;
use super::input::{self, Defaults, Entries, Entry, Source};
use super::output::{Output, note};
use super::progress::Progress;
use super::table::Column;
use super::watch::Watch;
use crate::protocol::{self, Refusal, State, submit};

/// The most refused PINs that are named; further ones are only counted, because a wrong file may contain nothing else.
const NAMED: u64 = 20;

pub async fn run(socket: &Path, args: SubmitArgs, output: Output) -> Result<Exit, CommandError> {
    let SubmitArgs { ids, file, reference, metadata, deadline, again, wait, timeout, link: _ } = args;
    let defaults = Defaults { reference, metadata, deadline, again };
    let (source, progress) = source(ids, file.as_deref())?;
    let has_rows = matches!(source, Source::Arguments(_)) && !output.is_json();
    let mut client = Client::connect(socket).await?;
    let results = if wait {
        // Taken before the first submit, so all outcomes of these PINs come after this position.
        Results::Outcomes(Box::new(Watch::from(client.newest_position().await?, output)))
    } else {
        Results::Answers { output, rows: has_rows.then(Vec::new) }
    };

    let mut entries = input::entries(source, defaults);
    let account = RefCell::new(Account { tally: Tally::default(), results, progress, failure: None });
    let requests = stream::poll_fn(|cx| account.borrow_mut().poll_request(&mut entries, cx));
    let end = client
        .pipeline(requests, |tag, line, is_idle| account.borrow_mut().answered(&tag, line, is_idle))
        .await;

    let Account { tally, results, progress, failure } = account.into_inner();
    progress.end();
    drop(progress);
    let end = end.and(failure.map_or(Ok(()), Err));
    if !matches!(&end, Err(error) if error.is_broken_pipe()) {
        note(&tally);
    }
    if matches!(&end, Err(CommandError::Client(error)) if error.is_lost()) {
        note("submit them all again: those that were accepted are duplicates then, and do no harm");
    }
    end?;
    let exit = if tally.refused > 0 { Exit::Failed } else { Exit::Done };
    match results {
        Results::Outcomes(watch) => Ok(exit.or_worse(watch.run(socket, client, timeout).await?)),
        Results::Answers { mut output, rows } => {
            if let Some(rows) = rows.filter(|rows| !rows.is_empty()) {
                output.table([Column::new("PIN", 1).down_to(32), Column::new("STATE", 2)], &rows)?;
            }
            output.flush()?;
            Ok(exit)
        }
    }
}

/// Returns the source of the PINs, and the progress bar for it.
fn source(ids: Vec<String>, file: Option<&Path>) -> Result<(Source, Progress), CommandError> {
    if let Some(path) = file {
        let failed = |error| CommandError::File { what: "read", path: path.to_owned(), error };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        // A pipe has no length, so its progress can't be shown.
        let progress =
            if metadata.is_file() { Progress::of_bytes(metadata.len()) } else { Progress::hidden() };
        return Ok((Source::File { file, path: path.to_owned() }, progress));
    }
    if !ids.iter().any(|id| id == "-") {
        return Ok((Source::Arguments(ids), Progress::hidden()));
    }
    if ids.len() > 1 {
        let problem = "\"-\" reads all PINs from stdin, so it stands alone";
        return Err(CommandError::Usage(problem.to_owned()));
    }
    Ok((Source::Stdin(std::io::stdin()), Progress::hidden()))
}

/// Identifies a request that is not yet answered.
struct Tag {
    line: Option<u64>,
    pin: String,
}

/// What to print: the answers, or with `--wait` the outcomes.
enum Results {
    Answers {
        output: Output,
        /// The rows of the table, if the PINs were given as arguments.
        rows: Option<Vec<[String; 2]>>,
    },
    Outcomes(Box<Watch>),
}

/// Counts the PINs by the daemon's answer.
#[derive(Default)]
struct Tally {
    accepted: u64,
    duplicate: u64,
    finished: u64,
    refused: u64,
}

impl Tally {
    fn all(&self) -> u64 {
        self.accepted + self.duplicate + self.finished + self.refused
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = [
            (self.accepted, "accepted"),
            (self.duplicate, "duplicate"),
            (self.finished, "finished before"),
            (self.refused, "refused"),
        ]
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{} {name}", human::thousands(*count)))
        .collect();
        match self.all() {
            0 => write!(f, "no PINs"),
            all => write!(f, "{}: {}", human::count(all, "PIN"), parts.join(", ")),
        }
    }
}

/// The state of one submit, which sending requests and reading answers both change, in turns.
struct Account {
    tally: Tally,
    results: Results,
    progress: Progress,
    /// The error that ended the requests early.
    failure: Option<CommandError>,
}

impl Account {
    /// Returns the next request; reports entries that can't be submitted and skips them.
    fn poll_request(&mut self, entries: &mut Entries, cx: &mut Context<'_>) -> Poll<Option<(Tag, Vec<u8>)>> {
        loop {
            let Some(entry) = ready!(entries.poll_recv(cx)) else { return Poll::Ready(None) };
            match entry.and_then(|entry| self.request(entry)) {
                Ok(Some(request)) => return Poll::Ready(Some(request)),
                Ok(None) => {}
                Err(error) => {
                    self.failure = Some(error);
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn request(&mut self, entry: Entry) -> Result<Option<(Tag, Vec<u8>)>, CommandError> {
        self.progress.set(entry.bytes);
        match entry.what {
            Ok(request) => {
                let line = protocol::request(&request);
                Ok(Some((Tag { line: entry.line, pin: request.pin_id.to_string() }, line)))
            }
            Err((shown, refusal)) => {
                self.refused(&Tag { line: entry.line, pin: shown }, &refusal)?;
                Ok(None)
            }
        }
    }

    fn answered(&mut self, tag: &Tag, line: &[u8], is_idle: bool) -> Result<(), CommandError> {
        match client::parse::<submit::Request>(line) {
            Ok(answer) => self.taken(answer, line)?,
            Err(ClientError::Refused(refusal)) => self.refused(tag, &refusal)?,
            Err(error) => return Err(error.into()),
        }
        if is_idle {
            match &mut self.results {
                Results::Answers { output, .. } => output.flush()?,
                Results::Outcomes(watch) => watch.flush()?,
            }
        }
        let tally = &self.tally;
        self.progress.message(|| human::count(tally.all(), "PIN"));
        Ok(())
    }

    fn taken(&mut self, answer: submit::Answer, line: &[u8]) -> Result<(), CommandError> {
        match answer.state {
            State::Finished => self.tally.finished += 1,
            State::Duplicate => self.tally.duplicate += 1,
            State::Accepted | State::InFlight | State::Cancelled => self.tally.accepted += 1,
        }
        match (&mut self.results, &answer.outcome) {
            (Results::Outcomes(watch), Some(outcome)) => {
                let record = client::read(outcome)?;
                self.progress.above(|| watch.take(&record, outcome.get().as_bytes()))
            }
            (Results::Outcomes(watch), None) => {
                watch.add(answer.pin_id);
                Ok(())
            }
            (Results::Answers { rows: Some(rows), .. }, _) => {
                rows.push([answer.pin_id.to_string(), answer.state.as_str().to_owned()]);
                Ok(())
            }
            (Results::Answers { output, rows: None }, _) if output.is_json() => output.json(line),
            (Results::Answers { .. }, _) => Ok(()),
        }
    }

    fn refused(&mut self, tag: &Tag, refusal: &Refusal) -> Result<(), CommandError> {
        self.tally.refused += 1;
        let line = tag.line.map_or_else(String::new, |line| format!("line {line}: "));
        if self.tally.refused <= NAMED {
            let (pin, why) = (&tag.pin, refusal);
            self.progress.note(format_args!("{line}{pin} is refused: {why}"));
        } else if self.tally.refused == NAMED + 1 {
            self.progress.note("more are refused, which are only counted here");
        }
        let named = json!({"line": tag.line, "pinId": tag.pin});
        match &mut self.results {
            Results::Answers { output, .. } => output.refused(named, refusal),
            Results::Outcomes(watch) => watch.refused(named, refusal),
        }
    }
}
