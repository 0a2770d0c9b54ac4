//! Answers administrators: dead letters, replays, and sinks that are no longer configured.
//!
//! Changes only what a sink still receives. Must not change a PIN or an outcome.

use std::ops::RangeInclusive;

use super::failure::{Failure, in_time};
use super::pins::outcome_of;
use crate::outcome::rfc3339;
use crate::protocol::dead_letters::{self, DeadLetter};
use crate::protocol::{Code, Raw, Selection, drop, forget_sink, page, page_limit, replay};
use crate::schedule::Stopping;
use crate::services::Services;
use crate::store::DeliveryCommand;

/// How many dead letters of one PIN are read per query.
const PAGE: u32 = 1000;

/// The most seqs that one delivery command covers. This limits its transaction, so that no other writer waits long.
const SLICE: i64 = 10_000;

/// All seqs.
const ALL: RangeInclusive<i64> = 0..=i64::MAX;

/// The sink and the `seq` after which a list of dead letters continues.
type PageToken = (String, i64);

/// Returns a page of dead letters, sorted by sink and `seq`.
pub async fn dead_letters(
    services: &Services,
    request: dead_letters::Request,
) -> Result<dead_letters::Answer, Failure> {
    let dead_letters::Request { sink, pin_id, from, to, after, limit } = request;
    let seqs = from.unwrap_or(*ALL.start())..=to.unwrap_or(*ALL.end());
    let after = after.as_deref().map(page_token).transpose()?.unwrap_or_default();
    let sink = sink.as_deref();
    if let Some(sink) = sink {
        check_known(services, sink).await?;
    }
    let (letters, more) =
        services.store.dead_letters(sink, pin_id.as_ref(), &seqs, &after, page_limit(limit)).await?;
    let letters = letters.into_iter().map(|(sink, failed, outcome)| {
        let token = format!("{sink}/{}", failed.seq);
        let letter = DeadLetter {
            sink,
            seq: failed.seq,
            pin_id: outcome.pin,
            tries: failed.tries,
            since: failed.first_try_at.map(|at| rfc3339(at.wall)),
            last_try_at: failed.last_try_at.map(|at| rfc3339(at.wall)),
            error: failed.error,
            outcome: Raw::from_json(&outcome.record).ok(),
        };
        (letter, token)
    });
    let (dead_letters, next) = page(letters, more);
    Ok(dead_letters::Answer { dead_letters, next })
}

/// Parses `SINK/SEQ`, the `next` of the previous answer.
fn page_token(text: &str) -> Result<PageToken, Failure> {
    let parts = text.rsplit_once('/').and_then(|(sink, seq)| Some((sink.to_owned(), seq.parse().ok()?)));
    parts.ok_or_else(|| {
        Code::InvalidRequest.because("\"after\" is not what an answer gave as \"next\"").into()
    })
}

/// Delivers outcomes to a sink again, with their original `id`.
pub async fn replay(services: &Services, request: replay::Request) -> Result<replay::Answer, Failure> {
    let replay::Request { sink, pin_id, from, to, dead: only_dead } = request;
    let selection = Selection::required(pin_id, from, to)?;
    check_known(services, &sink).await?;
    if !services.health.all().contains_key(&sink) {
        let message = format!("the sink {sink:?} is not configured any more: nothing can be delivered to it");
        return Err(Code::InvalidRequest.because(message).into());
    }
    let mut count = 0;
    for range in seqs(services, &sink, selection, only_dead).await? {
        let dead = only_dead.then_some(sink.as_str());
        let replayed = in_slices(services, dead, range, SLICE, |from, to| DeliveryCommand::Replay {
            sink: sink.clone(),
            from,
            to,
            only_dead,
        });
        count += replayed.await?;
    }
    Ok(replay::Answer { count })
}

/// Discards dead letters.
pub async fn drop(services: &Services, request: drop::Request) -> Result<drop::Answer, Failure> {
    let drop::Request { sink, pin_id, from, to } = request;
    let selection = Selection::required(pin_id, from, to)?;
    check_known(services, &sink).await?;
    let (mut count, at) = (0, services.clock.wall());
    for range in seqs(services, &sink, selection, true).await? {
        let dropped = in_slices(services, Some(&sink), range, SLICE, |from, to| DeliveryCommand::Drop {
            sink: sink.clone(),
            from,
            to,
            at,
        });
        count += dropped.await?;
    }
    Ok(drop::Answer { count })
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

/// Sends a range to the writer slice by slice, and returns how many outcomes were affected.
///
/// Each slice begins at the next outcome, or at the next dead letter of the sink `dead`. Slices sent before a failure
/// or a stop stay in effect.
async fn in_slices(
    services: &Services,
    dead: Option<&str>,
    range: RangeInclusive<i64>,
    slice: i64,
    make: impl Fn(i64, i64) -> DeliveryCommand,
) -> Result<u64, Failure> {
    let (mut from, to) = range.into_inner();
    let mut count = 0;
    while from <= to {
        check_not_stopping(services)?;
        let first = match dead {
            None => services.store.first_seq_from(from).await?,
            Some(sink) => {
                let after = PageToken::default();
                let (letters, _) =
                    services.store.dead_letters(Some(sink), None, &(from..=to), &after, 1).await?;
                letters.first().map(|(_, failed, _)| failed.seq)
            }
        };
        let Some(first) = first.filter(|first| *first <= to) else { break };
        let last = to.min(first.saturating_add(slice - 1));
        count += command(services, make(first, last)).await?;
        let Some(next) = last.checked_add(1) else { break };
        from = next;
    }
    Ok(count)
}

/// Sends one slice of a command to the writer, and waits for its commit no longer than the store may take.
async fn command(services: &Services, command: DeliveryCommand) -> Result<u64, Failure> {
    in_time(async { Ok(services.writer.command(command).await?) }).await
}

/// Refuses the rest of a long command once the daemon is stopping.
fn check_not_stopping(services: &Services) -> Result<(), Failure> {
    if services.stop.is_cancelled() { Err(Stopping.into()) } else { Ok(()) }
}

/// Returns the seqs of a selection. A PIN that was polled again has several outcomes, and each can be a dead letter.
async fn seqs(
    services: &Services,
    sink: &str,
    selection: Selection,
    only_dead: bool,
) -> Result<Vec<RangeInclusive<i64>>, Failure> {
    let pin = match selection {
        Selection::Range(from, to) => return Ok(vec![from..=to]),
        Selection::Pin(pin) => pin,
    };
    let newest = outcome_of(services, &pin).await?.seq;
    if !only_dead {
        return Ok(vec![newest..=newest]);
    }
    let (mut seqs, mut after, mut more) = (Vec::new(), PageToken::default(), true);
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

async fn check_known(services: &Services, sink: &str) -> Result<(), Failure> {
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
    async fn a_long_replay_is_split_into_slices_and_skips_missing_outcomes() {
        let folder = tempfile::tempdir().unwrap();
        let services = services(folder.path(), 25).await;
        let slices = Mutex::new(Vec::new());
        let replay = |only_dead| {
            let slices = &slices;
            move |from, to| {
                slices.lock().unwrap().push((from, to));
                DeliveryCommand::Replay { sink: "sink".into(), from, to, only_dead }
            }
        };
        let count = in_slices(&services, None, ALL, 10, replay(false)).await;
        assert_eq!(count.ok(), Some(25));
        assert_eq!(*slices.lock().unwrap(), [(1, 10), (11, 20), (21, 30)]);

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
        assert_eq!(*slices.lock().unwrap(), [(3, 12), (24, 24)]);

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
