//! Reports on a webhook: its health, and a few lines in the log.
//!
//! Promises one line when trouble begins, one when it ends, and at most one a minute about dead letters, however many there are.
//! Must not know how deliveries are made.

use std::time::Duration;

use jiff::Timestamp;
use tracing::warn;

use super::batch::Now;
use crate::clock::Moment;
use crate::sinks::Health;
use crate::store::Failed;

/// The pause between two log lines about dead letters.
const DEAD_LETTERS_EVERY: Duration = Duration::from_secs(60);

pub struct Reporter {
    sink: String,
    health: Health,
    dead: u64,
    last_dead: Option<(i64, String)>,
    logged_at: Option<Moment>,
}

impl Reporter {
    pub fn new(sink: String, health: Health) -> Self {
        Self { sink, health, dead: 0, last_dead: None, logged_at: None }
    }

    /// Publishes the sink's health, and counts the outcomes that were `delivered` since the last call.
    pub fn health(&self, cursor: i64, delivered: u64, trouble: Option<&str>, now: Now) {
        self.health.update(&self.sink, |health| {
            health.advance(cursor, now.date.wall);
            health.delivered += delivered;
        });
        match trouble {
            Some(why) => self.health.trouble(&self.sink, why, now.date.wall),
            None => self.health.recovered(&self.sink),
        }
    }

    /// Publishes when it is tried again, and since when its circuit breaker is open.
    pub fn attempts(&self, next_attempt: Option<Timestamp>, open_since: Option<Timestamp>) {
        self.health.update(&self.sink, |health| {
            (health.next_attempt, health.open_since) = (next_attempt, open_since);
        });
    }

    /// The receiver now has these outcomes, which it did not have when the cursor passed them.
    pub fn delivered(&self, seqs: &[i64], now: Now) {
        if !seqs.is_empty() {
            self.health.update(&self.sink, |health| health.delivered(seqs, now.date.wall));
        }
    }

    /// Records that these failed, and logs the dead letters among them unless the last line is too recent.
    pub fn failed(&mut self, failed: &[Failed], now: Now) {
        for letter in failed.iter().filter(|failed| failed.dead) {
            self.dead += 1;
            self.last_dead = Some((letter.seq, letter.error.clone().unwrap_or_default()));
        }
        if self.logged_at.is_none_or(|at| now.moment.since(at) >= DEAD_LETTERS_EVERY) {
            self.log_dead_letters(now);
        }
    }

    /// Logs the dead letters that are not logged yet.
    pub fn log_dead_letters(&mut self, now: Now) {
        let Some((seq, error)) = self.last_dead.take() else { return };
        let (sink, count) = (self.sink.as_str(), std::mem::take(&mut self.dead));
        self.logged_at = Some(now.moment);
        warn!(
            sink,
            count,
            seq,
            error,
            "outcomes became dead letters; `seq` and `error` are of the latest. `pinwatch dead-letters list` shows all"
        );
    }
}
