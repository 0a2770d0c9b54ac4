//! `tail`: outcome records as they come, of all nodes where there are several.
//!
//! Promises no gap and no double while it goes on, and to read no faster than its client does.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::answer;
use super::connection::{Connection, Ended};
use super::outgoing::{Gone, MAX_ANSWER, SMALL};
use super::request::TailStart;
use crate::cluster::{Cluster, Positions};
use crate::schedule::Stopping;
use crate::store::{Outcome, Store, Unavailable};

/// Outcomes that are fetched at once.
const PAGE: u32 = 256;

/// How often the other nodes' outcomes are looked for without a hint.
const LOOK: Duration = Duration::from_secs(1);

/// Where the outcomes are, and how far they were read.
enum Reading<'a> {
    Own { store: &'a Store, newest: watch::Receiver<i64>, after: i64 },
    All { cluster: &'a Cluster, hints: watch::Receiver<u64>, after: Positions },
}

impl Reading<'_> {
    async fn page(&mut self) -> Result<Vec<Outcome>, Unavailable> {
        match self {
            Self::Own { store, after, .. } => {
                let outcomes = store.outcomes_after(*after, PAGE).await?;
                *after = outcomes.last().map_or(*after, |last| last.seq);
                Ok(outcomes)
            }
            Self::All { cluster, after, .. } => cluster.shared.outcomes_after(after, PAGE).await,
        }
    }

    /// Waits until there may be more.
    async fn more(&mut self) -> Result<(), Stopping> {
        match self {
            Self::Own { newest, .. } => newest.changed().await.map_err(|_| Stopping),
            Self::All { hints, .. } => {
                // The truth is in the store: a hint only makes it faster, and there may be none.
                tokio::select! {
                    Ok(()) = hints.changed() => {}
                    () = sleep(LOOK) => {}
                }
                Ok(())
            }
        }
    }

    /// What is to be asked for to go on from here.
    fn next(&self) -> i64 {
        match self {
            Self::Own { after, .. } => after + 1,
            Self::All { after, .. } => after.of.values().copied().max().unwrap_or(0).max(after.others) + 1,
        }
    }
}

impl Connection<'_> {
    /// Streams outcome records, no faster than they are read: a slow reader costs a page of memory.
    pub(super) async fn tail(&self, start: TailStart, follow: bool) -> Result<(), Gone> {
        let answered = self.try_tail(start, follow).await;
        let room = self.outgoing.room(SMALL).await?;
        self.told(room, answered)
    }

    async fn try_tail(&self, start: TailStart, follow: bool) -> Result<String, Ended> {
        let mut reading = self.begin(start).await?;
        loop {
            let room = self.outgoing.room(MAX_ANSWER).await?;
            let outcomes = reading.page().await?;
            if !outcomes.is_empty() {
                let lines = outcomes.iter().flat_map(|outcome| [outcome.record.as_ref(), "\n"]);
                self.outgoing.send(room, lines.collect::<String>())?;
                if self.services.stop.is_cancelled() {
                    return Err(Stopping.into());
                }
                continue;
            }
            drop(room);
            if !follow {
                return Ok(answer::tail_end(reading.next()));
            }
            tokio::select! {
                more = reading.more() => more?,
                () = self.hang_up() => return Err(Ended::Gone),
                () = self.services.stop.cancelled() => return Err(Stopping.into()),
            }
        }
    }

    async fn begin(&self, start: TailStart) -> Result<Reading<'_>, Unavailable> {
        let store = &self.services.store;
        if let Some(cluster) = &self.services.cluster {
            let mut hints = cluster.outcomes.clone();
            hints.mark_unchanged();
            let after = match start {
                TailStart::From(seq) => Positions { others: seq.saturating_sub(1), ..Positions::default() },
                TailStart::Last(count) => cluster.shared.before_last(count).await?,
            };
            return Ok(Reading::All { cluster, hints, after });
        }
        // Before the first look, so that what is committed during a look is not slept over.
        let mut newest = self.services.writer.newest();
        newest.mark_unchanged();
        let after = match start {
            TailStart::From(seq) => seq.saturating_sub(1),
            // Not from the store, where retention may have removed the newest.
            TailStart::Last(0) => *newest.borrow(),
            TailStart::Last(count) => store.seq_before_last(count).await?,
        };
        Ok(Reading::Own { store, newest, after })
    }
}
