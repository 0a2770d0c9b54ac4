//! Answers `stats` and `ping` from what the other parts report. Must not count anything itself.

use std::borrow::Cow;
use std::time::Duration;

use humantime::format_duration;
use indexmap::IndexMap;
use jiff::Timestamp;

use super::cluster_queries;
use super::failure::Failure;
use super::findings::findings;
use super::verdict::{Numbers, verdict};
use crate::build;
use crate::metrics::{self, catalogue::LIFETIMES};
use crate::outcome::{Ending, rfc3339};
use crate::protocol::stats::{
    Answer, Brake, Learned, MostRefused, Polls, Recent, Sink, Stats, Store as StoreStats, StrayAnswers,
    Trouble,
};
use crate::protocol::{Raw, ping};
use crate::schedule::{self, AGE_BANDS};
use crate::services::Services;
use crate::sinks::SinkHealth;

pub fn ping() -> ping::Answer {
    ping::Answer { version: build::VERSION.to_owned() }
}

pub async fn stats(services: &Services) -> Result<Answer, Failure> {
    Ok(Answer { stats: Raw::new(&current(services).await?) })
}

/// Returns the current numbers of all parts.
pub async fn current(services: &Services) -> Result<Stats, Failure> {
    let schedule = services.schedule.stats().await?;
    let Services { store, writer, failed_counts, .. } = services;
    let failed = failed_counts.get(writer.commands_done(), store.failed_counts()).await?;
    let cursors = store.cursors().await?;
    let newest_seq = *writer.newest().borrow();
    let findings = findings(services, Some(&schedule));
    let polls = schedule.counts;
    let sinks = sinks(services, newest_seq, cursors, &failed).await?;
    let numbers = Numbers {
        in_flight: schedule.in_flight as u64,
        ended: polls.outcomes.iter().sum(),
        notice_delay: polls.mean_notice_delay(),
        dead_letters: sinks
            .iter()
            .map(|(name, sink)| (name.clone(), sink.dead_letters.unsigned_abs()))
            .collect(),
    };
    Ok(Stats {
        version: build::VERSION.to_owned(),
        build: build::build(),
        verdict: verdict(&findings, &numbers, services.clock.wall()),
        in_flight: schedule.in_flight,
        in_flight_by_age: by_age(schedule.in_flight_by_age),
        due: schedule.due,
        polling: schedule.polling,
        finishing: schedule.finishing,
        brake: schedule.brake.map(|(reason, until)| Brake {
            reason: reason.as_str().into(),
            since: schedule.brake_since.map(rfc3339),
            until: until.map(rfc3339),
        }),
        most_refused: schedule
            .refused_everywhere
            .map(|(refusal, since)| MostRefused { answer: refusal.answer().into(), since: rfc3339(since) }),
        rate: schedule.rate,
        polls: Polls {
            total: polls.polls,
            understood: polls.understood,
            unreadable: polls.unreadable,
            rejected: polls.rejected,
            unauthorized: polls.unauthorized,
            not_found: polls.not_found,
            throttled: polls.throttled,
            unavailable: polls.unavailable,
            not_sent: polls.not_sent,
        },
        polls_per_pin: polls.polls_per_pin().map(rounded),
        never_final: polls.never_final().map(rounded),
        polls_by_age: by_age(polls.by_age),
        time_to_final: final_ages(&polls.final_ages),
        final_notice_delay: polls.mean_notice_delay().map(|delay| rounded(delay.as_secs_f64())),
        learned: schedule.learned.as_ref().map(learned),
        outcomes: Ending::ALL.map(|ending| (ending, polls.outcomes[ending as usize])).into(),
        store: StoreStats {
            trouble: writer.trouble().map(|store_trouble| {
                let since = services.clock.wall() - store_trouble.since.elapsed();
                trouble((since, store_trouble.what.to_string()))
            }),
        },
        newest_seq,
        sinks: sinks.into_iter().map(|(name, sink)| (name, Raw::new(&sink))).collect(),
        connections: services.places.count(),
        log_lines_lost: metrics::log_lines_lost(),
        stray_answers: stray_answers(services),
        cluster: cluster_queries::numbers(services).await?,
    })
}

fn learned(learned: &schedule::Learned) -> Learned {
    let schedule::Learned { endings, is_in_force, endings_until_retry, relapses, .. } = learned;
    Learned {
        endings: *endings,
        in_force: *is_in_force,
        endings_until_retry: *endings_until_retry,
        relapses: *relapses,
        recent: recent(learned),
    }
}

/// Compares the learned schedule with backoff, if it was in force.
pub fn recent(learned: &schedule::Learned) -> Option<Recent> {
    let schedule::Learned { compared, recent, .. } = learned;
    let mean = |sum: f64| rounded(sum / *compared as f64);
    (*compared > 0).then(|| Recent {
        endings: *compared,
        polls: mean(recent.real.polls),
        delay: mean(recent.real.delay),
        backoff_polls: mean(recent.backoff.polls),
        backoff_delay: mean(recent.backoff.delay),
    })
}

/// Names the counts of the age bands.
fn by_age(counts: [u64; AGE_BANDS.len()]) -> IndexMap<Cow<'static, str>, u64> {
    AGE_BANDS.iter().map(|(band, _)| Cow::from(*band)).zip(counts).collect()
}

/// Counts final PINs by the time from their submission, each at the smallest limit that it did not exceed.
fn final_ages(counts: &[u64]) -> IndexMap<String, u64> {
    let limits = LIFETIMES.iter().map(|limit| format_duration(Duration::from_secs_f64(*limit)).to_string());
    limits.chain(["more".to_owned()]).zip(counts.iter().copied()).collect()
}

/// Rounds to thousandths.
pub fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

fn stray_answers(services: &Services) -> Option<StrayAnswers> {
    let (strays, now) = (services.api.strays()?, services.clock.wall());
    Some(StrayAnswers { since: rfc3339(now - strays.since.elapsed()), until: rfc3339(now + strays.left()) })
}

/// Returns every sink by name. A sink with a cursor but without health is no longer configured. `failed` has each
/// sink's name, how many outcomes are being retried, and how many are dead letters.
async fn sinks(
    services: &Services,
    newest_seq: i64,
    cursors: Vec<(String, i64)>,
    failed: &[(String, i64, i64)],
) -> Result<Vec<(String, Sink)>, Failure> {
    let health = services.health.all();
    let others = cursors.into_iter().filter(|(name, _)| !health.contains_key(name));
    let others: Vec<_> = others.map(|(name, cursor)| (name, false, SinkHealth::at(cursor))).collect();
    let all = health.into_iter().map(|(name, health)| (name, true, health)).chain(others);
    let mut sinks = Vec::new();
    for (name, configured, health) in all {
        let failed = failed.iter().find(|(sink, ..)| *sink == name);
        let behind = (newest_seq - health.cursor).max(0);
        let retrying = failed.map_or(0, |(_, retrying, _)| *retrying);
        // Asks the store only about a sink that lacks something.
        let oldest = if behind > 0 || retrying > 0 {
            services.store.oldest_undelivered(&name, health.cursor).await?
        } else {
            None
        };
        let clock = &services.clock;
        let sink = Sink {
            configured,
            delivered: health.delivered,
            cursor: health.cursor,
            behind,
            oldest_undelivered: oldest.map(|ended| rfc3339(clock.wall() - clock.steady().since(ended))),
            retrying,
            dead_letters: failed.map_or(0, |(.., dead)| *dead),
            closed: health.closed,
            next_attempt: health.next_attempt.map(rfc3339),
            open_since: health.open_since.map(rfc3339),
            trouble: health.trouble.map(trouble),
        };
        sinks.push((name, sink));
    }
    Ok(sinks)
}

fn trouble((since, what): (Timestamp, String)) -> Trouble {
    Trouble { since: rfc3339(since), what }
}
