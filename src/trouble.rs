//! A present failure of a part of the daemon, for health and `stats`.
//!
//! Promises that its start time stays while it lasts, whatever its reason becomes. Must not know the parts.

use std::sync::Arc;

use tokio::time::Instant;

#[derive(Debug, Clone)]
pub struct Trouble {
    pub since: Instant,
    pub what: Arc<str>,
}

impl Trouble {
    /// Notes what is wrong now, if anything; returns whether that is new, so that the log has it once.
    pub fn note(known: &mut Option<Self>, wrong: Option<&str>) -> bool {
        if known.as_ref().map(|known| &*known.what) == wrong {
            return false;
        }
        let since = known.take().map_or_else(Instant::now, |known| known.since);
        *known = wrong.map(|wrong| Self { since, what: wrong.into() });
        true
    }
}
