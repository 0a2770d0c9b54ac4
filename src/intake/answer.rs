//! What a client is told: one line of JSON an answer, as in the contract.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;

use super::elsewhere;
use super::outgoing::MAX_ANSWER;
use super::request::Refusal;
use crate::cluster::View;
use crate::metrics;
use crate::outcome::{Delivery, Ending, Metadata, Submission, deciding, rfc3339};
use crate::pin::PinId;
use crate::poll::Stray;
use crate::schedule::{Live, Next, Stats};
use crate::sinks::SinkHealth;
use crate::store::{AtSink, DeadLetter, Outcome, Page, Position, Record, Submitted};
use crate::text::json_line;

/// The answer to anything that is refused.
pub fn refused(refusal: &Refusal) -> String {
    line(
        &serde_json::json!({"ok": false, "error": {"code": refusal.code.as_str(), "message": refusal.message}}),
    )
}

/// The answer to a submit, put behind those before. The hot path: written by hand, for a PIN ID needs no
/// escaping.
pub fn submitted(pin: &PinId, state: &Submitted, out: &mut Vec<u8>) {
    let state_name = match state {
        Submitted::Accepted => "accepted",
        Submitted::Duplicate => "duplicate",
        Submitted::Finished(_) => "finished",
        Submitted::AtCapacity => {
            let refusal = super::Code::AtCapacity.because(format!(
                "PIN {pin} was not accepted: as many PINs are in flight as may be (intake.max_in_flight)"
            ));
            return out.extend_from_slice(refused(&refusal).as_bytes());
        }
    };
    for part in [r#"{"ok":true,"pinId":""#, pin.as_str(), r#"","state":""#, state_name, "\""] {
        out.extend_from_slice(part.as_bytes());
    }
    if let Submitted::Finished(Some(record)) = state {
        out.extend_from_slice(br#","outcome":"#);
        out.extend_from_slice(record.as_bytes());
    }
    out.extend_from_slice(b"}\n");
}

/// The answer to a submit of a PIN that has this outcome already.
pub fn finished_before(pin: &PinId, record: &Record) -> String {
    format!("{{\"ok\":true,\"pinId\":\"{pin}\",\"state\":\"finished\",\"outcome\":{record}}}\n")
}

/// The answer to a wait.
pub fn ended(pin: &PinId, record: &Record) -> String {
    format!("{{\"ok\":true,\"pinId\":\"{pin}\",\"outcome\":{record}}}\n")
}

/// The answer to a cancel.
pub fn cancelled(pin: &PinId, record: &Record) -> String {
    // The record is ours: its outcome stands where record() puts it.
    let by_us =
        serde_json::from_str::<OutcomeOnly>(record).is_ok_and(|r| r.outcome == Ending::Cancelled.as_str());
    let state = if by_us { "cancelled" } else { "finished" };
    format!("{{\"ok\":true,\"pinId\":\"{pin}\",\"state\":\"{state}\",\"outcome\":{record}}}\n")
}

#[derive(serde::Deserialize)]
struct OutcomeOnly {
    outcome: String,
}

/// The answer to a ping.
pub fn pong() -> String {
    line(&serde_json::json!({"ok": true, "version": env!("CARGO_PKG_VERSION")}))
}

/// The end of a tail that does not follow. `next`, the `seq` to go on from, is for clients that know no positions.
pub fn tail_end(position: &Position) -> String {
    let next = position.highest().saturating_add(1);
    line(&serde_json::json!({"ok": true, "end": true, "next": next, "position": position.to_string()}))
}

/// Between the records of a tail: they are all up to here.
pub fn tail_position(position: &Position) -> String {
    line(&serde_json::json!({"ok": true, "position": position.to_string()}))
}

/// Between the records of a tail: outcomes from one `seq` to another were removed before they were read.
pub fn tail_removed(from: i64, to: i64) -> String {
    line(&serde_json::json!({"ok": true, "removed": {"from": from, "to": to}}))
}

/// A sink's state for one PIN.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SinkState<'a> {
    name: &'a str,
    state: &'static str,
    /// Since when it has it, or since when it is tried, or was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<&'a str>,
}

/// What is known of an outcome at one sink: from its cursor, from its failed deliveries, and from what stops
/// it now.
fn sink_state<'a>(
    seq: i64,
    AtSink { sink, cursor, failed, dropped_at }: &'a AtSink,
    health: Option<&'a SinkHealth>,
) -> SinkState<'a> {
    let since;
    let (mut tries, mut last_error) = (None, None);
    let cursor = health.map_or(*cursor, |health| health.cursor.max(*cursor));
    let state = if let Some(failed) = failed {
        since = failed.first_try_at.map(|at| rfc3339(at.wall));
        tries = Some(failed.tries);
        last_error = failed.error.as_deref();
        if failed.dead { "dead_letter" } else { "retrying" }
    } else if let Some(at) = dropped_at {
        since = Some(rfc3339(*at));
        "dropped"
    } else if cursor >= seq {
        since = health.and_then(|health| health.has_since(seq)).map(rfc3339);
        "delivered"
    } else {
        let trouble = health.and_then(|health| health.trouble.as_ref());
        since = trouble.map(|(since, _)| rfc3339(*since));
        last_error = trouble.map(|(_, what)| what.as_str());
        "pending"
    };
    SinkState { name: sink, state, since, tries, last_error }
}

/// The answer to a show of a PIN in flight, with what the schedule knows of it, or with the node that does; `stored` is
/// what the store has of it, with its deadline.
pub fn in_flight(
    pin: &PinId,
    live: Result<&Live, Option<&str>>,
    stored: Option<&(Submission, Timestamp)>,
) -> String {
    #[derive(Serialize)]
    struct Shown<'a> {
        #[serde(flatten)]
        state: serde_json::Map<String, serde_json::Value>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        metadata: Option<&'a Metadata>,
    }
    #[derive(Serialize)]
    struct Answer<'a> {
        ok: bool,
        pin: Shown<'a>,
    }
    let mut state = live.map_or_else(elsewhere::held_by, state);
    if let Some((submission, deadline_at)) = stored {
        // As in the record: the schedule's own are worked out from the clock and can be off by a little.
        state.insert("submittedAt".into(), rfc3339(submission.submitted_at).into());
        state.insert("deadlineAt".into(), rfc3339(deadline(live.ok(), *deadline_at)).into());
    }
    state.insert("pinId".into(), pin.as_str().into());
    state.insert("state".into(), "in_flight".into());
    let submission = stored.map(|(submission, _)| submission);
    let reference = submission.and_then(|s| s.reference.as_deref());
    let metadata = submission.and_then(|s| s.metadata.as_ref());
    line(&Answer { ok: true, pin: Shown { state, reference, metadata } })
}

/// The answer to a show of a PIN that has its outcome.
pub fn finished(outcome: &Outcome, sinks: &[AtSink], health: &BTreeMap<String, SinkHealth>) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Shown<'a> {
        pin_id: &'a PinId,
        state: &'a str,
        outcome: &'a RawValue,
        sinks: Vec<SinkState<'a>>,
    }
    #[derive(Serialize)]
    struct Answer<'a> {
        ok: bool,
        pin: Shown<'a>,
    }
    let Ok(record) = serde_json::from_str(&outcome.record) else {
        return refused(&super::Code::StoreUnavailable.because("the outcome in the store is not readable"));
    };
    let sinks = sinks.iter().map(|sink| sink_state(outcome.seq, sink, health.get(&sink.sink))).collect();
    line(&Answer { ok: true, pin: Shown { pin_id: &outcome.pin, state: "finished", outcome: record, sinks } })
}

/// The answer to a list: PINs with what the schedule knows of them, or with the node that does, and where to go on.
pub fn list(Page { pins, more }: &Page, live: &[Option<Live>], others: Option<&View>) -> String {
    let pins = pins.iter().zip(live).map(|((pin, place), live)| {
        let mut shown = match (live, others) {
            (Some(live), _) => state(live),
            (None, Some(view)) => elsewhere::held_by(elsewhere::holder(view, &pin.pin)),
            // It ended between the two looks.
            (None, None) => serde_json::Map::new(),
        };
        shown.insert("pinId".into(), pin.pin.as_str().into());
        shown.insert("submittedAt".into(), rfc3339(pin.submitted_at.wall).into());
        shown.insert("deadlineAt".into(), rfc3339(deadline(live.as_ref(), pin.deadline_at)).into());
        (shown, place.clone())
    });
    page("pins", pins, *more)
}

/// The answer to a question for a list: as many of the items as [`MAX_ANSWER`] allows, each with the place behind which
/// the next page would begin; `more` is whether there may be any behind the last.
fn page(name: &str, items: impl Iterator<Item = (impl Serialize, String)>, more: bool) -> String {
    let mut text = format!("{{\"ok\":true,\"{name}\":[");
    let (mut next, mut is_cut) = (None, false);
    for (item, place) in items {
        let item = json(&item);
        is_cut = next.is_some() && text.len() + item.len() + place.len() + 64 > MAX_ANSWER;
        if is_cut {
            break;
        }
        if next.is_some() {
            text.push(',');
        }
        text.push_str(&item);
        next = Some(place);
    }
    text.push(']');
    if let Some(next) = next.filter(|_| more || is_cut) {
        text.push_str(&format!(",\"next\":{}", json(&next)));
    }
    text.push_str("}\n");
    text
}

/// When a PIN's time is up, as it was noted at its submit; by the clock as it stands now, if that was set since.
fn deadline(live: Option<&Live>, noted: Timestamp) -> Timestamp {
    let is_off = |live: &&Live| live.deadline_at.duration_since(noted).abs() > SignedDuration::from_secs(1);
    live.filter(is_off).map_or(noted, |live| live.deadline_at)
}

/// A PIN in flight as `show` and `list` tell it.
fn state(live: &Live) -> serde_json::Map<String, serde_json::Value> {
    let mut shown = serde_json::Map::new();
    shown.insert("submittedAt".into(), rfc3339(live.submitted_at).into());
    shown.insert("deadlineAt".into(), rfc3339(live.deadline_at).into());
    shown.insert("polls".into(), live.polls.into());
    let seen = live.seen.as_deref().unwrap_or_default();
    let decider = deciding(seen, Ending::Deadline);
    if let Some(decider) = decider {
        shown.insert("lastStatus".into(), decider.status.as_str().into());
    }
    if let Some((at, trouble)) = &live.last_answer {
        let what = match trouble {
            Some(trouble) => trouble.to_string(),
            None => told(seen),
        };
        shown.insert("lastAnswer".into(), serde_json::json!({"at": rfc3339(*at), "what": what}));
    }
    let (at, why) = match live.next {
        Next::Due(at) => (Some(at), "next interval".to_owned()),
        Next::Deadline(at) => (Some(at), "its deadline: the last poll".to_owned()),
        Next::Braked(at, reason) => (Some(at), format!("all polling waits: {}", reason.as_str())),
        Next::Polling => (None, "it is being polled now".to_owned()),
        Next::Finishing => (None, "its outcome is being written".to_owned()),
    };
    if let Some(at) = at {
        shown.insert("nextPollAt".into(), rfc3339(at).into());
    }
    shown.insert("nextPoll".into(), serde_json::json!({"at": at.map(rfc3339), "why": why}));
    shown
}

/// Deliveries in a few words.
fn told(deliveries: &[Delivery]) -> String {
    let statuses: Vec<_> = deliveries
        .iter()
        .map(|d| format!("{}{}", d.status, if d.final_status { "" } else { ", not final" }))
        .collect();
    if statuses.is_empty() { "nothing known yet".into() } else { statuses.join("; ") }
}

/// The answer to dead_letters; `more` is whether there may be any behind these.
pub fn dead_letters(letters: &[DeadLetter], more: bool) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Letter<'a> {
        sink: &'a str,
        seq: i64,
        pin_id: &'a PinId,
        tries: u32,
        since: Option<String>,
        last_try_at: Option<String>,
        error: Option<&'a str>,
        outcome: Option<&'a RawValue>,
    }
    let letters = letters.iter().map(|(sink, failed, outcome)| {
        let letter = Letter {
            sink,
            seq: failed.seq,
            pin_id: &outcome.pin,
            tries: failed.tries,
            since: failed.first_try_at.map(|at| rfc3339(at.wall)),
            last_try_at: failed.last_try_at.map(|at| rfc3339(at.wall)),
            error: failed.error.as_deref(),
            outcome: serde_json::from_str(&outcome.record).ok(),
        };
        (letter, format!("{sink}/{}", failed.seq))
    });
    page("deadLetters", letters, more)
}

/// The answer to what changes a number of deliveries.
pub fn counted(count: u64) -> String {
    line(&serde_json::json!({"ok": true, "count": count}))
}

/// What stats tell. A sink that has a cursor and no health is not configured any more. Of `failed`: a sink's
/// name, how many outcomes it is tried again with, how many are dead letters. `store` is why it can't be written, and since when.
pub fn stats(
    schedule: &Stats,
    newest_seq: i64,
    store: Option<(Timestamp, Arc<str>)>,
    connections: usize,
    health: &BTreeMap<String, SinkHealth>,
    cursors: &[(String, i64)],
    failed: &[(String, i64, i64)],
) -> serde_json::Value {
    let counts = &schedule.counts;
    let outcomes: serde_json::Map<_, _> =
        Ending::ALL.iter().map(|e| (e.as_str().to_owned(), counts.outcomes[*e as usize].into())).collect();
    let trouble = |since: Timestamp, what: &str| serde_json::json!({"since": rfc3339(since), "what": what});
    let forgotten = cursors.iter().filter(|(name, _)| !health.contains_key(name));
    let forgotten = forgotten.map(|(name, cursor)| (name, false, SinkHealth::at(*cursor)));
    let sinks: serde_json::Map<_, _> = health
        .iter()
        .map(|(name, health)| (name, true, health.clone()))
        .chain(forgotten)
        .map(|(name, configured, health)| {
            let (retrying, dead) = failed
                .iter()
                .find(|(sink, ..)| sink == name)
                .map_or((0, 0), |(_, retrying, dead)| (*retrying, *dead));
            let trouble = health.trouble.as_ref().map(|(since, what)| trouble(*since, what));
            let sink = serde_json::json!({
                "configured": configured,
                "cursor": health.cursor,
                "behind": (newest_seq - health.cursor).max(0),
                "retrying": retrying,
                "deadLetters": dead,
                "closed": health.closed,
                "trouble": trouble,
            });
            (name.clone(), sink)
        })
        .collect();
    let brake = schedule
        .brake
        .map(|(reason, until)| serde_json::json!({"reason": reason.as_str(), "until": until.map(rfc3339)}));
    serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "inFlight": schedule.in_flight,
        "due": schedule.due,
        "polling": schedule.polling,
        "finishing": schedule.finishing,
        "brake": brake,
        "mostRefused": schedule.refused_everywhere.map(|(refusal, since)| {
            serde_json::json!({"answer": refusal.answer(), "since": rfc3339(since)})
        }),
        "rate": schedule.rate,
        "polls": {
            "total": counts.polls,
            "understood": counts.understood,
            "unreadable": counts.unreadable,
            "rejected": counts.rejected,
            "unauthorized": counts.unauthorized,
            "notFound": counts.not_found,
            "throttled": counts.throttled,
            "unavailable": counts.unavailable,
            "notSent": counts.not_sent,
        },
        "outcomes": outcomes,
        "store": {"trouble": store.map(|(since, what)| trouble(since, &what))},
        "newestSeq": newest_seq,
        "sinks": sinks,
        "connections": connections,
        "logLinesLost": metrics::log_lines_lost(),
    })
}

/// The answers that nobody asked for, and how long no connection is reused because of them.
pub fn strays(stray: &Stray, now: Timestamp) -> serde_json::Value {
    serde_json::json!({"since": rfc3339(now - stray.since.elapsed()), "until": rfc3339(now + stray.left())})
}

/// An answer as one line for every reader, with its newline.
pub fn line(value: &impl Serialize) -> String {
    let mut text = json(value);
    text.push('\n');
    text
}

fn json(value: &impl Serialize) -> String {
    json_line(serde_json::to_string(value).expect("maps with string keys always serialize")).into_owned()
}
