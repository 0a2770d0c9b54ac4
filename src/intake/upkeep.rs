//! What an administrator asks: dead letters, deliveries over again, sinks that are no more.
//!
//! Only changes what a sink is still to get; no PIN and no outcome.

use std::ops::RangeInclusive;

use super::Services;
use super::answer;
use super::connection::{Ended, outcome_of};
use super::request::{Code, DeadLetterToken, Which};
use crate::store::Order;

/// A page of dead letters, in the order of sinks and `seq`.
pub async fn dead_letters(
    services: &Services,
    sink: Option<&str>,
    after: &DeadLetterToken,
    limit: u32,
) -> Result<String, Ended> {
    if let Some(sink) = sink {
        known(services, sink).await?;
    }
    let letters = services.store.dead_letters(sink, after, limit).await?;
    let next = letters.last().filter(|_| letters.len() == limit as usize);
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
    let (from, to) = seqs(services, which).await?.into_inner();
    order(services, Order::Replay { sink, from, to, only_dead }).await
}

/// Gives up dead letters.
pub async fn drop(services: &Services, sink: String, which: Which) -> Result<String, Ended> {
    known(services, &sink).await?;
    let (from, to) = seqs(services, which).await?.into_inner();
    order(services, Order::Drop { sink, from, to }).await
}

/// Forgets a sink that is not configured any more: outcomes need not be kept for it.
pub async fn forget_sink(services: &Services, sink: String) -> Result<String, Ended> {
    known(services, &sink).await?;
    if services.health.all().contains_key(&sink) {
        let message =
            format!("the sink {sink:?} is configured: take it out of the configuration and restart first");
        return Err(Code::InvalidRequest.because(message).into());
    }
    order(services, Order::Forget { sink }).await
}

async fn order(services: &Services, order: Order) -> Result<String, Ended> {
    Ok(answer::counted(services.writer.order(order).await?))
}

async fn seqs(services: &Services, which: Which) -> Result<RangeInclusive<i64>, Ended> {
    Ok(match which {
        Which::Range(from, to) => from..=to,
        Which::Pin(pin) => {
            let seq = outcome_of(services, &pin).await?.seq;
            seq..=seq
        }
    })
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
