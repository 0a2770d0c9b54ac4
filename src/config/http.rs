//! `[http]`: where metrics and health are served.
//!
//! Promises: an address that can be listened on without asking a name server, and that other machines reach
//! it only where that was asked for. Must not know: what is served.

use std::net::SocketAddr;

use serde::Deserialize;

use super::section::{Section, quoted};
use super::wire::{Flag, Text};

/// `[http]`
#[derive(Debug, Clone)]
pub struct Http {
    /// `None` is off.
    pub listen: Option<SocketAddr>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wire {
    listen: Text,
    allow_remote: Flag,
}

impl Default for Wire {
    fn default() -> Self {
        Self { listen: "".into(), allow_remote: Flag(false) }
    }
}

/// Reads and checks the section; `None` if it is of no use, which is reported then.
pub(super) fn check(mut section: Section) -> Option<Http> {
    let wire: Wire = section.read();
    section.show("listen", quoted(&wire.listen.0));
    section.show("allow_remote", wire.allow_remote.0.to_string());
    if wire.listen.0.is_empty() {
        return Some(Http { listen: None });
    }
    let Ok(address) = wire.listen.0.parse::<SocketAddr>() else {
        section.refuse(
            "listen",
            "must be an IP address and a port, such as \"127.0.0.1:9464\" or \"[::1]:9464\", or \"\" for off",
        );
        return None;
    };
    if !wire.allow_remote.0 && !address.ip().to_canonical().is_loopback() {
        section.refuse(
            "listen",
            "must be an address of this machine alone, such as \"127.0.0.1:9464\", because nobody is asked for a \
             password; http.allow_remote = true allows it nevertheless",
        );
        return None;
    }
    Some(Http { listen: Some(address) })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{load, table};

    #[test]
    fn an_address_with_its_port_is_listened_on_and_nothing_is_off() {
        table(&[
            ("an IPv4 address is taken", "http.listen = \"127.0.0.1:9464\"", ""),
            ("an IPv6 address is taken", "http.listen = \"[::1]:9464\"", ""),
            ("nothing is off", "http.listen = \"\"", ""),
            (
                "a name is refused",
                "http.listen = \"localhost:9464\"",
                "http.listen: must be an IP address and a port",
            ),
            (
                "a port alone is refused",
                "http.listen = \":9464\"",
                "http.listen: must be an IP address and a port",
            ),
            ("a number is refused", "http.listen = 9464", "http.listen: must be a string"),
        ]);
        assert_eq!(load("").unwrap().http.listen, None);
    }

    #[test]
    fn other_machines_reach_it_only_where_that_is_allowed() {
        let refused = "http.listen: must be an address of this machine alone";
        table(&[
            ("any address of the machine is refused", "http.listen = \"0.0.0.0:9464\"", refused),
            ("any IPv6 address of the machine is refused", "http.listen = \"[::]:9464\"", refused),
            ("an address in a network is refused", "http.listen = \"192.0.2.7:9464\"", refused),
            ("IPv4 in IPv6 is seen through", "http.listen = \"[::ffff:192.0.2.7]:9464\"", refused),
            ("all of 127 is this machine", "http.listen = \"127.0.0.2:9464\"", ""),
            ("loopback in IPv6 clothes is loopback", "http.listen = \"[::ffff:127.0.0.1]:9464\"", ""),
            (
                "it is taken where that is allowed",
                "http.allow_remote = true\nhttp.listen = \"0.0.0.0:9464\"",
                "",
            ),
            ("allowing it listens nowhere", "http.allow_remote = true", ""),
        ]);
    }
}
