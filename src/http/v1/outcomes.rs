//! `GET /v1/outcomes`: outcome records page by page as NDJSON, or as server-sent events that go on.
//!
//! Promises neither gap nor duplicate to a client that continues from a position: each event has its own. Reads a page when the
//! one before is sent, so a slow client costs one page of memory and delays nobody else.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::unfold;
use serde_json::json;
use tokio::time::sleep;

use super::Api;
use super::call::{Call, EVENT_STREAM, NDJSON};
use crate::http::problem::Problem;
use crate::http::tokens::Client;
use crate::operations::{Beginning, Failure, Reader, check_sink, in_time, matching, shutting_down};
use crate::protocol::filter::{About, Filter};
use crate::protocol::tail::{Answer, Range};
use crate::protocol::{self, MAX_ANSWER, Refusal};
use crate::services::Services;
use crate::store::{InvalidPosition, Outcome, Position};

/// How many outcomes a request without `limit` gets.
const LIMIT: u32 = 1000;

/// The most outcomes that a request gets.
const MAX_LIMIT: u32 = 10_000;

/// The interval of keep-alive comments on an event stream without news.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How soon a client connects again, in milliseconds.
const RETRY: u32 = 1000;

/// `GET /v1/outcomes`
pub async fn outcomes(State(api): State<Arc<Api>>, mut call: Call) -> Result<Response, Problem> {
    let form = call.accepts(&[NDJSON, EVENT_STREAM])?;
    let (after, last) = (call.query.text("after")?, call.query.number("last", 0..=MAX_LIMIT)?);
    let limit = if form == NDJSON { call.query.number("limit", 1..=MAX_LIMIT)? } else { None };
    let filter = call.query.filter()?;
    call.query.end()?;
    filter.check(About::Outcomes)?;
    in_time(check_sink(&api.services, &filter)).await?;
    // `Last-Event-ID` wins over `after`: a browser that reconnects repeats its first URL.
    let resumed =
        call.headers.get("last-event-id").map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
    let (resumed, after) = (position("Last-Event-ID", resumed)?, position("after", after)?);
    if after.is_some() && last.is_some() {
        return Err(Problem::invalid("give \"after\" or \"last\", not both"));
    }
    let start = match (resumed.or(after), last) {
        (Some(position), _) => Beginning::At(position),
        (None, Some(last)) => Beginning::Last(last),
        (None, None) => Beginning::From(0),
    };
    // A client that continues from a position learns that outcomes were removed before its request; others missed none.
    let takes_notices = matches!(start, Beginning::At(_));
    let begin = async { Ok(Reader::begin(&api.services, start, takes_notices).await?) };
    let reader = in_time(begin).await?;
    let tail = Tail { services: api.services.clone(), client: call.client, reader, filter };
    let body = if form == NDJSON {
        let left = limit.unwrap_or_else(|| last.map_or(LIMIT, |last| last.max(LIMIT)));
        let lines = Some((tail, left));
        Body::from_stream(unfold(lines, async |lines| {
            let (mut tail, left) = lines?;
            let (bytes, left) = tail.lines(left).await.ok()?;
            Some((Ok::<Bytes, Infallible>(bytes), left.map(|left| (tail, left))))
        }))
    } else {
        let begun = format!("retry: {RETRY}\nid: {}\n\n", tail.reader.position());
        Body::from_stream(unfold((tail, Some(begun)), async |(mut tail, begun)| {
            let bytes = match begun {
                Some(begun) => begun.into(),
                // The client connects again, and goes on from its last event.
                None => tail.events().await.ok()?,
            };
            Some((Ok::<Bytes, Infallible>(bytes), (tail, None)))
        }))
    };
    Ok(([(CONTENT_TYPE, HeaderValue::from_static(form))], body).into_response())
}

fn position(name: &str, text: Option<String>) -> Result<Option<Position>, Problem> {
    let position = text.map(|text| text.parse()).transpose();
    position.map_err(|error: InvalidPosition| Problem::invalid(format!("\"{name}\" is {error}")))
}

/// The outcomes that are still to be sent to one client.
struct Tail {
    services: Services,
    client: Client,
    reader: Reader,
    filter: Filter,
}

/// What a page has for the client.
struct Matching {
    /// The outcomes that match, each with the position after it.
    outcomes: Vec<(Position, Outcome)>,
    /// The first and the last `seq` of the outcomes missing before these.
    removed: Option<(i64, i64)>,
    /// Whether there is nothing more yet, whatever matches.
    is_end: bool,
}

/// The stream ends without a last line.
struct Ended;

impl Tail {
    /// Returns the lines of the next page, and how many outcomes may still follow; `None` after the last line.
    async fn lines(&mut self, left: u32) -> Result<(Bytes, Option<u32>), Ended> {
        let room = self.client.room.clone();
        let charge = room.wait(MAX_ANSWER).await;
        let mut text = String::new();
        let left = match self.next(left).await {
            Ok(Matching { outcomes, removed, is_end }) => {
                if let Some((from, to)) = removed {
                    text += &protocol::answer(&Answer::Removed { removed: Range { from, to } });
                }
                text.extend(outcomes.iter().flat_map(|(_, outcome)| [outcome.record.as_ref(), "\n"]));
                let left = left.saturating_sub(outcomes.len() as u32);
                let goes_on = !is_end && left > 0;
                if !goes_on {
                    text += &protocol::answer(&self.reader.end());
                }
                goes_on.then_some(left)
            }
            Err(refusal) => {
                text += &protocol::refused(&refusal);
                None
            }
        };
        Ok((charge.hold(text), left))
    }

    /// Waits for the next events; returns a comment if there are none for long.
    async fn events(&mut self) -> Result<Bytes, Ended> {
        loop {
            let stop = self.services.stop.clone();
            let room = self.client.room.clone();
            let charge = stop.run_until_cancelled(room.wait(MAX_ANSWER)).await.ok_or(Ended)?;
            // The client connects again; then it learns why it can't be served.
            let next = self.next(u32::MAX).await.map_err(|_| Ended)?;
            let mut text = String::new();
            if let Some((from, to)) = next.removed {
                if next.is_end {
                    let _ = writeln!(text, "id: {}", self.reader.position());
                }
                let _ = write!(text, "event: removed\ndata: {}\n\n", json!({"from": from, "to": to}));
            }
            for (position, outcome) in &next.outcomes {
                let _ = write!(text, "id: {position}\nevent: outcome\ndata: {}\n\n", outcome.record);
            }
            let last = next.outcomes.last().map(|(position, _)| position);
            if !self.filter.is_empty() && !next.is_end && last != Some(self.reader.position()) {
                // Sends only the position, so that a client that reconnects does not search the same outcomes again.
                let _ = write!(text, "id: {}\n\n", self.reader.position());
            }
            if !text.is_empty() {
                return Ok(charge.hold(text));
            }
            drop(charge);
            tokio::select! {
                more = self.reader.wait() => more.map_err(|_| Ended)?,
                () = sleep(KEEP_ALIVE) => return Ok(Bytes::from_static(b":\n\n")),
                () = stop.cancelled() => return Err(Ended),
            }
        }
    }

    /// Returns what matches in the next page, at most `most` outcomes.
    async fn next(&mut self, most: u32) -> Result<Matching, Refusal> {
        // With a filter, pages are read whole: few outcomes may match, and small pages could mean a query per outcome.
        let read = if self.filter.is_empty() { most } else { u32::MAX };
        let next = in_time(async {
            let next = self.reader.next_of(read).await?;
            let (removed, is_end) = (next.removed, next.outcomes.is_empty());
            let outcomes = next.with_positions().collect();
            let mut outcomes = matching(&self.services, &self.filter, outcomes).await?;
            if outcomes.len() > most as usize {
                outcomes.truncate(most as usize);
                if let Some((position, _)) = outcomes.last() {
                    self.reader.back_to(position.clone());
                }
            }
            Ok(Matching { outcomes, removed, is_end })
        })
        .await;
        next.map_err(|failure| match failure {
            Failure::Refused(refusal) => refusal,
            Failure::ClientGone => shutting_down(),
        })
    }
}
