//! Answers administrators: replays, drops, and sinks that are no longer configured.
//!
//! Changes only what a sink still receives. Must not change a PIN or an outcome.

use std::ops::RangeInclusive;

use super::dead_letters::{ALL, Letters, each_letter};
use super::failure::{Failure, in_time};
use super::known_sink::check_known;
use super::matching::each_outcome;
use super::pins::outcome_of;
use crate::pin::PinId;
use crate::protocol::filter::Filter;
use crate::protocol::{Code, MAX_PAGE, Selection, drop, forget_sink, replay};
use crate::schedule::Stopping;
use crate::services::Services;
use crate::store::{DeadLetter, DeliveryCommand, Outcome, Position, Seqs};

/// How many dead letters of one PIN are read per query.
const PAGE: u32 = 1000;

/// The most seqs that one delivery command covers. This limits its transaction, so that no other writer waits long.
const SLICE: i64 = 10_000;

/// The most outcomes that one request with a filter affects.
const PART: usize = 500;

/// Delivers outcomes to a sink again, with their original `id`.
pub async fn replay(services: &Services, request: replay::Request) -> Result<replay::Answer, Failure> {
    let replay::Request { sink, pin_id, from, to, dead: only_dead, filter, all, after } = request;
    let selection = Selection::of(pin_id, from, to, filter, all, after)?;
    check_known(services, &sink).await?;
    if !services.health.all().contains_key(&sink) {
        let message = format!("the sink {sink:?} is not configured any more: nothing can be delivered to it");
        return Err(Code::InvalidRequest.because(message).into());
    }
    carry_out(services, &sink, selection, only_dead, |seqs| DeliveryCommand::Replay {
        sink: sink.clone(),
        seqs,
        only_dead,
    })
    .await
}

/// Discards dead letters.
pub async fn drop(services: &Services, request: drop::Request) -> Result<drop::Answer, Failure> {
    let drop::Request { sink, pin_id, from, to, filter, all, after } = request;
    let selection = Selection::of(pin_id, from, to, filter, all, after)?;
    check_known(services, &sink).await?;
    let at = services.clock.wall();
    carry_out(services, &sink, selection, true, |seqs| DeliveryCommand::Drop { sink: sink.clone(), seqs, at })
        .await
}

/// Removes a sink that is no longer configured; the store then keeps no outcomes for it.
pub async fn forget_sink(
    services: &Services,
    forget_sink::Request { sink }: forget_sink::Request,
) -> Result<forget_sink::Answer, Failure> {
    check_known(services, &sink).await?;
    if services.health.all().contains_key(&sink) {
        let message =
            format!("the sink {sink:?} is configured: take it out of the configuration and reload first");
        return Err(Code::InvalidRequest.because(message).into());
    }
    let mut count = 0;
    while command(services, DeliveryCommand::Forget { sink: sink.clone() }).await? > 0 {
        check_not_stopping(services)?;
        count = 1;
    }
    Ok(forget_sink::Answer { count })
}

/// Sends commands for the selected outcomes, or only the dead letters among them, to the writer.
async fn carry_out(
    services: &Services,
    sink: &str,
    selection: Selection,
    only_dead: bool,
    make: impl Fn(Seqs) -> DeliveryCommand,
) -> Result<replay::Answer, Failure> {
    let ranges = match selection {
        Selection::Matching(filter, after) => {
            check_not_stopping(services)?;
            let (seqs, next) = in_time(part(services, sink, filter, after, only_dead)).await?;
            let count = if seqs.is_empty() { 0 } else { command(services, make(Seqs::Each(seqs))).await? };
            return Ok(replay::Answer { count, next });
        }
        Selection::Range(from, to) => vec![from..=to],
        Selection::Pin(pin) => {
            // A PIN that was polled again has several outcomes, and each can be a dead letter.
            let newest = outcome_of(services, &pin).await?.seq;
            if only_dead { letters_of(services, sink, pin).await? } else { vec![newest..=newest] }
        }
    };
    let (dead, mut count) = (only_dead.then_some(sink), 0);
    for range in ranges {
        count += in_slices(services, dead, range, SLICE, &make).await?;
    }
    Ok(replay::Answer { count, next: None })
}

/// The seqs of a part of the outcomes that match, or of the sink's dead letters that match, and where the next part
/// begins.
async fn part(
    services: &Services,
    sink: &str,
    filter: Filter,
    after: Option<String>,
    only_dead: bool,
) -> Result<(Vec<i64>, Option<String>), Failure> {
    let (after, mut seqs) = (after.as_deref(), Vec::new());
    let next = if only_dead {
        let wanted = Letters { sink: Some(sink.to_owned()), filter, ..Letters::default() };
        let take = |(_, failed, _): DeadLetter, _: &str| {
            seqs.push(failed.seq);
            Ok(seqs.len() < PART)
        };
        each_letter(services, &wanted, after, MAX_PAGE, take).await?
    } else {
        let take = |outcome: Outcome, _: &Position| {
            seqs.push(outcome.seq);
            Ok(seqs.len() < PART)
        };
        each_outcome(services, &filter, after, take).await?
    };
    Ok((seqs, next))
}

/// The seqs of all dead letters that a sink has of a PIN.
async fn letters_of(
    services: &Services,
    sink: &str,
    pin: PinId,
) -> Result<Vec<RangeInclusive<i64>>, Failure> {
    let (mut seqs, mut after, mut more) = (Vec::new(), Default::default(), true);
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

/// Sends a range to the writer slice by slice, and returns how many outcomes were affected.
///
/// Each slice begins at the next outcome, or at the next dead letter of the sink `dead`. Slices sent before a failure
/// or a stop stay in effect.
async fn in_slices(
    services: &Services,
    dead: Option<&str>,
    range: RangeInclusive<i64>,
    slice: i64,
    make: impl Fn(Seqs) -> DeliveryCommand,
) -> Result<u64, Failure> {
    let (mut from, to) = range.into_inner();
    let mut count = 0;
    while from <= to {
        check_not_stopping(services)?;
        let first = match dead {
            None => services.store.first_seq_from(from).await?,
            Some(sink) => {
                let after = Default::default();
                let (letters, _) =
                    services.store.dead_letters(Some(sink), None, &(from..=to), &after, 1).await?;
                letters.first().map(|(_, failed, _)| failed.seq)
            }
        };
        let Some(first) = first.filter(|first| *first <= to) else { break };
        let last = to.min(first.saturating_add(slice - 1));
        count += command(services, make(Seqs::Range(first, last))).await?;
        let Some(next) = last.checked_add(1) else { break };
        from = next;
    }
    Ok(count)
}

/// Sends one slice of a command to the writer, and waits for its commit within the time limit of the store.
async fn command(services: &Services, command: DeliveryCommand) -> Result<u64, Failure> {
    in_time(async { Ok(services.writer.command(command).await?) }).await
}

/// Refuses the rest of a long command once the daemon is stopping.
fn check_not_stopping(services: &Services) -> Result<(), Failure> {
    if services.stop.is_cancelled() { Err(Stopping.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::testing::services;
    use super::*;
    use crate::store::{Failed, Progress};

    #[tokio::test]
    async fn a_long_replay_is_split_into_slices_and_skips_missing_outcomes() {
        let folder = tempfile::tempdir().unwrap();
        let services = services(folder.path(), 25).await;
        let slices = Mutex::new(Vec::new());
        let range = |(from, to)| Seqs::Range(from, to);
        let replay = |only_dead| {
            let slices = &slices;
            move |seqs: Seqs| {
                slices.lock().unwrap().push(seqs.clone());
                DeliveryCommand::Replay { sink: "sink".into(), seqs, only_dead }
            }
        };
        let count = in_slices(&services, None, ALL, 10, replay(false)).await;
        assert_eq!(count.ok(), Some(25));
        assert_eq!(*slices.lock().unwrap(), [(1, 10), (11, 20), (21, 30)].map(range));

        slices.lock().unwrap().clear();
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
        assert_eq!(*slices.lock().unwrap(), [(3, 12), (24, 24)].map(range));

        services.stop.cancel();
        let ended = in_slices(&services, None, ALL, 10, replay(false)).await;
        assert!(matches!(ended, Err(Failure::Refused(_))), "a stop does not wait for it");
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
        let once = services.writer.command(DeliveryCommand::Forget { sink: "sink".into() }).await.unwrap();
        assert_eq!(once, 10_000);
        assert_eq!(services.store.cursors().await.unwrap().len(), 1, "it is known until all is gone");
        assert!(forget_sink(&services, forget_sink::Request { sink: "sink".into() }).await.is_ok());
        assert_eq!(services.store.cursors().await.unwrap(), []);
        assert_eq!(services.store.failed_counts().await.unwrap(), []);
    }
}
