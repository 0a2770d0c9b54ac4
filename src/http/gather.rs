//! Reads the current numbers of the schedule, the sinks and the store for each scrape.
//!
//! Promises that a part which does not answer costs the scrape only that part's numbers. Numbers that must be counted as
//! they happen are in [`crate::metrics`].

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::timeout;

use super::Server;
use crate::build;
use crate::clock::Steady;
use crate::cluster::State;
use crate::metrics::{self, Recorder, catalogue};
use crate::protocol::stats::Build;
use crate::schedule::{AGE_BANDS, Reason, Stats};
use crate::services::Services;
use crate::sinks::SinkHealth;
use crate::slot::Slots;
use crate::store::Unavailable;

/// How long a part may take to answer. Prometheus itself waits 10 s by default.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The current numbers, in Prometheus' text format.
pub async fn gather(server: &Server) -> String {
    // A new recorder each time, so that a removed sink leaves no numbers behind.
    let recorder = Recorder::default();
    let services = &server.services;
    let health = services.health.all();
    let (stats, outbox) = tokio::join!(
        timeout(TIMEOUT, services.schedule.stats()),
        timeout(TIMEOUT, Outbox::read(server, &health)),
    );
    let set = |metric, value: f64| recorder.gauge(metric, &[]).set(value);

    set(&catalogue::IN_FLIGHT_MAX, server.limits.in_flight as f64);
    set(&catalogue::POLLING_MAX, server.limits.polls as f64);
    set(&catalogue::CONNECTIONS_MAX, server.limits.connections as f64);
    set(&catalogue::CONNECTIONS, services.places.count() as f64);
    set(&catalogue::STORE_FAILING, flag(services.writer.trouble().is_some()));
    set(&catalogue::START_TIME, server.started.as_duration().as_secs_f64());
    recorder.counter(&catalogue::LOG_LOST, &[]).absolute(metrics::log_lines_lost());
    let Build { commit, date, target, features, sqlite } = build::build();
    let labels = [build::VERSION, &commit, &date, &target, &features, &sqlite];
    recorder.gauge(&catalogue::BUILD_INFO, &labels).set(1.0);

    let part = |name, up| recorder.gauge(&catalogue::PART_UP, &[name]).set(flag(up));
    let stats = stats.ok().and_then(Result::ok);
    part("schedule", stats.is_some());
    if let Some(stats) = stats {
        schedule(&recorder, &stats);
    }
    let alone = || State { held: Slots::ALL, nodes: 1, ..State::default() };
    let state = services.cluster.as_ref().map_or_else(alone, |cluster| cluster.state.borrow().clone());
    set(&catalogue::CLUSTER_SLOTS, state.held.len() as f64);
    set(&catalogue::CLUSTER_NODES, state.nodes as f64);
    recorder.counter(&catalogue::CLUSTER_LOST, &[]).absolute(state.lost);
    let (newest, now) = (*services.writer.newest().borrow(), services.clock.wall());
    for (name, health) in &health {
        recorder.gauge(&catalogue::SINK_TROUBLE, &[name]).set(flag(health.trouble.is_some()));
        recorder.gauge(&catalogue::SINK_OPEN, &[name]).set(flag(health.open_since.is_some()));
        let next = health.next_attempt.map_or(0.0, |at| at.duration_since(now).as_secs_f64().max(0.0));
        recorder.gauge(&catalogue::SINK_NEXT, &[name]).set(next);
        recorder.gauge(&catalogue::SINK_BACKLOG, &[name]).set((newest - health.cursor).max(0) as f64);
    }
    let outbox = outbox.ok().and_then(Result::ok);
    part("store", outbox.is_some());
    for sink in outbox.into_iter().flatten() {
        sink.record(&recorder, services.clock.steady());
    }
    recorder.render()
}

fn schedule(recorder: &Recorder, stats: &Stats) {
    let Stats {
        in_flight,
        in_flight_by_age,
        due,
        polling,
        finishing,
        brake,
        brake_since: _,
        refused_everywhere: _,
        rate,
        concurrency: _,
        late,
        counts,
        learned: _,
    } = stats;
    let set = |metric, value: f64| recorder.gauge(metric, &[]).set(value);
    set(&catalogue::IN_FLIGHT, *in_flight as f64);
    for ((band, _), count) in AGE_BANDS.iter().zip(in_flight_by_age) {
        recorder.gauge(&catalogue::IN_FLIGHT_BY_AGE, &[band]).set(*count as f64);
    }
    set(&catalogue::DUE, *due as f64);
    set(&catalogue::LATE, flag(late.is_some()));
    set(&catalogue::POLLING, *polling as f64);
    set(&catalogue::UNWRITTEN, *finishing as f64);
    set(&catalogue::RATE, rate.unwrap_or(0.0));
    for reason in Reason::ALL {
        let on = brake.is_some_and(|(on, _)| on == reason);
        recorder.gauge(&catalogue::BRAKE, &[reason.as_str()]).set(flag(on));
    }
    set(&catalogue::NEVER_FINAL, counts.never_final().unwrap_or(0.0));
    for ((band, _), count) in AGE_BANDS.iter().zip(counts.by_age) {
        recorder.counter(&catalogue::POLLS_BY_AGE, &[band]).absolute(count);
    }
    for (class, count) in counts.by_meaning() {
        recorder.counter(&catalogue::POLLS, &[class]).absolute(count);
    }
}

/// What the store knows of a sink.
struct Outbox {
    sink: String,
    /// When its oldest undelivered outcome ended.
    oldest: Option<Steady>,
    retrying: i64,
    dead: i64,
}

impl Outbox {
    async fn read(server: &Server, sinks: &BTreeMap<String, SinkHealth>) -> Result<Vec<Self>, Unavailable> {
        let Services { store, writer, failed_counts, .. } = &server.services;
        let failed = failed_counts.get(writer.commands_done(), store.failed_counts()).await?;
        let mut all = Vec::with_capacity(sinks.len());
        for (sink, health) in sinks {
            let counts = failed.iter().find(|(name, ..)| name == sink);
            let (retrying, dead) = counts.map_or((0, 0), |(_, retrying, dead)| (*retrying, *dead));
            let oldest = store.oldest_undelivered(sink, health.cursor).await?;
            all.push(Self { sink: sink.clone(), oldest, retrying, dead });
        }
        Ok(all)
    }

    fn record(&self, recorder: &Recorder, now: Steady) {
        let set = |metric, value: f64| recorder.gauge(metric, &[&self.sink]).set(value);
        let age = self.oldest.map_or(0.0, |oldest| now.since(oldest).as_secs_f64());
        set(&catalogue::SINK_OLDEST, age);
        set(&catalogue::SINK_RETRYING, self.retrying as f64);
        set(&catalogue::DEAD_LETTERS, self.dead as f64);
    }
}

fn flag(on: bool) -> f64 {
    if on { 1.0 } else { 0.0 }
}
