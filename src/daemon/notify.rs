//! What the service manager is told (sd_notify): ready, reloading, stopping, a line of status, the watchdog.
//!
//! Promises that the watchdog is told only while the schedule and the writer answer; a full disk or a dead API
//! is no reason to be restarted, a part that stands still is. Without a service manager it says nothing.

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

/// How often the status is told, at least; the watchdog may want it more often.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// How long the parts may take to answer where no watchdog says so.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often the parts are asked whether they get on; a watchdog may want it more often, but not without end.
const ASK_EVERY: Duration = Duration::from_secs(1);
const ASK_APART: Duration = Duration::from_millis(10);

/// The start goes on, and what it is at.
pub fn starting(at: &str) {
    tell(&[NotifyState::Status(at)]);
}

/// Everything is open: PINs are taken and polled.
pub fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("ready")]);
}

/// The configuration is being read anew, until [`ready`].
pub fn reloading() {
    // Without the time, systemd 253 and later would wait for the end of another reload.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => debug!(%error, "the monotonic clock can't be read; the reload is not announced"),
    }
}

/// The stop has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping: running polls end, sinks are flushed")]);
}

/// How often the parts are to be asked, so that what is known of them is never as old as the watchdog is patient.
pub fn ask_every() -> Duration {
    let watchdog = sd_notify::watchdog_enabled();
    watchdog.map_or(ASK_EVERY, |limit| ASK_EVERY.min(limit / 8)).max(ASK_APART)
}

/// Keeps the status current and the watchdog content, until the stop.
pub async fn keep_told(pulse: Pulse, health: Health, cluster: Option<Cluster>, stop: CancellationToken) {
    let watchdog = sd_notify::watchdog_enabled();
    let every = watchdog.map_or(STATUS_EVERY, |limit| STATUS_EVERY.min(limit / 4)).max(ASK_APART);
    let patience = watchdog.map_or(PATIENCE, |limit| limit / 2);
    let mut silent = false;
    while stop.run_until_cancelled(sleep(every)).await.is_some() {
        let beats = pulse.beats();
        if let Some(part) = beats.silent(patience).next() {
            if !std::mem::replace(&mut silent, true) {
                error!(
                    part,
                    seconds = patience.as_secs_f64(),
                    "a part does not answer; the watchdog is not told until it does"
                );
            }
            tell(&[NotifyState::Status("a part does not answer")]);
            continue;
        }
        if let Some(stats) = &beats.stats {
            let cluster = cluster.as_ref().map(|cluster| cluster.state.borrow().clone());
            tell(&[NotifyState::Status(&status(stats, &health, cluster.as_ref()))]);
        }
        if watchdog.is_some() {
            tell(&[NotifyState::Watchdog]);
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
        if let Some((_, what)) = trouble {
            line.push_str(&format!("; without its lease nothing is polled or written: {what}"));
        }
    }
    if let Some((reason, until)) = &stats.brake {
        line.push_str(&format!("; all polling waits ({})", reason.as_str()));
        if let Some(until) = until {
            line.push_str(&format!(" until {until:.0}"));
        }
    }
    if let Some((refusal, _)) = &stats.refused_everywhere {
        line.push_str(&format!("; most PINs are answered {}", refusal.answer()));
    }
    for (name, _) in health.all().iter().filter(|(_, sink)| sink.trouble.is_some()) {
        line.push_str(&format!("; the sink {name} takes nothing"));
    }
    // A line of its own would be a message of its own to the service manager.
    printable(&line).into_owned()
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "the service manager can't be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Counts, Reason};

    #[test]
    fn the_status_says_what_it_is_doing_and_what_stands_still() {
        let stats = Stats {
            in_flight: 12,
            due: 3,
            polling: 2,
            finishing: 0,
            brake: Some((Reason::Unauthorized, Some("2026-01-02T03:04:05Z".parse().unwrap()))),
            counts: Counts { polls: 99, ..Counts::default() },
            refused_everywhere: None,
            rate: None,
        };
        let health = Health::default();
        health.update("file", |_| {});
        health.update("hook", |sink| sink.trouble = Some((jiff::Timestamp::UNIX_EPOCH, "503".into())));
        assert_eq!(
            status(&stats, &health, None),
            "12 in flight, 2 being polled, 3 due; 99 polls; all polling waits (unauthorized) until \
             2026-01-02T03:04:05Z; the sink hook takes nothing"
        );
        let stats = Stats { brake: None, ..stats };
        let mut state = State { held: (0..86).collect(), nodes: 3, ..State::default() };
        let told = status(&stats, &Health::default(), Some(&state));
        assert_eq!(told, "12 in flight, 2 being polled, 3 due; 99 polls; 86 of 256 slots, 3 nodes");
        state.trouble = Some((tokio::time::Instant::now(), "cut off\nSTOPPING=1".into()));
        let told = status(&stats, &Health::default(), Some(&state));
        assert!(
            told.ends_with("; without its lease nothing is polled or written: cut off\\nSTOPPING=1"),
            "{told}"
        );
    }
}
