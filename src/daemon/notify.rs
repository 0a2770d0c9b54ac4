//! Notifies the service manager (sd_notify): ready, reloading, stopping, a line of status, the watchdog.
//!
//! Promises to feed the watchdog only while the schedule and the writer answer: a part that hangs is a reason to restart
//! the daemon; a full disk or an API that is down is not. Does nothing without a service manager.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use crate::cluster::{Cluster, State};
use crate::pulse::Pulse;
use crate::schedule::Stats;
use crate::sinks::Health;
use crate::text::printable;

/// The longest time between two status lines. A watchdog may need it more often.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// How long the parts may take to answer if no watchdog sets a limit.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How often the parts are asked for a heartbeat, and the least time between two such questions if a watchdog needs more.
const ASK_EVERY: Duration = Duration::from_secs(1);
const ASK_APART: Duration = Duration::from_millis(10);

/// Reports start-up progress.
pub fn starting(step: &str) {
    notify(&[NotifyState::Status(step)]);
}

/// Reports that everything is open, and PINs are accepted and polled.
pub fn ready() {
    notify(&[NotifyState::Ready, NotifyState::Status("ready")]);
}

/// Reports that a reload has begun. [`ready`] ends it.
pub fn reloading() {
    // systemd 253 and later needs the time to match the reload with its own request.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => debug!(%error, "the monotonic clock can't be read; the reload is not announced"),
    }
}

/// Reports that the stop has begun.
pub fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("stopping: running polls end, sinks are flushed")]);
}

/// How often to ask the parts, so that their last heartbeat is never older than the watchdog allows.
pub fn ask_every() -> Duration {
    let watchdog = sd_notify::watchdog_enabled();
    watchdog.map_or(ASK_EVERY, |limit| ASK_EVERY.min(limit / 8)).max(ASK_APART)
}

/// Updates the status and feeds the watchdog, until the stop.
pub async fn keep_notifying(pulse: Pulse, health: Health, cluster: Option<Cluster>, stop: CancellationToken) {
    let watchdog = sd_notify::watchdog_enabled();
    let every = watchdog.map_or(STATUS_EVERY, |limit| STATUS_EVERY.min(limit / 4)).max(ASK_APART);
    let limit = watchdog.map_or(TIMEOUT, |limit| limit / 2);
    let mut silent = false;
    while stop.run_until_cancelled(sleep(every)).await.is_some() {
        let beats = pulse.beats();
        if let Some(part) = beats.silent(limit).next() {
            if !std::mem::replace(&mut silent, true) {
                error!(
                    part,
                    seconds = limit.as_secs_f64(),
                    "a part does not answer; the watchdog is not fed until it does"
                );
            }
            notify(&[NotifyState::Status("a part does not answer")]);
            continue;
        }
        if let Some(stats) = &beats.stats {
            let cluster = cluster.as_ref().map(|cluster| cluster.state.borrow().clone());
            notify(&[NotifyState::Status(&status(stats, &health, cluster.as_ref()))]);
        }
        if watchdog.is_some() {
            notify(&[NotifyState::Watchdog]);
        }
        if std::mem::take(&mut silent) {
            info!("the schedule and the writer answer again");
        }
    }
}

/// One line for `systemctl status`.
fn status(stats: &Stats, health: &Health, cluster: Option<&State>) -> String {
    let Stats { in_flight, polling, due, .. } = stats;
    let mut line =
        format!("{in_flight} in flight, {polling} being polled, {due} due; {} polls", stats.counts.polls);
    if let Some(State { held, nodes, trouble, .. }) = cluster {
        line.push_str(&format!("; {} of 256 slots, {nodes} nodes", held.len()));
        if let Some(trouble) = trouble {
            line.push_str(&format!("; without its lease nothing is polled or written: {}", trouble.what));
        }
    }
    if let Some((reason, until)) = &stats.brake {
        line.push_str(&format!("; all polling is paused ({})", reason.as_str()));
        if let Some(until) = until {
            line.push_str(&format!(" until {until:.0}"));
        }
    }
    if let Some((refusal, _)) = &stats.refused_everywhere {
        line.push_str(&format!("; most PINs are answered {}", refusal.answer()));
    }
    for (name, _) in health.all().iter().filter(|(_, sink)| sink.trouble.is_some()) {
        line.push_str(&format!("; the sink {name} accepts no outcomes"));
    }
    // A newline would start another message to the service manager.
    printable(&line).into_owned()
}

fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "can't notify the service manager");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Counts, Reason};
    use crate::trouble::Trouble;

    #[test]
    fn the_status_line_names_the_work_the_pauses_and_failing_sinks() {
        let stats = Stats {
            in_flight: 12,
            due: 3,
            polling: 2,
            brake: Some((Reason::Unauthorized, Some("2026-01-02T03:04:05Z".parse().unwrap()))),
            counts: Counts { polls: 99, ..Counts::default() },
            ..Stats::default()
        };
        let health = Health::default();
        health.update("file", |_| {});
        health.update("hook", |sink| sink.trouble = Some((jiff::Timestamp::UNIX_EPOCH, "503".into())));
        assert_eq!(
            status(&stats, &health, None),
            "12 in flight, 2 being polled, 3 due; 99 polls; all polling is paused (unauthorized) until \
             2026-01-02T03:04:05Z; the sink hook accepts no outcomes"
        );
        let stats = Stats { brake: None, ..stats };
        let mut state = State { held: (0..86).collect(), nodes: 3, ..State::default() };
        let line = status(&stats, &Health::default(), Some(&state));
        assert_eq!(line, "12 in flight, 2 being polled, 3 due; 99 polls; 86 of 256 slots, 3 nodes");
        Trouble::note(&mut state.trouble, Some("cut off\nSTOPPING=1"));
        let line = status(&stats, &Health::default(), Some(&state));
        assert!(
            line.ends_with("; without its lease nothing is polled or written: cut off\\nSTOPPING=1"),
            "{line}"
        );
    }
}
