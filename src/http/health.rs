//! Answers `/healthz` (is the daemon alive?) and `/readyz` (can it do its job?).
//!
//! "Not ready" means that it accepts no PINs. "Degraded" means that it accepts PINs but some, or their outcomes, make no
//! progress; nothing is lost. Reports only; nothing in the daemon acts on it.

use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;

use super::Server;
use crate::operations::findings::{Finding, Status, findings};

/// How long a part may stay silent before it counts as stuck. A writer whose database another program has locked answers
/// after twice SQLite's busy timeout of 5 s, and is asked again a second later.
const TIMEOUT: Duration = Duration::from_secs(15);

/// How long the schedule may take to report its numbers before the last known ones are used.
const FRESH: Duration = Duration::from_millis(300);

/// The answer of `/healthz`.
#[derive(Debug, Serialize)]
pub struct Alive {
    pub alive: bool,
    pub reasons: Vec<Finding>,
}

/// The answer of `/readyz`.
#[derive(Debug, Serialize)]
pub struct Ready {
    pub status: Status,
    pub reasons: Vec<Finding>,
}

/// Whether the schedule and the writer make progress. Answers from memory: asks nobody and waits for nothing.
pub fn alive(server: &Server) -> Alive {
    let reasons = unresponsive(server);
    Alive { alive: reasons.is_empty(), reasons }
}

/// Whether PINs are accepted and make progress.
pub async fn ready(server: &Server) -> Ready {
    let services = &server.services;
    let stats = match timeout(FRESH, services.schedule.stats()).await {
        Ok(stats) => stats.ok(),
        Err(_) => server.pulse.beats().stats,
    };
    let mut reasons = unresponsive(server);
    if let Some(trouble) = server.tls.as_ref().and_then(|tls| tls.trouble()) {
        let since = services.clock.wall() - trouble.since.elapsed();
        reasons.push(Finding::new("tls_files", Status::Degraded, &*trouble.what).since(since));
    }
    reasons.extend(findings(services, stats.as_ref()));
    let status = reasons.iter().map(|reason| reason.makes).max().unwrap_or(Status::Ready);
    Ready { status, reasons }
}

/// The parts that are silent. None during a stop, when the parts end one after the other, each within its own limit.
fn unresponsive(server: &Server) -> Vec<Finding> {
    if server.services.stop.is_cancelled() {
        return Vec::new();
    }
    let reason = |part| {
        let what = format!("the {part} has not answered for {} s", TIMEOUT.as_secs());
        Finding::new("unresponsive", Status::NotReady, what)
    };
    server.pulse.beats().silent(TIMEOUT).map(reason).collect()
}
