//! What an administrator asks: dead letters, deliveries over again, sinks that are no more.
//!
//! Only changes what a sink is still to get; no PIN and no outcome.

use std::ops::RangeInclusive;

use super::Services;
use super::answer;
use super::connection::{Ended, outcome_of};
use super::request::{Code, DeadLetterToken, Which};
use crate::schedule::Stopping;
use crate::store::Order;

/// Dead letters of one PIN that are read at once.
const PAGE: u32 = 1000;

/// From the first to the last `seq` of one order: bounds its transaction, so that nobody waits long for it.
const SLICE: i64 = 10_000;

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
    Ok(answer::dead_letters(&letters, more))
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
        let dead = only_dead.then_some(sink.as_str());
        let ordered = in_slices(services, dead, range, SLICE, |from, to| Order::Replay {
            sink: sink.clone(),
            from,
            to,
            only_dead,
        });
        count += ordered.await?;
    }
    Ok(answer::counted(count))
}

/// Gives up dead letters.
pub async fn drop(services: &Services, sink: String, which: Which) -> Result<String, Ended> {
    known(services, &sink).await?;
    let (mut count, at) = (0, services.clock.wall());
    for range in seqs(services, &sink, which, true).await? {
        let ordered = in_slices(services, Some(&sink), range, SLICE, |from, to| Order::Drop {
            sink: sink.clone(),
            from,
            to,
            at,
        });
        count += ordered.await?;
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
    let mut count = 0;
    while services.writer.order(Order::Forget { sink: sink.clone() }).await? > 0 {
        go_on(services)?;
        count = 1;
    }
    Ok(answer::counted(count))
}

/// Orders a range by slices, from one outcome to the next, or from one dead letter of a sink; gives how many
/// outcomes that concerned. What was ordered before a failure or a stop stays so.
async fn in_slices(
    services: &Services,
    dead: Option<&str>,
    range: RangeInclusive<i64>,
    slice: i64,
    order: impl Fn(i64, i64) -> Order,
) -> Result<u64, Ended> {
    let (mut from, to) = range.into_inner();
    let mut count = 0;
    while from <= to {
        go_on(services)?;
        let first = match dead {
            None => services.store.first_seq_from(from).await?,
            Some(sink) => {
                let after = DeadLetterToken::default();
                let (letters, _) =
                    services.store.dead_letters(Some(sink), None, &(from..=to), &after, 1).await?;
                letters.first().map(|(_, failed, _)| failed.seq)
            }
        };
        let Some(first) = first.filter(|first| *first <= to) else { break };
        let last = to.min(first.saturating_add(slice - 1));
        count += services.writer.order(order(first, last)).await?;
        let Some(next) = last.checked_add(1) else { break };
        from = next;
    }
    Ok(count)
}

/// A stop does not wait for the rest of a long order.
fn go_on(services: &Services) -> Result<(), Ended> {
    if services.stop.is_cancelled() { Err(Stopping.into()) } else { Ok(()) }
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::testing::services;
    use super::*;
    use crate::store::{Failed, Progress};

    #[tokio::test]
    async fn a_long_replay_is_ordered_in_slices_and_skips_what_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let services = services(folder.path(), 25).await;
        let ordered = Mutex::new(Vec::new());
        let replay = |only_dead| {
            let ordered = &ordered;
            move |from, to| {
                ordered.lock().unwrap().push((from, to));
                Order::Replay { sink: "sink".into(), from, to, only_dead }
            }
        };
        let count = in_slices(&services, None, ALL, 10, replay(false)).await;
        assert_eq!(count.ok(), Some(25));
        assert_eq!(*ordered.lock().unwrap(), [(1, 10), (11, 20), (21, 30)]);

        ordered.lock().unwrap().clear();
        let (dead, tries, error) = (true, 1, None);
        let failed = [3, 4, 24].map(|seq| Failed {
            seq,
            dead,
            tries,
            first_try_at: None,
            last_try_at: None,
            error: error.clone(),
        });
        let progress = Progress { sink: "sink".into(), failed: failed.into(), ..Progress::default() };
        services.writer.advance(progress).await;
        services.writer.flush().await.unwrap();
        let count = in_slices(&services, Some("sink"), 0..=24, 10, replay(true)).await;
        assert_eq!(count.ok(), Some(3));
        assert_eq!(*ordered.lock().unwrap(), [(3, 12), (24, 24)]);

        services.stop.cancel();
        let ended = in_slices(&services, None, ALL, 10, replay(false)).await;
        assert!(matches!(ended, Err(Ended::Refused(_))), "a stop does not wait for it");
    }

    #[tokio::test]
    async fn a_sink_with_many_deliveries_is_forgotten_in_more_than_one_transaction() {
        let folder = tempfile::tempdir().unwrap();
        let services = services(folder.path(), 1).await;
        let failed = (1..=10_001).map(|seq| Failed {
            seq,
            dead: seq % 2 == 0,
            tries: 1,
            first_try_at: None,
            last_try_at: None,
            error: None,
        });
        let progress = Progress { sink: "sink".into(), failed: failed.collect(), ..Progress::default() };
        services.writer.advance(progress).await;
        let once = services.writer.order(Order::Forget { sink: "sink".into() }).await.unwrap();
        assert_eq!(once, 10_000);
        assert_eq!(services.store.cursors().await.unwrap().len(), 1, "it is known until all is gone");
        assert!(forget_sink(&services, "sink".into()).await.is_ok());
        assert_eq!(services.store.cursors().await.unwrap(), []);
        assert_eq!(services.store.failed_counts().await.unwrap(), []);
    }
}
