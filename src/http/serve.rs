//! Accepts connections, and limits their number in total and per peer.
//!
//! Promises that a new connection is served however many others are idle or slow: the one that has waited longest for its
//! client is closed for it. Owns and awaits the task of each connection. Knows nothing about requests.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::connection::{self, Front};
use super::peer;
use super::tasks::log_if_broken;
use crate::accepting::Accepting;
use crate::places::{Full, Place, Places, Rules};
use crate::throttle::Throttle;

/// Concurrent connections; each is an open file. One more replaces the one that has waited longest for its client.
pub const MAX_CONNECTIONS: usize = 512;

/// Of these, how many one peer may have: no program needs as many, and four peers together can't have all of them.
const SHARE: usize = 120;

/// Of these, the share of loopback: a proxy on this machine carries the connections of all clients.
const SHARE_OF_LOOPBACK: usize = 448;

/// How long a connection may wait for its client before a new one can replace it.
const UNDISTURBED: Duration = Duration::from_millis(100);

/// How soon a new connection asks again for a place while all others are being answered.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// How long requests that are being answered may still take during a stop.
pub const GRACE: Duration = Duration::from_secs(2);

/// The most that the kernel keeps for a client that does not read, in bytes; Linux counts twice as much. Linux asks for more only
/// when a third of it is free: a third must be less than `pace` demands, or a slow reader would look like one that reads nothing.
/// A client at a distance of 100 ms still gets some 1 MB a second.
const SEND_BUFFER: usize = 64 * 1024;

/// How long the network may leave what was sent unconfirmed. Then the peer is gone, even if it never said so.
const UNCONFIRMED: Duration = Duration::from_secs(60);

/// Serves connections until `stop`, and owns their tasks.
pub async fn serve(listener: TcpListener, front: Arc<Front>, stop: CancellationToken) {
    let rules = Rules { all: MAX_CONNECTIONS, share: SHARE, reserved: 0, idle: UNDISTURBED };
    let places = Places::new(rules);
    let mut accepting = Accepting::new("http.listen");
    let mut crowded = Throttle::default();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => log_if_broken(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let place = stop.run_until_cancelled(place(&places, peer.ip())).await;
                    match place {
                        None => break,
                        Some(Err(full)) => refused(peer.ip(), full, &mut crowded),
                        Some(Ok(place)) => {
                            set_up(&stream);
                            let served = connection::serve(stream, peer, place, front.clone(), stop.clone());
                            connections.spawn(served);
                        }
                    }
                }
                Err(error) => accepting.failed(&error).await,
            },
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(GRACE, ended).await.is_err() {
        connections.shutdown().await;
    }
}

/// Waits for a place. If all are taken, waits until a connection has ended or can be replaced.
///
/// # Errors
/// The peer has its share of connections, and all of them are busy.
async fn place(places: &Places, peer: IpAddr) -> Result<Place, Full> {
    let share = if peer::is_loopback(peer) { SHARE_OF_LOOPBACK } else { SHARE };
    loop {
        match places.take_of(peer::user(peer), share) {
            Err(Full::All { .. }) => sleep(ASK_AGAIN).await,
            // Others must not wait for this one.
            taken => return taken,
        }
    }
}

/// Sets the options of a socket. A connection is served even if they can't be set.
fn set_up(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_send_buffer_size(stream, SEND_BUFFER);
    let milliseconds = u32::try_from(UNCONFIRMED.as_millis()).unwrap_or(u32::MAX);
    let _ = sockopt::set_tcp_user_timeout(stream, milliseconds);
    let _ = sockopt::set_tcp_keepidle(stream, UNCONFIRMED);
    let _ = sockopt::set_tcp_keepintvl(stream, UNCONFIRMED / 4);
    let _ = sockopt::set_socket_keepalive(stream, true);
}

/// Logs that a peer has too many connections, if a line is due.
fn refused(peer: IpAddr, full: Full, lines: &mut Throttle) {
    let Some(more) = lines.due(Instant::now()) else { return };
    let share = full.share();
    warn!(%peer, share, more, "a connection was closed: the peer has its share of connections (more: how many earlier ones were not logged)");
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_new_connection_replaces_a_slow_client_and_waits_for_those_being_answered() {
        let places = Places::new(Rules { all: 1, share: 1, reserved: 0, idle: UNDISTURBED });
        let slow = place(&places, ip("192.0.2.1")).await.unwrap();
        // Replaces the slow one as soon as that is allowed.
        let answered = place(&places, ip("192.0.2.2")).await.unwrap();
        assert!(slow.evicted().now_or_never().is_some());
        answered.now_busy();
        tokio::time::pause();
        let waits = timeout(Duration::from_secs(60), place(&places, ip("192.0.2.3"))).await;
        assert!(waits.is_err(), "an answer is not broken off for another");
        answered.now_idle();
        place(&places, ip("192.0.2.3")).await.unwrap();
        assert!(answered.evicted().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_with_a_full_share_is_refused_at_once_and_others_are_served() {
        let rules = Rules { all: MAX_CONNECTIONS, share: SHARE, reserved: 0, idle: UNDISTURBED };
        let places = Places::new(rules);
        let mut crowd = Vec::new();
        for number in 1..=SHARE {
            crowd.push(place(&places, ip(&format!("2001:db8::{number:x}"))).await.unwrap());
            crowd[number - 1].now_busy();
        }
        let refused = place(&places, ip("2001:db8::ffff")).now_or_never().unwrap();
        assert!(matches!(refused, Err(Full::Share { share: SHARE, .. })));
        let other = place(&places, ip("2001:db8:0:1::1")).now_or_never().unwrap();
        assert!(other.is_ok());
        for _ in 0..MAX_CONNECTIONS - SHARE - 1 {
            crowd.push(place(&places, ip("127.0.0.1")).now_or_never().unwrap().unwrap());
        }
        // A further connection of a peer replaces the one of that peer that was idle longest.
        crowd[0].now_idle();
        tokio::time::advance(UNDISTURBED).await;
        assert!(place(&places, ip("2001:db8::1")).await.is_ok());
        assert!(crowd[0].evicted().now_or_never().is_some());
    }
}
