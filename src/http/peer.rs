//! Identifies a client by its address, to count its share of connections and requests. Pure.

use std::net::{IpAddr, Ipv6Addr};

use crate::places::User;

/// Whether the client is on this machine.
pub fn is_loopback(peer: IpAddr) -> bool {
    peer.to_canonical().is_loopback()
}

/// All clients of one address are one user.
pub fn user(peer: IpAddr) -> User {
    User::Other(match network(peer) {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    })
}

/// Treats all addresses of an IPv6 /64 as one client, because one client usually has the whole /64.
pub fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_or_an_ipv6_64_network_counts_as_one_user() {
        let user = |text: &str| user(text.parse().unwrap());
        assert_eq!(user("192.0.2.1"), user("::ffff:192.0.2.1"));
        assert_ne!(user("192.0.2.1"), user("192.0.2.2"));
        assert_eq!(user("2001:db8::1"), user("2001:db8::ffff:1"));
        assert_ne!(user("2001:db8::1"), user("2001:db8:0:1::1"));
        assert!(is_loopback("::ffff:127.0.0.1".parse().unwrap()));
    }
}
