//! Looks up a host with the system's resolver.
//!
//! Replaces reqwest's own resolver, which panics if the system has no thread for it, and corrects the C library, which blames the
//! name server when this process has no file descriptor left. Promises an error with a system code when this machine is at fault,
//! and without one when the name server is. Must not know what a host is for.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::{thread, vec};

use hyper_util::client::legacy::connect::dns;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustix::io::Errno;
use thiserror::Error;
use tokio::sync::{Semaphore, oneshot};
use tower_service::Service;

/// The most concurrent lookups, each on its own thread: when the name server is silent, threads accumulate for as long as the C
/// library waits, 10 s by default.
const MOST_LOOKUPS: usize = 16;

/// Twice the stack that the C library needs. Rust's threads have 2 MiB, most of which is never touched.
const STACK: usize = 1024 * 1024;

/// The system's resolver.
#[derive(Clone)]
pub struct Resolver {
    lookups: Arc<Semaphore>,
    stack: usize,
}

impl Default for Resolver {
    fn default() -> Self {
        Self { lookups: Arc::new(Semaphore::new(MOST_LOOKUPS)), stack: STACK }
    }
}

impl Resolver {
    fn addresses(
        &self,
        host: String,
    ) -> impl Future<Output = Result<vec::IntoIter<SocketAddr>, NotResolved>> + Send + use<> {
        let (lookups, stack) = (self.lookups.clone(), self.stack);
        let addresses = async move {
            let permit = lookups.acquire_owned().await?;
            let (answer, answered) = oneshot::channel();
            let look_up = move || {
                // The receiver is gone if the poll has timed out.
                let _ = answer.send(look_up(&host));
                drop(permit);
            };
            thread::Builder::new().name("resolver".to_owned()).stack_size(stack).spawn(look_up)?;
            Ok(answered.await??.into_iter())
        };
        async { addresses.await.map_err(NotResolved) }
    }
}

/// For reqwest.
impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let addresses = self.addresses(name.as_str().to_owned());
        Box::pin(async move { Ok(Box::new(addresses.await?) as Addrs) })
    }
}

/// For hyper.
impl Service<dns::Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = NotResolved;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, NotResolved>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NotResolved>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: dns::Name) -> Self::Future {
        Box::pin(self.addresses(name.as_str().to_owned()))
    }
}

/// The host was not found.
#[derive(Debug, Error)]
#[error("the host was not found")]
pub struct NotResolved(#[source] BoxError);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn look_up(host: &str) -> io::Result<Vec<SocketAddr>> {
    match (host, 0).to_socket_addrs() {
        Ok(addresses) => Ok(routed(addresses.collect())),
        Err(error) if error.raw_os_error().is_some() => Err(error),
        // EAI_MEMORY has no system code here, only the C library's text.
        Err(error) if error.to_string().ends_with("Memory allocation failure") => Err(Errno::NOMEM.into()),
        // The C library opens files and sockets; its error when it can't depends on which.
        Err(error) => Err(File::open("/dev/null").err().unwrap_or(error)),
    }
}

/// Removes the addresses that this machine has no route to, unless it has a route to none. Otherwise an unreachable IPv6 address
/// would be reported as the failure when the IPv4 one refuses.
fn routed(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let has_route: Vec<bool> = addresses.iter().map(has_route).collect();
    if !has_route.contains(&true) {
        return addresses;
    }
    addresses
        .into_iter()
        .zip(has_route)
        .filter_map(|(address, has_route)| has_route.then_some(address))
        .collect()
}

/// Connecting a datagram socket looks up its route, and sends nothing.
fn has_route(address: &SocketAddr) -> bool {
    let here: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // The route does not depend on the port, and 0 means none.
    let there = SocketAddr::new(address.ip(), 443);
    UdpSocket::bind(here).and_then(|socket| socket.connect(there)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_looked_up() {
        let mut addresses = Resolver::default().addresses("localhost".to_owned()).await.unwrap().peekable();
        assert!(addresses.peek().is_some() && addresses.all(|address| address.ip().is_loopback()));
    }

    #[tokio::test]
    async fn a_lookup_without_a_free_thread_is_an_error_and_not_a_panic() {
        // No address space has room for this stack: the system refuses the thread as if it had too many.
        let resolver = Resolver { stack: usize::MAX / 4, ..Resolver::default() };
        let NotResolved(error) = resolver.addresses("localhost".to_owned()).await.unwrap_err();
        assert_eq!(Errno::from_io_error(error.downcast_ref().unwrap()), Some(Errno::AGAIN));
        // The failed lookup takes no place.
        assert_eq!(resolver.lookups.available_permits(), MOST_LOOKUPS);
    }

    #[test]
    fn unreachable_addresses_are_left_out_unless_there_is_no_other() {
        let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
        // A scoped address of an interface that does not exist.
        let nowhere: SocketAddr = "[fe80::1%4294967295]:0".parse().unwrap();
        assert_eq!(routed(vec![nowhere, local]), [local]);
        assert_eq!(routed(vec![nowhere]), [nowhere]);
    }
}
