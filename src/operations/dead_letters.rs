//! Answers `dead_letters`, and finds dead letters for the operations that act on them.
//!
//! Looks at a bounded number of rows per request, whatever matches. Changes nothing.

use std::ops::RangeInclusive;

use super::failure::Failure;
use super::known_sink::check_known;
use super::matching::outcome_matches;
use crate::outcome::rfc3339;
use crate::pin::PinId;
use crate::protocol::dead_letters::{Answer, DeadLetter, Request};
use crate::protocol::filter::{About, Filter};
use crate::protocol::{Code, MAX_ANSWER, MAX_PAGE, Raw, page, page_limit};
use crate::services::Services;
use crate::store::{self, SCAN};

/// All seqs.
pub const ALL: RangeInclusive<i64> = 0..=i64::MAX;

/// Which dead letters a request selects.
pub struct Letters {
    /// Of this sink, or of all.
    pub sink: Option<String>,
    /// Of this PIN, or of all.
    pub pin: Option<PinId>,
    pub seqs: RangeInclusive<i64>,
    pub filter: Filter,
}

impl Default for Letters {
    fn default() -> Self {
        Self { sink: None, pin: None, seqs: ALL, filter: Filter::default() }
    }
}

/// Returns a page of dead letters, sorted by sink and `seq`.
pub async fn dead_letters(services: &Services, request: Request) -> Result<Answer, Failure> {
    let Request { sink, pin_id, from, to, filter, after, limit } = request;
    let seqs = from.unwrap_or(*ALL.start())..=to.unwrap_or(*ALL.end());
    let wanted = Letters { sink, pin: pin_id, seqs, filter };
    let (limit, mut items, mut bytes) = (page_limit(limit) as usize, Vec::new(), 0);
    let at_once = if wanted.filter.is_empty() { limit as u32 } else { MAX_PAGE };
    let next = each_letter(services, &wanted, after.as_deref(), at_once, |letter, token| {
        let letter = told(letter);
        bytes += letter.outcome.as_ref().map_or(0, |outcome| outcome.get().len());
        items.push((letter, token.to_owned()));
        Ok(items.len() < limit && bytes < MAX_ANSWER)
    });
    let next = next.await?;
    let (dead_letters, next) = page(items, next);
    Ok(Answer { dead_letters, next })
}

/// Passes each matching dead letter, in the order of sink and `seq`, to `take` with the token after it; reads at most `at_once`
/// per query. Stops when `take` returns false or after [`SCAN`] dead letters. Returns the token where the rest begins; `None` if
/// nothing is left.
pub async fn each_letter(
    services: &Services,
    wanted: &Letters,
    after: Option<&str>,
    at_once: u32,
    mut take: impl FnMut(store::DeadLetter, &str) -> Result<bool, Failure>,
) -> Result<Option<String>, Failure> {
    let Letters { sink, pin, seqs, filter } = wanted;
    filter.check(About::OutcomesAtSink)?;
    let mut place = after.map(place).transpose()?.unwrap_or_default();
    if let Some(sink) = sink {
        check_known(services, sink).await?;
    }
    let (now, mut looked_at) = (services.clock.wall(), 0);
    loop {
        let (letters, more) =
            services.store.dead_letters(sink.as_deref(), pin.as_ref(), seqs, &place, at_once).await?;
        for letter in letters {
            looked_at += 1;
            place = (letter.0.clone(), letter.1.seq);
            let is_old = filter
                .older_than
                .zip(letter.1.last_try_at)
                .is_none_or(|(when, tried)| when.is_after(tried.wall, now));
            if is_old && outcome_matches(filter, &letter.2, now) && !take(letter, &token(&place))? {
                return Ok(Some(token(&place)));
            }
        }
        if !more {
            return Ok(None);
        }
        if looked_at >= SCAN {
            return Ok(Some(token(&place)));
        }
    }
}

/// The sink and the `seq` after which a list of dead letters continues.
type Place = (String, i64);

/// Writes `SINK/SEQ`.
fn token((sink, seq): &Place) -> String {
    format!("{sink}/{seq}")
}

/// Parses `SINK/SEQ`, the `next` of the previous answer.
fn place(token: &str) -> Result<Place, Failure> {
    let parts = token.rsplit_once('/').and_then(|(sink, seq)| Some((sink.to_owned(), seq.parse().ok()?)));
    parts.ok_or_else(|| {
        Code::InvalidRequest.because("\"after\" is not what an answer gave as \"next\"").into()
    })
}

/// Converts a dead letter to its form in the protocol.
fn told((sink, failed, outcome): store::DeadLetter) -> DeadLetter {
    DeadLetter {
        sink,
        seq: failed.seq,
        pin_id: outcome.pin,
        tries: failed.tries,
        since: failed.first_try_at.map(|at| rfc3339(at.wall)),
        last_try_at: failed.last_try_at.map(|at| rfc3339(at.wall)),
        error: failed.error,
        outcome: Raw::from_json(&outcome.record).ok(),
    }
}
