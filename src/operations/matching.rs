//! Finds the PINs in flight, or the outcomes, that match a filter, and answers with pages of them.
//!
//! A request looks at a bounded number of rows, whatever matches: the answer's `next` says where the rest begins. Must not
//! decide anything about a PIN.

use std::collections::HashSet;

use jiff::Timestamp;

use super::failure::{Failure, unreadable};
use super::known_sink::check_known;
use crate::outcome::{Ending, deciding};
use crate::pin::PinId;
use crate::protocol::filter::Filter;
use crate::protocol::show::Pin;
use crate::protocol::{Code, MAX_ANSWER, Raw, Record, State, When, list, page, page_limit};
use crate::schedule::Live;
use crate::services::Services;
use crate::store::{Found, Outcome, Position, SCAN, Stretch, Unavailable, Wanted};

/// How many PINs one question to the schedule names. A longer question would delay polls.
const ASKED_AT_ONCE: usize = 1000;

/// How many outcomes are read per query.
const OUTCOMES: u32 = 256;

/// Returns the PINs in flight that match all members of the filter that the store knows: all but the status.
pub async fn in_flight(
    services: &Services,
    filter: &Filter,
    after: Option<&str>,
    limit: u32,
) -> Result<Found, Failure> {
    // Ages follow the time that elapsed, times the wall clock, as people see them.
    let now = services.clock.steady();
    let ago = |when| match when {
        Some(When::Ago(age)) => Some(now.before(age)),
        _ => None,
    };
    let at = |when| match when {
        Some(When::At(time)) => Some(time),
        _ => None,
    };
    let wanted = Wanted {
        reference: filter.reference.clone(),
        reference_prefix: filter.reference_prefix.clone(),
        steady_until: ago(filter.older_than),
        steady_after: ago(filter.newer_than),
        wall_before: at(filter.older_than),
        wall_since: at(filter.newer_than),
    };
    let found = services.store.in_flight_matching(after.unwrap_or_default(), &wanted, limit).await?;
    found.ok_or_else(|| {
        Code::InvalidRequest
            .because(r#""after" is neither what an answer gave as "next" nor a PIN that is in flight"#)
            .into()
    })
}

/// The PINs of a page that have the status of the filter, if it has one.
pub async fn with_status(services: &Services, filter: &Filter, found: &Found) -> Result<Vec<PinId>, Failure> {
    let pins: Vec<_> = found.pins.iter().map(|pin| pin.stored.pin.clone()).collect();
    if filter.status.is_none() {
        return Ok(pins);
    }
    let mut matching = Vec::new();
    for pins in pins.chunks(ASKED_AT_ONCE) {
        let live = services.schedule.live(pins.to_vec()).await?;
        let both = pins.iter().zip(live);
        matching
            .extend(both.filter(|(_, live)| has_status(filter, live.as_ref())).map(|(pin, _)| pin.clone()));
    }
    Ok(matching)
}

/// Whether a PIN has the status of the filter. One that this node does not poll has none.
pub fn has_status(filter: &Filter, live: Option<&Live>) -> bool {
    let Some(wanted) = &filter.status else { return true };
    let deliveries = live.and_then(|live| live.seen.as_deref()).unwrap_or_default();
    deciding(deliveries, Ending::Deadline).is_some_and(|delivery| delivery.status.as_str() == wanted)
}

/// A page of finished PINs, oldest outcome first.
pub async fn finished(services: &Services, request: list::Request) -> Result<list::Answer, Failure> {
    let list::Request { limit, after, filter } = request;
    let (limit, mut items, mut bytes) = (page_limit(limit) as usize, Vec::new(), 0);
    let next = each_outcome(services, &filter, after.as_deref(), |outcome, position| {
        bytes += outcome.record.len();
        items.push((of_outcome(outcome)?, position.to_string()));
        Ok(items.len() < limit && bytes < MAX_ANSWER)
    });
    let next = next.await?;
    let (pins, next) = page(items, next);
    Ok(list::Answer { pins, next })
}

/// Passes each matching outcome, oldest first, to `take` with the position after it. Stops when `take` returns false or after
/// [`SCAN`] outcomes. Returns where the rest begins; `None` if nothing is left.
pub async fn each_outcome(
    services: &Services,
    filter: &Filter,
    after: Option<&str>,
    mut take: impl FnMut(Outcome, &Position) -> Result<bool, Failure>,
) -> Result<Option<String>, Failure> {
    let mut position: Position = after.filter(|after| !after.is_empty()).map_or_else(
        || Ok(Position::after(0)),
        |after| {
            let why = "\"after\" is not what such a request gave as \"next\"";
            after.parse().map_err(|_| Code::InvalidRequest.because(why))
        },
    )?;
    check_sink(services, filter).await?;
    let mut looked_at = 0;
    loop {
        let Stretch { outcomes, more, .. } = match &filter.reference {
            Some(reference) => {
                services.store.outcomes_with_reference(reference, position.others(), OUTCOMES).await?
            }
            None => services.store.stretch(&position, OUTCOMES).await?,
        };
        looked_at += outcomes.len();
        let mut end = position.clone();
        let outcomes = outcomes.into_iter().map(|(partition, outcome)| {
            if filter.reference.is_some() {
                // The result shows what has finished so far; it may miss what another node commits meanwhile.
                end = Position::after(outcome.seq);
            } else {
                end.advance(partition, outcome.seq);
            }
            (end.clone(), outcome)
        });
        let outcomes: Vec<_> = outcomes.collect();
        for (position, outcome) in matching(services, filter, outcomes).await? {
            if !take(outcome, &position)? {
                return Ok(Some(position.to_string()));
            }
        }
        position = end;
        if !more {
            return Ok(None);
        }
        if looked_at >= SCAN as usize {
            return Ok(Some(position.to_string()));
        }
    }
}

/// Keeps the outcomes that match.
pub async fn matching<T>(
    services: &Services,
    filter: &Filter,
    mut outcomes: Vec<(T, Outcome)>,
) -> Result<Vec<(T, Outcome)>, Unavailable> {
    let now = services.clock.wall();
    outcomes.retain(|(_, outcome)| outcome_matches(filter, outcome, now));
    if let Some(sink) = &filter.sink {
        let seqs: Vec<i64> = outcomes.iter().map(|(_, outcome)| outcome.seq).collect();
        let lacking: HashSet<i64> = services.store.lacking(sink, &seqs).await?.into_iter().collect();
        outcomes.retain(|(_, outcome)| lacking.contains(&outcome.seq));
    }
    Ok(outcomes)
}

/// Whether the record of an outcome matches; see [`Filter::matches`].
pub fn outcome_matches(filter: &Filter, outcome: &Outcome, now: Timestamp) -> bool {
    filter.is_empty()
        || serde_json::from_str::<Record>(&outcome.record).is_ok_and(|record| filter.matches(&record, now))
}

/// Refuses a filter whose sink does not exist.
pub async fn check_sink(services: &Services, filter: &Filter) -> Result<(), Failure> {
    match &filter.sink {
        Some(sink) => check_known(services, sink).await,
        None => Ok(()),
    }
}

fn of_outcome(outcome: Outcome) -> Result<Pin, Failure> {
    Ok(Pin {
        state: Some(State::Finished),
        outcome: Some(Raw::from_json(&outcome.record).map_err(unreadable)?),
        ..Pin::of(outcome.pin)
    })
}
