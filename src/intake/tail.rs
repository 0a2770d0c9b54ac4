//! Answers `tail`: streams outcome records as they are committed, from all nodes that share the store.
//!
//! Guarantees neither gap nor duplicate while the tail runs, a notice if retention removed outcomes before they were
//! sent, and reads from the store no faster than the client reads. Must not know how a store partitions outcomes.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::connection::Connection;
use super::failure::Failure;
use super::outgoing::{Gone, PIECE};
use crate::protocol::tail::{Answer, Range, Request, Start};
use crate::protocol::{self, Code, MAX_ANSWER, Refusal};
use crate::schedule::Stopping;
use crate::store::{InvalidPosition, Outcome, Position, Record, Store, Stretch, Unavailable};

/// The most outcomes read per query. With positions, a position line follows after at most this many.
const PAGE: u32 = 256;

/// How often the store is read for other nodes' outcomes if no hint arrives.
const LOOK: Duration = Duration::from_secs(1);

/// The source that signals new outcomes.
enum News {
    /// The newest `seq`; no other node adds outcomes.
    Own(watch::Receiver<i64>),
    /// Hints from other nodes; any hint may be lost.
    Hints(watch::Receiver<u64>),
}

impl News {
    async fn wait(&mut self) -> Result<(), Stopping> {
        match self {
            Self::Own(newest) => newest.changed().await.map_err(|_| Stopping),
            Self::Hints(hints) => {
                // The store decides what is new; a hint only shortens the wait.
                tokio::select! {
                    Ok(()) = hints.changed() => {}
                    () = sleep(LOOK) => {}
                }
                Ok(())
            }
        }
    }
}

/// The progress of a tail.
struct Reading<'a> {
    store: &'a Store,
    position: Position,
    /// For each partition, the `seq` up to which the client needs no notice of removed outcomes.
    noticed: BTreeMap<i32, i64>,
}

/// The next part of a tail.
struct Next {
    records: Vec<Record>,
    /// The first and the last `seq` of the outcomes missing before these records.
    removed: Option<(i64, i64)>,
}

impl Reading<'_> {
    async fn next(&mut self) -> Result<Next, Unavailable> {
        let Stretch { outcomes, removed, more } = self.store.stretch(&self.position, PAGE).await?;
        let gap = self.notice(&removed);
        let record = |(partition, outcome): (i32, Outcome)| {
            self.position.advance(partition, outcome.seq);
            outcome.record
        };
        let records = outcomes.into_iter().map(record).collect();
        if !more {
            // No outcomes are left between the position and the removed ones' end.
            removed.into_iter().for_each(|(partition, seq)| self.position.advance(partition, seq));
        }
        Ok(Next { records, removed: gap })
    }

    /// Returns the seqs of removed outcomes that the client has not been notified of, and marks them as notified.
    fn notice(&mut self, removed: &[(i32, i64)]) -> Option<(i64, i64)> {
        let mut gap: Option<(i64, i64)> = None;
        for &(partition, to) in removed {
            let noticed = self.noticed.insert(partition, to).unwrap_or(i64::MIN);
            let from = self.position.in_partition(partition).max(noticed).saturating_add(1);
            if from <= to {
                gap = Some(gap.map_or((from, to), |gap| (gap.0.min(from), gap.1.max(to))));
            }
        }
        gap
    }
}

impl Connection<'_> {
    /// Streams outcome records no faster than the client reads; a slow client costs one page of memory.
    pub(super) async fn tail(&self, request: Request) -> Result<(), Gone> {
        let end = self.try_tail(request).await;
        let room = self.outgoing.room(PIECE).await?;
        self.send(room, end)
    }

    async fn try_tail(&self, request: Request) -> Result<Answer, Failure> {
        let follow = request.follow;
        let start = Beginning::of(&request)?;
        // A client that sends a position understands lines that are not records.
        let positions = request.positions || matches!(start, Beginning::At(_));
        // Subscribes before the first query, so that a commit during the query ends the wait after it.
        let mut news = self.news();
        let mut reading = self.begin(start, positions).await?;
        if positions {
            // With this line, a client whose connection breaks before the first record can continue.
            let room = self.outgoing.room(PIECE).await?;
            self.outgoing.send(room, position_line(&reading.position))?;
        }
        loop {
            let room = self.outgoing.room(MAX_ANSWER).await?;
            let Next { records, removed } = reading.next().await?;
            if let Some((from, to)) = removed.filter(|_| !positions) {
                return Err(Code::Removed.because(missing(from, to)).into());
            }
            let mut lines = removed.map_or_else(String::new, |(from, to)| {
                protocol::answer(&Answer::Removed { removed: Range { from, to } })
            });
            lines.extend(records.iter().flat_map(|record| [record.as_ref(), "\n"]));
            if positions && !lines.is_empty() {
                lines.push_str(&position_line(&reading.position));
            }
            if !lines.is_empty() {
                self.outgoing.send(room, lines)?;
                if self.services.stop.is_cancelled() {
                    return Err(Stopping.into());
                }
                continue;
            }
            drop(room);
            if !follow {
                return Ok(end(&reading.position));
            }
            tokio::select! {
                news = news.wait() => news?,
                () = self.hang_up() => return Err(Failure::ClientGone),
                () = self.services.stop.cancelled() => return Err(Stopping.into()),
            }
        }
    }

    fn news(&self) -> News {
        match &self.services.cluster {
            Some(cluster) => {
                let mut hints = cluster.outcomes.clone();
                hints.mark_unchanged();
                News::Hints(hints)
            }
            None => {
                let mut newest = self.services.writer.newest();
                newest.mark_unchanged();
                News::Own(newest)
            }
        }
    }

    async fn begin(&self, start: Beginning, positions: bool) -> Result<Reading<'_>, Unavailable> {
        let store = &self.services.store;
        // `last` means the newest outcomes that still exist; so does `from` for a client that gets no notices.
        let all_there_are = match start {
            Beginning::Last(_) => true,
            Beginning::From(_) => !positions,
            Beginning::At(_) => false,
        };
        let position = match start {
            Beginning::From(seq) => Position::after(seq.saturating_sub(1)),
            Beginning::At(position) => position,
            Beginning::Last(count) => store.before_last(count).await?,
        };
        let removed = if all_there_are { store.stretch(&position, 0).await?.removed } else { Vec::new() };
        Ok(Reading { store, position, noticed: removed.into_iter().collect() })
    }
}

/// Where a tail begins.
enum Beginning {
    /// At this `seq`.
    From(i64),
    /// After this position.
    At(Position),
    /// At this many of the newest outcomes.
    Last(u32),
}

impl Beginning {
    fn of(Request { from, last, .. }: &Request) -> Result<Self, Refusal> {
        match (from, last) {
            (Some(_), Some(_)) => {
                Err(Code::InvalidRequest.because("\"from\" and \"last\" exclude each other"))
            }
            (Some(Start::Seq(seq)), None) => Ok(Self::From(*seq)),
            (Some(Start::Position(text)), None) => {
                text.parse().map(Self::At).map_err(|error: InvalidPosition| {
                    Code::InvalidRequest.because(format!("\"from\" is neither a seq nor a position: {error}"))
                })
            }
            (None, last) => Ok(Self::Last(last.unwrap_or(0))),
        }
    }
}

fn position_line(position: &Position) -> String {
    protocol::answer(&Answer::Position { position: position.to_string() })
}

fn end(position: &Position) -> Answer {
    let next = position.highest().saturating_add(1);
    Answer::End { end: true, next, position: position.to_string() }
}

fn missing(from: i64, to: i64) -> String {
    format!(
        "outcomes from seq {from} to {to} were removed by store.retention before this tail had come to them; go on with \
         \"from\":{}, and with \"positions\":true to get a notice of such gaps in the stream",
        to.saturating_add(1)
    )
}
