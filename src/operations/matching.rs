//! Answers what is asked about all PINs or outcomes that match a filter: pages of them, and how many there
//! are.
//!
//! A request looks at a bounded number of rows, whatever matches: the answer's `next` says where the rest begins. Must not
//! decide anything about a PIN.

use super::failure::{Failure, unreadable};
use crate::outcome::{Ending, deciding};
use crate::pin::PinId;
use crate::protocol::filter::{About, Filter};
use crate::protocol::show::Pin;
use crate::protocol::{Code, MAX_ANSWER, Raw, Record, State, count, list, page, page_limit};
use crate::schedule::Live;
use crate::services::Services;
use crate::store::{Found, Outcome, Position, SCAN, Wanted};

/// How many PINs the schedule is asked about at once, so that it is not kept from polling.
const ASKED_AT_ONCE: usize = 1000;

/// How many outcomes are read per query.
const OUTCOMES: u32 = 256;

/// Counts the PINs in flight that match, in one part of them.
pub async fn count(
    services: &Services,
    count::Request { filter, after }: count::Request,
) -> Result<count::Answer, Failure> {
    filter.check(About::InFlight)?;
    let found = in_flight(services, &filter, after.as_deref(), SCAN).await?;
    Ok(count::Answer { count: with_status(services, &filter, &found).await?.len() as u64, next: found.next })
}

/// The PINs in flight that match as far as the store knows.
pub async fn in_flight(
    services: &Services,
    filter: &Filter,
    after: Option<&str>,
    limit: u32,
) -> Result<Found, Failure> {
    let now = services.clock.steady();
    let wanted = Wanted {
        reference: filter.reference.clone(),
        reference_prefix: filter.reference_prefix.clone(),
        until: filter.older_than.map(|least| now.before(least)),
        after: filter.newer_than.map(|below| now.before(below)),
    };
    let after = after.unwrap_or_default();
    let found = if wanted == Wanted::default() {
        let page = services.store.in_flight_after(after, limit).await?;
        page.map(|page| Found { next: page.next().map(str::to_owned), pins: page.pins })
    } else {
        services.store.in_flight_matching(after, &wanted, limit).await?
    };
    found.ok_or_else(|| {
        Code::InvalidRequest
            .because(r#""after" is neither what an answer gave as "next" nor a PIN that is in flight"#)
            .into()
    })
}

/// The PINs of a page that have the status of the filter, if it has one.
pub async fn with_status(services: &Services, filter: &Filter, found: &Found) -> Result<Vec<PinId>, Failure> {
    let pins: Vec<_> = found.pins.iter().map(|(pin, _)| pin.pin.clone()).collect();
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
    let mut position = match after.as_deref() {
        None | Some("") => Position::after(0),
        Some(text) => text.parse().map_err(|_| {
            Code::InvalidRequest.because("\"after\" is not what such a list gave as \"next\"")
        })?,
    };
    let (limit, mut items, mut bytes, mut scanned) = (page_limit(limit) as usize, Vec::new(), 0, 0);
    let more = loop {
        let stretch = match &filter.reference {
            Some(reference) => {
                services.store.outcomes_with_reference(reference, position.others(), OUTCOMES).await?
            }
            None => services.store.stretch(&position, OUTCOMES).await?,
        };
        for (partition, outcome) in stretch.outcomes {
            if items.len() == limit {
                break;
            }
            if filter.reference.is_some() {
                // A list of what has finished until now: whatever another node commits meanwhile need not be in it.
                position = Position::after(outcome.seq);
            } else {
                position.advance(partition, outcome.seq);
            }
            scanned += 1;
            if outcome_matches(services, &filter, &outcome) {
                bytes += outcome.record.len();
                items.push((of_outcome(outcome)?, position.to_string()));
            }
        }
        if items.len() == limit || scanned >= SCAN || bytes >= MAX_ANSWER {
            break true;
        }
        if !stretch.more {
            break false;
        }
    };
    let found = items.len();
    let (pins, cut) = page(items, false);
    let next = if pins.len() < found { cut } else { more.then(|| position.to_string()) };
    Ok(list::Answer { pins, next })
}

/// Whether an outcome matches; its age counts from when the PIN finished.
pub fn outcome_matches(services: &Services, filter: &Filter, outcome: &Outcome) -> bool {
    if filter.is_empty() {
        return true;
    }
    let Ok(record) = serde_json::from_str::<Record>(&outcome.record) else { return false };
    let finished_at = record.finished_at.as_deref().and_then(|at| at.parse::<jiff::Timestamp>().ok());
    let age = finished_at.map(|at| services.clock.wall().duration_since(at));
    let age = age.and_then(|age| age.try_into().ok()).unwrap_or_default();
    filter.matches(&record, age)
}

fn of_outcome(outcome: Outcome) -> Result<Pin, Failure> {
    Ok(Pin {
        state: Some(State::Finished),
        outcome: Some(Raw::from_json(&outcome.record).map_err(unreadable)?),
        ..Pin::of(outcome.pin)
    })
}
