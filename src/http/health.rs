//! Answers `/healthz` (is the daemon alive?) and `/readyz` (can it do its job?).
//!
//! "Not ready" means that it accepts no PINs. "Degraded" means that it accepts PINs but some, or their outcomes, make no
//! progress; nothing is lost. Reports only; nothing in the daemon acts on it.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::timeout;

use super::Server;
use crate::outcome::rfc3339;
use crate::poll::ADVICE;
use crate::schedule::Stats;

/// How long a part may stay silent before it counts as stuck. A writer whose database another program has locked answers
/// after twice SQLite's busy timeout of 5 s, and is asked again a second later.
const TIMEOUT: Duration = Duration::from_secs(15);

/// How long the schedule may take to report its numbers before the last known ones are used.
const FRESH: Duration = Duration::from_millis(300);

/// The answer of `/healthz`.
#[derive(Debug, Serialize)]
pub struct Alive {
    pub alive: bool,
    pub reasons: Vec<Reason>,
}

/// The answer of `/readyz`.
#[derive(Debug, Serialize)]
pub struct Ready {
    pub status: Status,
    pub reasons: Vec<Reason>,
}

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
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// For programs; `docs/metrics.md` lists the codes.
    pub code: &'static str,
    /// The state that it puts the daemon in.
    pub makes: Status,
    /// The sink concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// When the next attempt is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// For people.
    pub what: String,
}

impl Reason {
    fn new(code: &'static str, makes: Status, what: impl Into<String>) -> Self {
        Self { code, makes, sink: None, since: None, until: None, what: what.into() }
    }

    fn since(self, since: Timestamp) -> Self {
        Self { since: Some(rfc3339(since)), ..self }
    }
}

/// Whether the schedule and the writer make progress. Answers from memory: asks nobody and waits for nothing.
pub fn alive(server: &Server) -> Alive {
    let reasons = unresponsive(server);
    Alive { alive: reasons.is_empty(), reasons }
}

/// Whether PINs are accepted and make progress.
pub async fn ready(server: &Server) -> Ready {
    let services = &server.services;
    let mut reasons = unresponsive(server);
    let stats = match timeout(FRESH, services.schedule.stats()).await {
        Ok(stats) => stats.ok(),
        Err(_) => server.pulse.beats().stats,
    };
    if services.stop.is_cancelled() {
        reasons.push(Reason::new("stopping", Status::NotReady, "the daemon is stopping"));
    }
    if let Some(trouble) = services.writer.trouble() {
        let since = services.clock.wall() - trouble.since.elapsed();
        let what = format!("the store can't be written: {}", trouble.what);
        reasons.push(Reason::new("store_failing", Status::NotReady, what).since(since));
    }
    if let Some(trouble) = services.socket.borrow().clone() {
        let since = services.clock.wall() - trouble.since.elapsed();
        let what = format!("clients can't reach the socket: {}", trouble.what);
        reasons.push(Reason::new("socket_lost", Status::NotReady, what).since(since));
    }
    if let Some(trouble) = server.tls.as_ref().and_then(|tls| tls.trouble()) {
        let since = services.clock.wall() - trouble.since.elapsed();
        reasons.push(Reason::new("tls_files", Status::Degraded, &*trouble.what).since(since));
    }
    if let Some(stray) = services.api.strays() {
        let now = services.clock.wall();
        let what = format!(
            "the API, or a proxy before it, sent an answer that nobody asked for, so no HTTP/1 connection is reused: {ADVICE}"
        );
        let reason = Reason::new("stray_answers", Status::Degraded, what).since(now - stray.since.elapsed());
        reasons.push(Reason { until: Some(rfc3339(now + stray.left())), ..reason });
    }
    if let Some(cluster) = &services.cluster
        && let Some((since, what)) = cluster.state.borrow().trouble.clone()
    {
        let since = services.clock.wall() - since.elapsed();
        let what = format!("this node polls and writes nothing until it has a lease again: {what}");
        reasons.push(Reason::new("lease_lost", Status::NotReady, what).since(since));
    }
    if let Some(stats) = stats {
        judge(&stats, server.limits.in_flight, &mut reasons);
    }
    for (sink, health) in services.health.all() {
        if let Some((since, what)) = health.trouble {
            let code = if health.closed { "sink_closed" } else { "sink_trouble" };
            let reason = Reason::new(code, Status::Degraded, what).since(since);
            reasons.push(Reason { sink: Some(sink), ..reason });
        }
    }
    let status = reasons.iter().map(|reason| reason.makes).max().unwrap_or(Status::Ready);
    Ready { status, reasons }
}

/// The parts that are silent. None during a stop, when the parts end one after the other, each within its own limit.
fn unresponsive(server: &Server) -> Vec<Reason> {
    if server.services.stop.is_cancelled() {
        return Vec::new();
    }
    let reason = |part| {
        let what = format!("the {part} has not answered for {} s", TIMEOUT.as_secs());
        Reason::new("unresponsive", Status::NotReady, what)
    };
    server.pulse.beats().silent(TIMEOUT).map(reason).collect()
}

/// Problems that the schedule's numbers show.
fn judge(stats: &Stats, max_in_flight: usize, reasons: &mut Vec<Reason>) {
    if let Some((brake, until)) = stats.brake {
        let what = "all polling is paused except for one probe at a time; no PIN is given up because of it";
        let reason = Reason::new(brake.as_str(), Status::Degraded, what);
        reasons.push(Reason { until: until.map(rfc3339), ..reason });
    }
    if let Some((refusal, since)) = stats.refused_everywhere {
        let what = format!("most PINs are answered {}: {}", refusal.answer(), refusal.advice());
        reasons.push(Reason::new("most_refused", Status::Degraded, what).since(since));
    }
    if stats.in_flight >= max_in_flight {
        let what = format!("{} PINs are in flight (intake.max_in_flight)", stats.in_flight);
        reasons.push(Reason::new("at_capacity", Status::NotReady, what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{self, Counts};

    fn stats(in_flight: usize, brake: Option<schedule::Reason>) -> Stats {
        let brake = brake.map(|reason| (reason, Some("2026-01-02T03:04:05Z".parse().unwrap())));
        let counts = Counts::default();
        Stats {
            in_flight,
            due: 0,
            polling: 0,
            finishing: 0,
            brake,
            refused_everywhere: None,
            rate: None,
            counts,
            learned: None,
        }
    }

    fn reasons(stats: &Stats) -> serde_json::Value {
        let mut reasons = Vec::new();
        judge(stats, 10, &mut reasons);
        for reason in &mut reasons {
            reason.what.clear();
        }
        serde_json::to_value(reasons).unwrap()
    }

    #[test]
    fn a_brake_degrades_and_a_full_intake_is_not_ready() {
        use schedule::Reason::Throttled;
        assert_eq!(reasons(&stats(9, None)), serde_json::json!([]));
        let brake = serde_json::json!(
            {"code": "throttled", "makes": "degraded", "until": "2026-01-02T03:04:05.000Z", "what": ""});
        assert_eq!(reasons(&stats(9, Some(Throttled))), serde_json::json!([brake]));
        let full = serde_json::json!({"code": "at_capacity", "makes": "not_ready", "what": ""});
        assert_eq!(reasons(&stats(10, Some(Throttled))), serde_json::json!([brake, full]));
    }

    #[test]
    fn the_worst_reason_decides() {
        assert!(Status::Ready < Status::Degraded && Status::Degraded < Status::NotReady);
    }
}
