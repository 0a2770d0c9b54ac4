//! `[http]`: the address that serves metrics and health.
//!
//! Promises that the address needs no name server, and that other machines can reach it only if the configuration allows that.
//! Must not know what is served.

use std::net::SocketAddr;

use super::section::{Section, section};

section! {
    /// `[http]`
    pub struct Http {
        /// `None` switches it off.
        pub listen: Option<SocketAddr> = listen(),
    }
}

impl Section<'_> {
    /// Reads the address, and the key `allow_remote`, which decides whether other machines may reach it.
    fn listen(&mut self, key: &'static str) -> Option<Option<SocketAddr>> {
        let address = self.parsed(key, "", |text| match text {
            "" => Ok(None),
            text => text.parse::<SocketAddr>().map(Some).map_err(|_| {
                "must be an IP address and a port, such as \"127.0.0.1:9464\" or \"[::1]:9464\", or \"\" for off"
            }),
        });
        let allow_remote = self.flag("allow_remote", false)?;
        let address = address?;
        if !allow_remote && address.is_some_and(|address| !address.ip().to_canonical().is_loopback()) {
            return self.refuse(
                key,
                "must be an address of this machine alone, such as \"127.0.0.1:9464\", because there is no password; \
                 http.allow_remote = true allows it nevertheless",
            );
        }
        Some(address)
    }
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
