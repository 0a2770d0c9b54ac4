//! Answers `show`, `list`, `wait`, `cancel` and `cancel_matching`.
//!
//! Asks the schedule first and the store second, so that a PIN that ends in between is found in the store. Must not
//! decide anything about a PIN.

use std::pin::pin;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep_until, timeout};

use super::cluster_queries;
use super::failure::{Failure, STORE_TIMEOUT, unknown, unreadable};
use super::matching::{self, has_status};
use crate::outcome::{Delivery, Ending, Submission, deciding, rfc3339};
use crate::pin::PinId;
use crate::protocol::filter::{About, Filter};
use crate::protocol::show::{self, LastAnswer, NextPoll, Pin, SinkState};
use crate::protocol::{Code, Raw, State, cancel_matching, list, page, page_limit, wait};
use crate::schedule::{Live, Next, Stopping};
use crate::services::Services;
use crate::sinks::SinkHealth;
use crate::store::{AtSink, Listed, Outcome, PinState, Record};

/// The most PINs that one request withdraws. They are withdrawn together, in a few transactions.
const SLICE: u32 = 500;

pub async fn show(services: &Services, request: show::Request) -> Result<show::Answer, Failure> {
    let (pin_id, others) = match request {
        show::Request::Pin(pin) => (pin, Vec::new()),
        show::Request::Reference(reference) => with_reference(services, reference).await?,
    };
    let live = services.schedule.live(vec![pin_id.clone()]).await?;
    let pin = if let Some(Some(live)) = live.first() {
        let stored = services.store.submission(&pin_id).await?;
        let stored = stored.map(|(submission, noted)| (submission, deadline(Some(live), noted)));
        in_flight(of_live(pin_id, live), stored)
    } else if let Some((pin, stored)) = cluster_queries::in_flight(services, &pin_id).await? {
        in_flight(pin, Some(stored))
    } else {
        finished(services, pin_id).await?
    };
    Ok(show::Answer { pin: Raw::new(&pin), others })
}

/// The newest PIN with a reference, and others that have it too.
async fn with_reference(services: &Services, reference: String) -> Result<(PinId, Vec<PinId>), Failure> {
    let filter = Filter { reference: Some(reference), ..Filter::default() };
    filter.check(About::Either)?;
    let reference = filter.reference.as_deref().unwrap_or_default();
    let mut pins = services.store.pins_with_reference(reference, show::OTHERS + 1).await?.into_iter();
    let message =
        "no PIN with this reference is known: never submitted, or finished longer ago than store.retention";
    let newest = pins.next().ok_or_else(|| Code::NotFound.because(message))?;
    Ok((newest, pins.collect()))
}

pub async fn list(services: &Services, request: list::Request) -> Result<list::Answer, Failure> {
    request.filter.check(About::Either)?;
    if request.filter.is_for_finished() {
        return matching::finished(services, request).await;
    }
    let list::Request { limit, after, filter } = request;
    let found = matching::in_flight(services, &filter, after.as_deref(), page_limit(limit)).await?;
    let ids = found.pins.iter().map(|pin| pin.stored.pin.clone());
    let live = services.schedule.live(ids.collect()).await?;
    let view = match &services.cluster {
        Some(cluster) if live.iter().any(Option::is_none) => Some(cluster.shared.look().await?),
        _ => None,
    };
    let matching = found.pins.into_iter().zip(live).filter(|(_, live)| has_status(&filter, live.as_ref()));
    let items = matching.map(|(Listed { stored, reference, token }, live)| {
        let deadline_at = deadline(live.as_ref(), stored.deadline_at);
        let pin = match (live, &view) {
            (Some(live), _) => of_live(stored.pin, &live),
            (None, Some(view)) => {
                let holder = cluster_queries::holder(view, &stored.pin);
                Pin::of_node(stored.pin, holder)
            }
            // The PIN ended after the store was asked.
            (None, None) => Pin::of(stored.pin),
        };
        let pin = Pin { state: Some(State::InFlight), reference, ..pin };
        (with_times(pin, stored.submitted_at.wall, deadline_at), token)
    });
    let (pins, next) = page(items, found.next);
    Ok(list::Answer { pins, next })
}

/// Waits for the outcome, but stops when `gone` resolves because the client has left.
pub async fn wait(
    services: &Services,
    wait::Request { pin_id, timeout }: wait::Request,
    gone: impl Future<Output = ()>,
) -> Result<wait::Answer, Failure> {
    // A timeout beyond the clock's range is no limit.
    let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut end = pin!(async {
        tokio::select! {
            () = gone => Failure::ClientGone,
            () = services.stop.cancelled() => Stopping.into(),
            () = sleep(until) => Code::Timeout.because("the PIN has no outcome yet").into(),
        }
    });
    let record = loop {
        if let Some(outcome) = services.schedule.wait(pin_id.clone()).await? {
            match unless(&mut end, outcome).await? {
                Ok(record) => break record,
                Err(_) if may_have_moved(services) => continue,
                Err(_) => return Err(Stopping.into()),
            }
        }
        let Some(cluster) = &services.cluster else { break outcome_of(services, &pin_id).await?.record };
        let state = match cluster.pin_state(&pin_id).await? {
            PinState::InFlight => {
                unless(&mut end, cluster.ended(pin_id.clone())).await?.map_err(|_| Stopping)?
            }
            state => state,
        };
        break cluster_queries::record(state, &pin_id)?;
    };
    let outcome = Raw::from_json(&record).map_err(unreadable)?;
    Ok(wait::Answer { pin_id, outcome })
}

/// Returns the awaited value, unless `end` resolves first.
async fn unless<T>(
    end: impl Future<Output = Failure>,
    awaited: impl Future<Output = T>,
) -> Result<T, Failure> {
    tokio::select! {
        // In this order: an outcome that is already there wins over a timeout of zero.
        biased;
        value = awaited => Ok(value),
        failure = end => Err(failure),
    }
}

/// Withdraws a PIN, and returns its outcome once that is durable.
pub async fn cancel(services: &Services, pin: &PinId) -> Result<Record, Failure> {
    loop {
        if let Some(outcome) = services.schedule.cancel(pin.clone()).await? {
            let outcome = timeout(STORE_TIMEOUT, outcome).await.map_err(|_| {
                Code::StoreUnavailable.because("the PIN is withdrawn, but the store can't be written now")
            })?;
            match outcome {
                Ok(record) => return Ok(record),
                Err(_) if may_have_moved(services) => continue,
                Err(_) => return Err(Stopping.into()),
            }
        }
        return match &services.cluster {
            Some(cluster) => cluster_queries::cancel(services, cluster, pin).await,
            None => outcome_of(services, pin).await.map(|outcome| outcome.record),
        };
    }
}

/// Withdraws the PINs in flight that match in the next part, and returns once their outcomes are durable.
///
/// # Errors
/// The filter is empty and `all` is not given, or a PIN could not be withdrawn: others may have been.
pub async fn cancel_matching(
    services: &Services,
    cancel_matching::Request { filter, all, limit, after }: cancel_matching::Request,
) -> Result<cancel_matching::Answer, Failure> {
    filter.check(About::InFlight)?;
    if filter.is_empty() && !all {
        let message = "an empty filter matches every PIN in flight: give \"all\":true if you mean that";
        return Err(Code::InvalidRequest.because(message).into());
    }
    let found = matching::in_flight(services, &filter, after.as_deref(), SLICE).await?;
    let mut pins = matching::with_status(services, &filter, &found).await?;
    let mut next = found.next;
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit.get()).unwrap_or(usize::MAX));
    if pins.len() > limit {
        pins.truncate(limit);
        let last = found.pins.into_iter().find(|pin| Some(&pin.stored.pin) == pins.last());
        next = last.map(|pin| pin.token);
    }
    let mut count = 0;
    for ended in join_all(pins.iter().map(|pin| cancel(services, pin))).await {
        match ended {
            Ok(record) => count += u64::from(cancelled_state(&record) == State::Cancelled),
            // Since the store was asked, it ended and retention removed its outcome.
            Err(Failure::Refused(refusal)) if refusal.code == Code::NotFound => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(cancel_matching::Answer { count, next })
}

/// Returns whether the PIN was withdrawn or had finished before.
pub fn cancelled_state(record: &Record) -> State {
    let is_cancelled = serde_json::from_str::<crate::protocol::Record>(record)
        .is_ok_and(|record| record.outcome == Ending::Cancelled.as_str());
    if is_cancelled { State::Cancelled } else { State::Finished }
}

/// Returns whether a PIN that left the schedule without an outcome moved to another node with its slot.
fn may_have_moved(services: &Services) -> bool {
    services.cluster.is_some() && !services.stop.is_cancelled()
}

/// Returns the newest outcome of a PIN, or refuses because there is none.
pub async fn outcome_of(services: &Services, pin: &PinId) -> Result<Outcome, Failure> {
    services.store.outcome_of(pin).await?.ok_or_else(|| unknown(pin).into())
}

async fn sleep(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Returns a PIN's deadline: the stored one, or the schedule's if they differ by more than a second because the wall
/// clock was set.
fn deadline(live: Option<&Live>, noted: Timestamp) -> Timestamp {
    let is_off = |live: &&Live| live.deadline_at.duration_since(noted).abs() > SignedDuration::from_secs(1);
    live.filter(is_off).map_or(noted, |live| live.deadline_at)
}

fn with_times(pin: Pin, submitted_at: Timestamp, deadline_at: Timestamp) -> Pin {
    Pin { submitted_at: Some(rfc3339(submitted_at)), deadline_at: Some(rfc3339(deadline_at)), ..pin }
}

/// Adds what the store has of a PIN in flight. Uses the stored times: the schedule computes its own from the clock,
/// and they can differ slightly.
fn in_flight(mut pin: Pin, stored: Option<(Submission, Timestamp)>) -> Pin {
    pin.state = Some(State::InFlight);
    let Some((submission, deadline_at)) = stored else { return pin };
    Pin {
        reference: submission.reference,
        metadata: submission.metadata,
        submitted_by: submission.submitter,
        ..with_times(pin, submission.submitted_at, deadline_at)
    }
}

/// Returns what the schedule has of a PIN in flight.
fn of_live(pin_id: PinId, live: &Live) -> Pin {
    let deliveries = live.seen.as_deref().unwrap_or_default();
    let last_answer = live.last_answer.as_ref().map(|(at, trouble)| LastAnswer {
        at: rfc3339(*at),
        what: trouble.as_ref().map_or_else(|| summary(deliveries), |trouble| trouble.to_string()),
    });
    let (at, why) = match live.next {
        Next::Due(at) => (Some(at), "next interval".to_owned()),
        Next::Deadline(at) => (Some(at), "its deadline: the last poll".to_owned()),
        Next::Braked(at, reason) => (Some(at), format!("all polling waits: {}", reason.as_str())),
        Next::Polling => (None, "it is being polled now".to_owned()),
        Next::Finishing => (None, "its outcome is being written".to_owned()),
    };
    let at = at.map(rfc3339);
    let pin = Pin {
        polls: Some(Some(live.polls)),
        last_status: deciding(deliveries, Ending::Deadline)
            .map(|delivery| Some(delivery.status.as_str().to_owned())),
        last_answer: last_answer.map(Some),
        next_poll_at: at.clone().map(Some),
        next_poll: Some(Some(NextPoll { at, why })),
        ..Pin::of(pin_id)
    };
    with_times(pin, live.submitted_at, live.deadline_at)
}

/// Summarises deliveries in a few words.
fn summary(deliveries: &[Delivery]) -> String {
    let statuses: Vec<_> = deliveries
        .iter()
        .map(|d| format!("{}{}", d.status, if d.final_status { "" } else { ", not final" }))
        .collect();
    if statuses.is_empty() { "nothing known yet".into() } else { statuses.join("; ") }
}

/// Returns a PIN that has its outcome, and the state of that outcome at each sink.
async fn finished(services: &Services, pin_id: PinId) -> Result<Pin, Failure> {
    let outcome = outcome_of(services, &pin_id).await?;
    let (sinks, health) = (services.store.sinks_of(outcome.seq).await?, services.health.all());
    let sinks = sinks.into_iter().map(|sink| {
        let health = health.get(&sink.sink);
        sink_state(outcome.seq, sink, health)
    });
    Ok(Pin {
        state: Some(State::Finished),
        submitted_by: services.store.submitter_of(outcome.seq).await?,
        sinks: Some(sinks.collect()),
        outcome: Some(Raw::from_json(&outcome.record).map_err(unreadable)?),
        ..Pin::of(pin_id)
    })
}

/// Returns an outcome's state at one sink, from the failed deliveries, the cursor and the sink's present trouble.
fn sink_state(seq: i64, at_sink: AtSink, health: Option<&SinkHealth>) -> SinkState {
    let AtSink { sink, cursor, failed, dropped_at } = at_sink;
    let cursor = health.map_or(cursor, |health| health.cursor.max(cursor));
    let (state, since, tries, last_error) = if let Some(failed) = failed {
        let state = if failed.dead { "dead_letter" } else { "retrying" };
        (state, failed.first_try_at.map(|at| at.wall), Some(failed.tries), failed.error)
    } else if let Some(at) = dropped_at {
        ("dropped", Some(at), None, None)
    } else if cursor >= seq {
        ("delivered", health.and_then(|health| health.has_since(seq)), None, None)
    } else {
        let (since, what) = health.and_then(|health| health.trouble.clone()).unzip();
        ("pending", since, None, what)
    };
    SinkState { name: sink, state: state.into(), since: since.map(rfc3339), tries, last_error }
}
