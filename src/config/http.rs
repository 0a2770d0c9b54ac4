//! `[http]`: where metrics and health are served.
//!
//! Promises: an address that can be listened on without asking a name server. Must not know: what is served.

use std::net::SocketAddr;

use serde::Deserialize;

use super::section::{Section, quoted};
use super::wire::Text;

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
}

impl Default for Wire {
    fn default() -> Self {
        Self { listen: "".into() }
    }
}

/// Reads and checks the section; `None` if it is of no use, which is reported then.
pub(super) fn check(mut section: Section) -> Option<Http> {
    let wire: Wire = section.read();
    section.show("listen", quoted(&wire.listen.0));
    if wire.listen.0.is_empty() {
        return Some(Http { listen: None });
    }
    match wire.listen.0.parse() {
        Ok(address) => Some(Http { listen: Some(address) }),
        Err(_) => {
            section.refuse(
                "listen",
                "must be an IP address and a port, such as \"127.0.0.1:9464\" or \"[::1]:9464\", or \"\" for off",
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{load, table};

    #[test]
    fn an_address_with_its_port_is_listened_on_and_nothing_is_off() {
        table(&[
            ("an IPv4 address is taken", "http.listen = \"127.0.0.1:9464\"", ""),
            ("an IPv6 address is taken", "http.listen = \"[::]:9464\"", ""),
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
}
