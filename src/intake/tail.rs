//! `tail`: outcome records as they come, of all nodes where there are several.
//!
//! Promises no gap and no double while it goes on, to say so where retention was faster than the client, and to read
//! no faster than the client does.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::answer;
use super::connection::{Connection, Ended};
use super::outgoing::{Gone, MAX_ANSWER, PIECE};
use super::request::{Code, TailStart};
use crate::schedule::Stopping;
use crate::store::{Outcome, Position, Record, Store, Stretch, Unavailable};

/// Outcomes that are fetched at once; at most so many come between two positions.
const PAGE: u32 = 256;

/// How often the other nodes' outcomes are looked for without a hint.
const LOOK: Duration = Duration::from_secs(1);

/// What says that there may be more.
enum News {
    /// The newest `seq`, which no other node gives.
    Own(watch::Receiver<i64>),
    /// Hints of other nodes, of which each may be lost.
    Hints(watch::Receiver<u64>),
}

impl News {
    async fn come(&mut self) -> Result<(), Stopping> {
        match self {
            Self::Own(newest) => newest.changed().await.map_err(|_| Stopping),
            Self::Hints(hints) => {
                // The truth is in the store: a hint only makes it faster.
                tokio::select! {
                    Ok(()) = hints.changed() => {}
                    () = sleep(LOOK) => {}
                }
                Ok(())
            }
        }
    }
}

/// How far the outcomes were read.
struct Reading<'a> {
    store: &'a Store,
    position: Position,
    /// Of each lane, up to which `seq` it needs no telling that outcomes were removed.
    told: BTreeMap<i32, i64>,
}

/// What comes next.
struct Next {
    records: Vec<Record>,
    /// From which `seq` to which outcomes are missing before these.
    removed: Option<(i64, i64)>,
}

impl Reading<'_> {
    async fn next(&mut self) -> Result<Next, Unavailable> {
        let Stretch { outcomes, removed, more } = self.store.stretch(&self.position, PAGE).await?;
        let gap = self.tell(&removed);
        let record = |(lane, outcome): (i32, Outcome)| {
            self.position.advance(lane, outcome.seq);
            outcome.record
        };
        let records = outcomes.into_iter().map(record).collect();
        if !more {
            // Nothing is kept between here and there.
            removed.into_iter().for_each(|(lane, seq)| self.position.advance(lane, seq));
        }
        Ok(Next { records, removed: gap })
    }

    /// The range of what was removed and is not told yet; it is then.
    fn tell(&mut self, removed: &[(i32, i64)]) -> Option<(i64, i64)> {
        let mut gap: Option<(i64, i64)> = None;
        for &(lane, to) in removed {
            let told = self.told.insert(lane, to).unwrap_or(i64::MIN);
            let from = self.position.in_lane(lane).max(told).saturating_add(1);
            if from <= to {
                gap = Some(gap.map_or((from, to), |gap| (gap.0.min(from), gap.1.max(to))));
            }
        }
        gap
    }
}

impl Connection<'_> {
    /// Streams outcome records, no faster than they are read: a slow reader costs a page of memory.
    pub(super) async fn tail(&self, start: TailStart, follow: bool, positions: bool) -> Result<(), Gone> {
        let answered = self.try_tail(start, follow, positions).await;
        let room = self.outgoing.room(PIECE).await?;
        self.told(room, answered)
    }

    async fn try_tail(&self, start: TailStart, follow: bool, positions: bool) -> Result<String, Ended> {
        // Who gives a position knows the lines that are no records.
        let positions = positions || matches!(start, TailStart::At(_));
        // Before the first look, so that what is committed during a look is not slept over.
        let mut news = self.news();
        let mut reading = self.begin(start, positions).await?;
        if positions {
            // So that a client whose connection breaks can go on from the first record on.
            let room = self.outgoing.room(PIECE).await?;
            self.outgoing.send(room, answer::tail_position(&reading.position))?;
        }
        loop {
            let room = self.outgoing.room(MAX_ANSWER).await?;
            let Next { records, removed } = reading.next().await?;
            if let Some((from, to)) = removed.filter(|_| !positions) {
                return Err(Code::Removed.because(missing(from, to)).into());
            }
            let mut lines = removed.map_or_else(String::new, |(from, to)| answer::tail_removed(from, to));
            lines.extend(records.iter().flat_map(|record| [record.as_ref(), "\n"]));
            if positions && !lines.is_empty() {
                lines.push_str(&answer::tail_position(&reading.position));
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
                return Ok(answer::tail_end(&reading.position));
            }
            tokio::select! {
                come = news.come() => come?,
                () = self.hang_up() => return Err(Ended::Gone),
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

    async fn begin(&self, start: TailStart, positions: bool) -> Result<Reading<'_>, Unavailable> {
        let store = &self.services.store;
        // "The newest" are those that there are, and so is "from a seq on" to who is not told what is missing.
        let all_there_are = match start {
            TailStart::Last(_) => true,
            TailStart::From(_) => !positions,
            TailStart::At(_) => false,
        };
        let position = match start {
            TailStart::From(seq) => Position::after(seq.saturating_sub(1)),
            TailStart::At(position) => position,
            TailStart::Last(count) => store.before_last(count).await?,
        };
        let removed = if all_there_are { store.stretch(&position, 0).await?.removed } else { Vec::new() };
        Ok(Reading { store, position, told: removed.into_iter().collect() })
    }
}

fn missing(from: i64, to: i64) -> String {
    format!(
        "outcomes from seq {from} to {to} were removed by store.retention before this tail had come to them; go on with \
         \"from\":{}, and with \"positions\":true to be told of such gaps in the stream",
        to.saturating_add(1)
    )
}
