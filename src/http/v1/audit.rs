//! Logs what each client did, with the name of its token, never the token.
//!
//! Promises a line for each change that an administrator makes, and one line a minute at most for all submits of one name.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use crate::http::tokens::Name;

/// The least time between two lines about the submits of one name.
const EVERY: Duration = Duration::from_secs(60);

/// Submits that were not logged yet.
#[derive(Debug, Default)]
pub struct Audit(Mutex<BTreeMap<Name, Sum>>);

#[derive(Debug, Default)]
struct Sum {
    pins: u64,
    logged_at: Option<Instant>,
}

impl Audit {
    /// Counts PINs that were accepted.
    pub fn submitted(&self, name: &Name, pins: usize) {
        if pins > 0 {
            self.lock().entry(name.clone()).or_default().pins += pins as u64;
        }
    }

    /// Logs the sums that had no line for a minute.
    pub fn log_due(&self) {
        self.log(|logged_at| logged_at.elapsed() >= EVERY);
    }

    /// Logs all sums.
    pub fn log_all(&self) {
        self.log(|_| true);
    }

    fn log(&self, is_due: impl Fn(Instant) -> bool) {
        self.lock().retain(|name, sum| {
            if !sum.logged_at.is_none_or(&is_due) {
                return true;
            }
            let pins = std::mem::take(&mut sum.pins);
            if pins > 0 {
                info!(token = %name, pins, "PINs were submitted over HTTP");
            }
            sum.logged_at = Some(Instant::now());
            pins > 0
        });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Sum>> {
        // Each change is complete in itself, so a panic elsewhere leaves nothing half-done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_submits_of_a_client_make_one_audit_line_a_minute_and_all_are_counted() {
        let audit = Audit::default();
        let name: Name = "app".parse().unwrap();
        let waiting = || audit.lock().get(&name).map(|sum| sum.pins);
        audit.submitted(&name, 3);
        audit.log_due();
        assert_eq!(waiting(), Some(0), "the first line comes at once");
        audit.submitted(&name, 4);
        audit.log_due();
        assert_eq!(waiting(), Some(4));
        tokio::time::advance(EVERY).await;
        audit.log_due();
        assert_eq!(waiting(), Some(0));
        tokio::time::advance(EVERY).await;
        audit.log_due();
        assert_eq!(waiting(), None, "who submits no more takes no room");
        audit.submitted(&name, 1);
        audit.log_all();
        assert_eq!(waiting(), Some(0));
    }
}
