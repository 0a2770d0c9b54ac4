//! A present failure of a part of the daemon, with its start time, for health and `stats`. Pure.

use std::sync::Arc;

use tokio::time::Instant;

#[derive(Debug, Clone)]
pub struct Trouble {
    pub since: Instant,
    pub what: Arc<str>,
}

impl Trouble {
    /// Notes what is wrong now, if anything; returns whether that is new. A trouble that only has another reason now keeps
    /// its start time.
    pub fn note(known: &mut Option<Self>, wrong: Option<&str>) -> bool {
        if known.as_ref().map(|known| &*known.what) == wrong {
            return false;
        }
        let since = known.take().map_or_else(Instant::now, |known| known.since);
        *known = wrong.map(|wrong| Self { since, what: wrong.into() });
        true
    }
}
