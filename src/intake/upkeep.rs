//! What an administrator asks: dead letters, deliveries over again, sinks that are no more.
//!
//! Only changes what a sink is still to get; no PIN and no outcome.

use std::ops::RangeInclusive;

use super::Services;
use super::answer;
use super::connection::{Ended, outcome_of};
use super::request::{Code, DeadLetterToken, Which};
use crate::store::Order;

/// Dead letters of one PIN that are read at once.
const PAGE: u32 = 1000;

/// Every `seq`.
const ALL: RangeInclusive<i64> = 0..=i64::MAX;

/// A page of dead letters, in the order of sinks and `seq`.
pub async fn dead_letters(
    services: &Services,
    sink: Option<&str>,
    which: Option<Which>,
    after: &DeadLetterToken,
    limit: u32,
) -> Result<String, Ended> {
    if let Some(sink) = sink {
        known(services, sink).await?;
    }
    let (pin, seqs) = match which {
        None => (None, ALL),
        Some(Which::Pin(pin)) => (Some(pin), ALL),
        Some(Which::Range(from, to)) => (None, from..=to),
    };
    let (letters, more) = services.store.dead_letters(sink, pin.as_ref(), &seqs, after, limit).await?;
    let next = letters.last().filter(|_| more);
    let next = next.map(|(sink, failed, _)| format!("{sink}/{}", failed.seq));
    Ok(answer::dead_letters(&letters, next))
}

/// Has outcomes delivered to a sink again, under the same `id`.
pub async fn replay(
    services: &Services,
    sink: String,
    which: Which,
    only_dead: bool,
) -> Result<String, Ended> {
    known(services, &sink).await?;
    if !services.health.all().contains_key(&sink) {
        let message = format!("the sink {sink:?} is not configured any more: nothing can be delivered to it");
        return Err(Code::InvalidRequest.because(message).into());
    }
    let mut count = 0;
    for range in seqs(services, &sink, which, only_dead).await? {
        let (sink, (from, to)) = (sink.clone(), range.into_inner());
        count += services.writer.order(Order::Replay { sink, from, to, only_dead }).await?;
    }
    Ok(answer::counted(count))
}

/// Gives up dead letters.
pub async fn drop(services: &Services, sink: String, which: Which) -> Result<String, Ended> {
    known(services, &sink).await?;
    let mut count = 0;
    for range in seqs(services, &sink, which, true).await? {
        let (sink, (from, to)) = (sink.clone(), range.into_inner());
        count += services.writer.order(Order::Drop { sink, from, to }).await?;
    }
    Ok(answer::counted(count))
}

/// Forgets a sink that is not configured any more: outcomes need not be kept for it.
pub async fn forget_sink(services: &Services, sink: String) -> Result<String, Ended> {
    known(services, &sink).await?;
    if services.health.all().contains_key(&sink) {
        let message =
            format!("the sink {sink:?} is configured: take it out of the configuration and restart first");
        return Err(Code::InvalidRequest.because(message).into());
    }
    Ok(answer::counted(services.writer.order(Order::Forget { sink }).await?))
}

/// Which outcomes are meant. A PIN that was polled anew has more than one, and any of them can be a dead letter.
async fn seqs(
    services: &Services,
    sink: &str,
    which: Which,
    only_dead: bool,
) -> Result<Vec<RangeInclusive<i64>>, Ended> {
    let pin = match which {
        Which::Range(from, to) => return Ok(vec![from..=to]),
        Which::Pin(pin) => pin,
    };
    let newest = outcome_of(services, &pin).await?.seq;
    if !only_dead {
        return Ok(vec![newest..=newest]);
    }
    let (mut seqs, mut after, mut more) = (Vec::new(), DeadLetterToken::default(), true);
    while more {
        let letters;
        (letters, more) = services.store.dead_letters(Some(sink), Some(&pin), &ALL, &after, PAGE).await?;
        seqs.extend(letters.iter().map(|(_, failed, _)| failed.seq..=failed.seq));
        if let Some((sink, failed, _)) = letters.into_iter().next_back() {
            after = (sink, failed.seq);
        }
    }
    Ok(seqs)
}

async fn known(services: &Services, sink: &str) -> Result<(), Ended> {
    let cursors = services.store.cursors().await?;
    if cursors.iter().any(|(name, _)| name == sink) {
        return Ok(());
    }
    let names: Vec<_> = cursors.into_iter().map(|(name, _)| name).collect();
    let sink: String = sink.chars().take(64).collect();
    let message = format!("there is no sink {sink:?}; there are: {}", names.join(", "));
    Err(Code::NotFound.because(message).into())
}
