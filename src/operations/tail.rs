//! Reads outcome records for `tail` as they are committed, from all nodes that share the store.
//!
//! Guarantees neither gap nor duplicate, and a notice of the outcomes that retention removed before they were read.
//! Reads one page at a time, only when asked for it, so that a slow client costs one page of memory. Must not know
//! how records are sent.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::protocol::tail::{Answer, Request, Start};
use crate::protocol::{Code, Refusal};
use crate::schedule::Stopping;
use crate::services::Services;
use crate::store::{InvalidPosition, Outcome, Position, Store, Stretch, Unavailable};

/// The most outcomes read per query. With positions, a position line follows after at most this many.
const PAGE: u32 = 256;

/// How often the store is read for other nodes' outcomes if no hint arrives.
const LOOK: Duration = Duration::from_secs(1);

/// Signals that there may be more outcomes.
enum News {
    /// The newest `seq`; no other node adds outcomes.
    Own(watch::Receiver<i64>),
    /// Hints from other nodes; any hint may be lost.
    Hints(watch::Receiver<u64>),
}

impl News {
    fn of(services: &Services) -> Self {
        match &services.cluster {
            Some(cluster) => {
                let mut hints = cluster.outcomes.clone();
                hints.mark_unchanged();
                Self::Hints(hints)
            }
            None => {
                let mut newest = services.writer.newest();
                newest.mark_unchanged();
                Self::Own(newest)
            }
        }
    }
}

/// Reads outcomes in order, page by page.
pub struct Reader {
    store: Store,
    news: News,
    position: Position,
    /// For each partition, the `seq` up to which the client needs no notice of removed outcomes.
    noticed: BTreeMap<i32, i64>,
}

/// A page.
pub struct Next {
    /// The outcomes, each with its partition.
    pub outcomes: Vec<(i32, Outcome)>,
    /// The first and the last `seq` of the outcomes missing before these.
    pub removed: Option<(i64, i64)>,
    /// Before these outcomes.
    before: Position,
}

impl Next {
    /// The outcomes, each with the position after it: a client that continues there misses none and gets none twice.
    pub fn with_positions(self) -> impl Iterator<Item = (Position, Outcome)> {
        let mut position = self.before;
        self.outcomes.into_iter().map(move |(partition, outcome)| {
            position.advance(partition, outcome.seq);
            (position.clone(), outcome)
        })
    }
}

impl Reader {
    /// Begins to read. A client that `takes_notices` is notified of each gap after `start`; any other client is not
    /// notified of gaps that existed before it began.
    pub async fn begin(
        services: &Services,
        start: Beginning,
        takes_notices: bool,
    ) -> Result<Self, Unavailable> {
        let store = services.store.clone();
        // Subscribes before the first query, so that a commit during the query ends the wait after it.
        let news = News::of(services);
        // `last` means the newest outcomes that still exist; so does `from` for a client that takes no notices.
        let all_there_are = match start {
            Beginning::Last(_) => true,
            Beginning::From(_) => !takes_notices,
            Beginning::At(_) => false,
        };
        let position = match start {
            Beginning::From(seq) => Position::after(seq.saturating_sub(1)),
            Beginning::At(position) => position,
            Beginning::Last(count) => store.before_last(count).await?,
        };
        let removed = if all_there_are { store.stretch(&position, 0).await?.removed } else { Vec::new() };
        Ok(Self { store, news, position, noticed: removed.into_iter().collect() })
    }

    /// Returns the position after everything read so far.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Goes back to a position within the last page: the outcomes after it are read again.
    pub fn back_to(&mut self, position: Position) {
        self.position = position;
    }

    /// Reads the next page; it is empty if there is nothing more yet.
    pub async fn next(&mut self) -> Result<Next, Unavailable> {
        self.next_of(PAGE).await
    }

    /// Reads the next page, of at most `most` outcomes and at most a full page.
    pub async fn next_of(&mut self, most: u32) -> Result<Next, Unavailable> {
        let Stretch { outcomes, removed, more } = self.store.stretch(&self.position, most.min(PAGE)).await?;
        let gap = self.notice(&removed);
        let before = self.position.clone();
        for (partition, outcome) in &outcomes {
            self.position.advance(*partition, outcome.seq);
        }
        if !more {
            // No outcomes are left up to the end of the removed ones.
            removed.into_iter().for_each(|(partition, seq)| self.position.advance(partition, seq));
        }
        Ok(Next { outcomes, removed: gap, before })
    }

    /// The answer at the end of a tail that does not follow.
    pub fn end(&self) -> Answer {
        let next = self.position.highest().saturating_add(1);
        Answer::End { end: true, next, position: self.position.to_string() }
    }

    /// Waits until there may be more. Cancel-safe.
    ///
    /// # Errors
    /// The daemon stops.
    pub async fn wait(&mut self) -> Result<(), Stopping> {
        match &mut self.news {
            News::Own(newest) => newest.changed().await.map_err(|_| Stopping),
            News::Hints(hints) => {
                // The store decides what is new; a hint only shortens the wait.
                tokio::select! {
                    Ok(()) = hints.changed() => {}
                    () = sleep(LOOK) => {}
                }
                Ok(())
            }
        }
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

/// Where a tail begins.
pub enum Beginning {
    /// At this `seq`.
    From(i64),
    /// After this position.
    At(Position),
    /// At this many of the newest outcomes.
    Last(u32),
}

impl Beginning {
    /// Reads from a request where to begin.
    ///
    /// # Errors
    /// The request has both `from` and `last`, or a position that no daemon gave out.
    pub fn of(Request { from, last, .. }: &Request) -> Result<Self, Refusal> {
        match (from, last) {
            (Some(_), Some(_)) => Err(Code::InvalidRequest.because("give \"from\" or \"last\", not both")),
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
