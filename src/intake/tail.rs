//! Answers `tail` over the socket: writes records and notices no faster than the client reads. Must not know how
//! outcomes are read from the store.

use super::connection::Connection;
use crate::operations::{Beginning, Failure, Next, Reader, check_sink, matching};
use crate::outgoing::{Gone, PIECE};
use crate::protocol::filter::About;
use crate::protocol::tail::{Answer, Range, Request};
use crate::protocol::{self, Code, MAX_ANSWER};
use crate::schedule::Stopping;
use crate::store::Position;

impl Connection<'_> {
    /// Streams outcome records no faster than the client reads; a slow client costs one page of memory.
    pub(super) async fn tail(&self, request: Request) -> Result<(), Gone> {
        let end = self.try_tail(request).await;
        let room = self.outgoing.room(PIECE).await?;
        self.send(room, end)
    }

    async fn try_tail(&self, request: Request) -> Result<Answer, Failure> {
        let (follow, filter) = (request.follow, request.filter.clone());
        filter.check(About::Outcomes)?;
        check_sink(self.services, &filter).await?;
        let start = Beginning::of(&request)?;
        // A client that sends a position understands lines that are not records.
        let positions = request.positions || matches!(start, Beginning::At(_));
        let mut reader = Reader::begin(self.services, start, positions).await?;
        if positions {
            // With this line, a client whose connection breaks before the first record can continue.
            let room = self.outgoing.room(PIECE).await?;
            self.outgoing.send(room, position_line(reader.position()))?;
        }
        loop {
            let room = self.outgoing.room(MAX_ANSWER).await?;
            let Next { outcomes, removed, .. } = reader.next().await?;
            if let Some((from, to)) = removed.filter(|_| !positions) {
                return Err(Code::Removed.because(missing(from, to)).into());
            }
            let mut lines = removed.map_or_else(String::new, |(from, to)| {
                protocol::answer(&Answer::Removed { removed: Range { from, to } })
            });
            let is_empty = outcomes.is_empty();
            let matching = matching(self.services, &filter, outcomes).await?;
            lines.extend(matching.iter().flat_map(|(_, outcome)| [outcome.record.as_ref(), "\n"]));
            // Sent even if nothing on the page matches: a client that reconnects then does not read that page again.
            if positions && (!lines.is_empty() || !is_empty) {
                lines.push_str(&position_line(reader.position()));
            }
            if !lines.is_empty() {
                self.outgoing.send(room, lines)?;
                if self.services.stop.is_cancelled() {
                    return Err(Stopping.into());
                }
                continue;
            }
            drop(room);
            if !is_empty {
                // Nothing of this page matches. A client that has left ends the search.
                tokio::select! {
                    biased;
                    () = self.hang_up() => return Err(Failure::ClientGone),
                    () = self.services.stop.cancelled() => return Err(Stopping.into()),
                    () = tokio::task::yield_now() => continue,
                }
            }
            if !follow {
                return Ok(reader.end());
            }
            tokio::select! {
                more = reader.wait() => more?,
                () = self.hang_up() => return Err(Failure::ClientGone),
                () = self.services.stop.cancelled() => return Err(Stopping.into()),
            }
        }
    }
}

fn position_line(position: &Position) -> String {
    protocol::answer(&Answer::Position { position: position.to_string() })
}

fn missing(from: i64, to: i64) -> String {
    format!(
        "store.retention removed outcomes from seq {from} to {to} before this tail reached them; continue with \
         \"from\":{}, and with \"positions\":true to get a notice of such gaps in the stream",
        to.saturating_add(1)
    )
}
