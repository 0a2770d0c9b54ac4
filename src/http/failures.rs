//! Counts requests without a valid token, per client.
//!
//! Promises that a peer which guesses is told to wait, that its guesses make one line of the log a minute, and that the
//! table stays small however many peers there are. Must not know tokens: a valid one always passes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::peer::network;

/// A peer may fail this often within [`WINDOW`]. After that, it gets 429 and must wait.
const ALLOWED: u32 = 10;

const WINDOW: Duration = Duration::from_secs(60);

/// The most peers that are counted; above this, the oldest is forgotten.
const MAX_PEERS: usize = 1024;

/// The failures of each peer. Cheap to clone; all clones count together.
#[derive(Debug, Clone, Default)]
pub struct Failures(Arc<Mutex<HashMap<IpAddr, Window>>>);

/// The failures of one peer since the first.
#[derive(Debug)]
struct Window {
    began: Instant,
    count: u32,
}

impl Failures {
    /// Counts a failure. After too many, returns how long the peer must wait.
    pub fn count(&self, peer: IpAddr, reason: &'static str) -> Option<Duration> {
        let (peer, now) = (network(peer), Instant::now());
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.get(&peer).is_some_and(|window| now - window.began >= WINDOW) {
            peers.remove(&peer);
        }
        if peers.len() >= MAX_PEERS && !peers.contains_key(&peer) {
            let oldest = peers.iter().min_by_key(|(_, window)| window.began).map(|(peer, _)| *peer);
            oldest.and_then(|oldest| peers.remove(&oldest));
        }
        let window = peers.entry(peer).or_insert(Window { began: now, count: 0 });
        window.count = window.count.saturating_add(1);
        if window.count == 1 {
            warn!(%peer, reason, "an HTTP request had no valid token; further ones from this peer are not logged for a minute");
        }
        (window.count > ALLOWED).then(|| WINDOW - (now - window.began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_with_too_many_wrong_tokens_must_wait_and_others_need_not() {
        let failures = Failures::default();
        let peer = |text: &str| text.parse().unwrap();
        for _ in 0..ALLOWED {
            assert_eq!(failures.count(peer("2001:db8::1"), "test"), None);
        }
        tokio::time::advance(WINDOW / 4).await;
        assert_eq!(failures.count(peer("2001:db8::2"), "test"), Some(WINDOW * 3 / 4));
        assert_eq!(failures.count(peer("2001:db8:0:1::1"), "test"), None);
        assert_eq!(failures.count(peer("192.0.2.1"), "test"), None);
        tokio::time::advance(WINDOW).await;
        assert_eq!(failures.count(peer("2001:db8::1"), "test"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_of_failures_is_bounded_and_forgets_the_oldest_peer() {
        let failures = Failures::default();
        for number in 0..3 * MAX_PEERS as u32 {
            failures.count(IpAddr::V4(number.into()), "test");
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let peers = failures.0.lock().unwrap();
        assert_eq!(peers.len(), MAX_PEERS);
        assert!(peers.contains_key(&IpAddr::V4((3 * MAX_PEERS as u32 - 1).into())));
    }
}
