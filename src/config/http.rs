//! `[http]`: where metrics, health and the API are served, and who may reach them.
//!
//! Promises an address that needs no name server, that other machines reach it only over TLS unless plain HTTP is explicitly
//! allowed, and that a certificate never comes without its key. Reads none of the files. Must not know what is served.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use config::ValueKind;

use super::read::text_of;
use super::section::{Section, section};

section! {
    /// `[http]`
    pub struct Http {
        /// `None` switches it off.
        pub listen: Option<SocketAddr> = listen(),
        /// The tokens of the API; without it there is none.
        pub tokens_file: Option<PathBuf> = optional_path(),
        /// `None` is plain HTTP.
        pub tls: Option<Tls> = tls(),
        /// The names that clients may use for this machine, in lower case, besides its loopback names and addresses.
        pub hosts: Vec<String> = items("names", host),
        /// Whether other machines may reach it over plain HTTP.
        pub allow_remote: bool = flag(false),
    }
}

/// `tls_cert`, `tls_key` and `client_ca`, which belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The server's certificate, and those between it and the authority, in PEM.
    pub cert: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
    /// The authorities of client certificates, in PEM; `None` asks clients for none.
    pub client_ca: Option<PathBuf>,
}

impl Http {
    /// Reads the section, and compares its keys.
    pub(super) fn checked(section: &mut Section) -> Option<Self> {
        let http = Self::read(section)?;
        match http.listen {
            Some(address) if !http.may_listen_at(address) => section.refuse("listen", OPEN),
            _ => Some(http),
        }
    }

    /// Whether HTTP may be served at this address: with TLS, on loopback, or because plain HTTP is allowed.
    pub fn may_listen_at(&self, address: SocketAddr) -> bool {
        self.tls.is_some() || self.allow_remote || address.ip().to_canonical().is_loopback()
    }
}

/// Why an address that other machines can reach is refused.
const OPEN: &str = "must be an address of this machine alone, such as \"127.0.0.1:9464\", because anybody between \
                    client and daemon can read plain HTTP; give http.tls_cert and http.tls_key, or allow it: \
                    http.allow_remote = true";

impl Section<'_> {
    fn listen(&mut self, key: &'static str) -> Option<Option<SocketAddr>> {
        self.parsed(key, "", |text| match text {
            "" => Ok(None),
            text => text.parse::<SocketAddr>().map(Some).map_err(|_| {
                "must be an IP address and a port, such as \"127.0.0.1:9464\" or \"[::1]:9464\", or \"\" for off"
            }),
        })
    }

    /// Reads three keys as one value.
    fn tls(&mut self, _: &'static str) -> Option<Option<Tls>> {
        let cert = self.optional_path("tls_cert");
        let key = self.optional_path("tls_key");
        let client_ca = self.optional_path("client_ca");
        if let Some(Some(key)) = &key {
            self.warn_if_readable("tls_key", key);
        }
        match (cert?, key?, client_ca?) {
            (Some(cert), Some(key), client_ca) => Some(Some(Tls { cert, key, client_ca })),
            (Some(_), None, _) => self.refuse("tls_cert", "has no key with it: add http.tls_key"),
            (None, Some(_), _) => self.refuse("tls_key", "has no certificate with it: add http.tls_cert"),
            (None, None, Some(_)) => self
                .refuse("client_ca", "only TLS has client certificates: add http.tls_cert and http.tls_key"),
            (None, None, None) => Some(None),
        }
    }
}

/// A name as a `Host` header has it, without the port. An IPv6 address may have its brackets or not.
fn host(written: &ValueKind) -> Result<String, String> {
    let text = text_of(written)?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(address.to_canonical().to_string());
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if text.len() <= 253 && text.split('.').all(is_label) {
        return Ok(text.to_ascii_lowercase());
    }
    Err("must be names or addresses alone, without https://, a port, a path or a \"*\", such as \"pinwatch.example.com\""
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{load, table};
    use super::*;

    #[test]
    fn the_address_must_have_a_port_and_an_empty_one_turns_http_off() {
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
    fn an_address_that_other_machines_reach_must_be_allowed_explicitly() {
        let refused = "http.listen: must be an address of this machine alone";
        table(&[
            ("any address of the machine is refused", "http.listen = \"0.0.0.0:9464\"", refused),
            ("any IPv6 address of the machine is refused", "http.listen = \"[::]:9464\"", refused),
            ("an address in a network is refused", "http.listen = \"192.0.2.7:9464\"", refused),
            ("IPv4 in IPv6 is seen through", "http.listen = \"[::ffff:192.0.2.7]:9464\"", refused),
            ("all of 127 is this machine", "http.listen = \"127.0.0.2:9464\"", ""),
            ("TLS is enough", "http = {listen = \"0.0.0.0:9464\", tls_cert = \"/c\", tls_key = \"/k\"}", ""),
            ("loopback in IPv6 clothes is loopback", "http.listen = \"[::ffff:127.0.0.1]:9464\"", ""),
            (
                "it is taken where that is allowed",
                "http.allow_remote = true\nhttp.listen = \"0.0.0.0:9464\"",
                "",
            ),
            ("allowing it listens nowhere", "http.allow_remote = true", ""),
        ]);
    }

    #[test]
    fn a_certificate_needs_its_key_and_client_certificates_need_tls() {
        table(&[
            ("both are taken", "http = {tls_cert = \"/c\", tls_key = \"/k\"}", ""),
            (
                "a certificate alone is refused",
                "http.tls_cert = \"/c\"",
                "http.tls_cert: has no key with it: add http.tls_key",
            ),
            (
                "so is a key alone",
                "http.tls_key = \"/k\"",
                "http.tls_key: has no certificate with it: add http.tls_cert",
            ),
            (
                "client certificates need TLS",
                "http.client_ca = \"/a\"",
                "http.client_ca: only TLS has client certificates",
            ),
            ("a path is absolute", "http.tokens_file = \"/\"", "http.tokens_file: must be the absolute path"),
        ]);
        let all = "http = {tls_cert = \"/c\", tls_key = \"/k\", client_ca = \"/a\", tokens_file = \"/t\"}";
        let http = load(all).unwrap().http;
        let [cert, key, client_ca] = ["/c", "/k", "/a"].map(Into::into);
        assert_eq!(http.tls, Some(Tls { cert, key, client_ca: Some(client_ca) }));
        assert_eq!(http.tokens_file.as_deref(), Some("/t".as_ref()));
    }

    #[test]
    fn hosts_must_be_plain_names_without_scheme_port_or_wildcard() {
        let hosts = |hosts: &str| format!("http.hosts = {hosts}");
        let refused = "http.hosts: must be names or addresses alone";
        table(&[
            ("a scheme is refused", &hosts("[\"https://a.example\"]"), refused),
            ("so is a port", &hosts("[\"a.example:9464\"]"), refused),
            ("so is a wildcard", &hosts("[\"*.example\"]"), refused),
            ("so is nothing", &hosts("[\"\"]"), refused),
            ("so is an empty label", &hosts("[\"a..example\"]"), refused),
            ("a number is no list", &hosts("1"), "http.hosts: must be a list of names"),
            ("nor a list of names", &hosts("[1]"), "http.hosts: must be a string"),
        ]);
        let read = |text: &str| load(&hosts(text)).unwrap().http.hosts;
        assert_eq!(read("[\"A.Example\", \"[2001:DB8::1]\", \"::1\"]"), ["a.example", "2001:db8::1", "::1"]);
        assert_eq!(read("\"a.example, 192.0.2.7\""), ["a.example", "192.0.2.7"]);
        assert_eq!(read("\"\""), [""; 0]);
        // As TOML in a text, which is all that the environment and --set have.
        assert_eq!(read("'[\"a.example\", \"[::1]\"]'"), ["a.example", "::1"]);
        assert_eq!(read("'[]'"), [""; 0]);
        assert_eq!(read("\"[::1]\""), ["::1"]);
        assert_eq!(load("").unwrap().http.hosts, [""; 0]);
    }
}
