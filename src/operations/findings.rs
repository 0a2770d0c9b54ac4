//! What is wrong with the daemon now: each problem that an operator should know, for `/readyz`, `stats` and the status page.
//!
//! Reports only: nothing in the daemon acts on a finding. Asks no part and waits for nothing. "Not ready" means that the daemon
//! accepts no PINs; "degraded" means that it accepts PINs, but some of them, or their outcomes, make no progress. Nothing is
//! lost.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::outcome::rfc3339;
use crate::poll::ADVICE;
use crate::readable::{count, short};
use crate::schedule::Stats;
use crate::services::Services;

/// The state of the daemon, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Ready,
    /// PINs are accepted, but some of them, or their outcomes, make no progress.
    Degraded,
    /// No PIN is accepted.
    NotReady,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// For programs; `docs/metrics.md` lists the codes.
    pub code: &'static str,
    /// The state that it puts the daemon in.
    pub makes: Status,
    /// The sink concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time")]
    pub since: Option<Timestamp>,
    /// When the next attempt is due.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time")]
    pub until: Option<Timestamp>,
    /// For people.
    pub what: String,
}

impl Finding {
    pub fn new(code: &'static str, makes: Status, what: impl Into<String>) -> Self {
        Self { code, makes, sink: None, since: None, until: None, what: what.into() }
    }

    pub fn since(self, since: Timestamp) -> Self {
        Self { since: Some(since), ..self }
    }
}

fn time<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&time.map(rfc3339).unwrap_or_default())
}

/// Returns every problem that the parts report. `stats` is the schedule's last answer; without it, the schedule's problems are
/// left out.
pub fn findings(services: &Services, stats: Option<&Stats>) -> Vec<Finding> {
    let (mut all, now) = (Vec::new(), services.clock.wall());
    if services.stop.is_cancelled() {
        all.push(Finding::new("stopping", Status::NotReady, "the daemon is stopping"));
    }
    if let Some(trouble) = services.writer.trouble() {
        let what = format!("the store can't be written: {}", trouble.what);
        all.push(Finding::new("store_failing", Status::NotReady, what).since(now - trouble.since.elapsed()));
    }
    if let Some(trouble) = services.socket.borrow().clone() {
        let what = format!("clients can't reach the socket: {}", trouble.what);
        all.push(Finding::new("socket_lost", Status::NotReady, what).since(now - trouble.since.elapsed()));
    }
    if let Some(stray) = services.api.strays() {
        let what = format!(
            "the API, or a proxy before it, sent an answer that nobody asked for, so no HTTP/1 connection is reused: {ADVICE}"
        );
        let finding =
            Finding::new("stray_answers", Status::Degraded, what).since(now - stray.since.elapsed());
        all.push(Finding { until: Some(now + stray.left()), ..finding });
    }
    if let Some(cluster) = &services.cluster
        && let Some(trouble) = cluster.state.borrow().trouble.clone()
    {
        let what = format!("this node polls and writes nothing until it has a lease again: {}", trouble.what);
        all.push(Finding::new("lease_lost", Status::NotReady, what).since(now - trouble.since.elapsed()));
    }
    if let Some(stats) = stats {
        judge(stats, services.max_in_flight, &mut all);
    }
    for (sink, health) in services.health.all() {
        if let Some((since, what)) = health.trouble {
            let code = if health.closed { "sink_closed" } else { "sink_trouble" };
            let finding = Finding::new(code, Status::Degraded, what).since(since);
            all.push(Finding { sink: Some(sink), until: health.next_attempt, ..finding });
        }
    }
    all
}

/// Adds the problems that the schedule's numbers show.
fn judge(stats: &Stats, max_in_flight: usize, all: &mut Vec<Finding>) {
    if let Some((brake, until)) = stats.brake {
        let what = "all polling is paused except for one probe at a time; no PIN is given up because of it";
        let finding = Finding::new(brake.as_str(), Status::Degraded, what);
        all.push(Finding { since: stats.brake_since, until, ..finding });
    }
    if let Some((refusal, since)) = stats.refused_everywhere {
        let what = format!("most PINs are answered {}: {}", refusal.answer(), refusal.advice());
        all.push(Finding::new("most_refused", Status::Degraded, what).since(since));
    }
    if let Some((longest, since)) = stats.late {
        let what = late(stats, longest);
        all.push(Finding::new("polls_late", Status::Degraded, what).since(since));
    }
    if stats.in_flight >= max_in_flight {
        let what = format!("{} PINs are in flight (intake.max_in_flight)", stats.in_flight);
        all.push(Finding::new("at_capacity", Status::NotReady, what));
    }
}

/// Says how late polls are, which limit they wait for, and what to do.
fn late(stats: &Stats, longest: Duration) -> String {
    let due =
        format!("due now: {}, the longest overdue by {}", count(stats.due as u64, "PIN"), short(longest));
    if stats.polling >= stats.concurrency {
        return format!(
            "{due}; as many polls run at once as api.concurrency allows ({}): raise it, or find out why the API answers slowly",
            stats.concurrency
        );
    }
    match stats.rate {
        Some(rate) => format!(
            "{due}; no more than {rate:.1} polls/s may be sent now, by api.rate or by the API's own limit (its 429 answers): raise \
             api.rate if the account allows more, or poll each PIN less often (schedule.multiplier, schedule.max_interval)"
        ),
        None => format!(
            "{due}; neither api.concurrency nor api.rate is the limit: check whether this machine is overloaded"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule;

    fn findings(in_flight: usize, brake: Option<schedule::Reason>) -> serde_json::Value {
        let time: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let stats = Stats {
            in_flight,
            brake: brake.map(|reason| (reason, Some(time))),
            brake_since: brake.map(|_| time),
            ..Stats::default()
        };
        let mut all = Vec::new();
        judge(&stats, 10, &mut all);
        for finding in &mut all {
            finding.what.clear();
        }
        serde_json::to_value(all).unwrap()
    }

    #[test]
    fn a_brake_degrades_and_a_full_intake_is_not_ready() {
        use schedule::Reason::Throttled;
        assert_eq!(findings(9, None), serde_json::json!([]));
        let time = "2026-01-02T03:04:05.000Z";
        let brake = serde_json::json!(
            {"code": "throttled", "makes": "degraded", "since": time, "until": time, "what": ""});
        assert_eq!(findings(9, Some(Throttled)), serde_json::json!([brake]));
        let full = serde_json::json!({"code": "at_capacity", "makes": "not_ready", "what": ""});
        assert_eq!(findings(10, Some(Throttled)), serde_json::json!([brake, full]));
    }

    #[test]
    fn late_polls_degrade_and_the_finding_names_the_limit_that_they_wait_for() {
        let since = "2026-01-02T03:04:05Z".parse().unwrap();
        let late = Some((Duration::from_secs(754), since));
        let stats = Stats { due: 5000, polling: 64, concurrency: 64, late, ..Stats::default() };
        let what = |stats: Stats| {
            let mut all = Vec::new();
            judge(&stats, 10_000, &mut all);
            let [finding] = &all[..] else { panic!("{all:?}") };
            assert_eq!(
                (finding.code, finding.makes, finding.since),
                ("polls_late", Status::Degraded, Some(since))
            );
            finding.what.clone()
        };
        for (stats, says) in [
            (
                stats.clone(),
                "due now: 5,000 PINs, the longest overdue by 12m 34s; as many polls run at once as api.concurrency allows (64): raise it",
            ),
            (
                Stats { polling: 3, rate: Some(5.0), ..stats.clone() },
                "no more than 5.0 polls/s may be sent now, by api.rate or by the API's own limit",
            ),
            (Stats { polling: 3, ..stats }, "neither api.concurrency nor api.rate"),
        ] {
            let what = what(stats);
            assert!(what.contains(says), "{what}");
        }
    }

    #[test]
    fn statuses_are_ordered_from_ready_to_not_ready() {
        assert!(Status::Ready < Status::Degraded && Status::Degraded < Status::NotReady);
    }
}
