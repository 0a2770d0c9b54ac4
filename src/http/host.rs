//! Refuses requests that were not meant for this daemon.
//!
//! A web page can make a browser send requests to this machine: the page's own name is made to lead here (DNS rebinding), so
//! the browser takes the daemon for the page's server. The page's name then stands in `Host`. Promises that a request is
//! answered only if all names in it are the daemon's. Must not know paths.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::uri::Authority;
use axum::http::{Request, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::config;
use crate::text::json_line;

/// The names of this daemon.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    /// `http.hosts`, in lower case.
    names: Vec<String>,
    /// Where it listens.
    listen: Option<IpAddr>,
}

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    /// It names no host, or an invalid one.
    Bad,
    /// It names this host, which is not the daemon's.
    Other(String),
}

impl Hosts {
    pub fn new(http: &config::Http, listen: SocketAddr) -> Self {
        Self { names: http.hosts.clone(), listen: Some(listen.ip().to_canonical()) }
    }

    /// The answer to a request that came in at the address `local`, if it is refused.
    pub fn refusal<B>(&self, request: &Request<B>, local: Option<IpAddr>) -> Option<Response> {
        let (status, title, detail) = match self.check(request, local).err()? {
            Refused::Bad => (
                StatusCode::BAD_REQUEST,
                "Bad Request",
                "the request needs one Host header with the name of this machine".to_owned(),
            ),
            Refused::Other(host) => (
                StatusCode::MISDIRECTED_REQUEST,
                "Misdirected Request",
                format!(
                    "this daemon is not called {host:?}; if it is, add that to http.hosts in its configuration"
                ),
            ),
        };
        let problem = json!({"type": "about:blank", "title": title, "status": status.as_u16(), "code": "wrong_host", "detail": detail});
        let text = json_line(problem.to_string()).into_owned() + "\n";
        Some((status, [(CONTENT_TYPE, "application/problem+json")], text).into_response())
    }

    fn check<B>(&self, request: &Request<B>, local: Option<IpAddr>) -> Result<(), Refused> {
        let in_uri = request.uri().authority().map(|authority| authority.as_str().as_bytes());
        let headers = request.headers().get_all(HOST).iter().map(|value| value.as_bytes());
        let mut is_named = false;
        for named in in_uri.into_iter().chain(headers) {
            is_named = true;
            let host = host(named).ok_or(Refused::Bad)?;
            if !self.is_own(&host, local) {
                return Err(Refused::Other(host));
            }
        }
        // Before HTTP/1.1 there was no Host. Every browser sends it.
        let is_old = request.version() < Version::HTTP_11;
        if is_named || is_old { Ok(()) } else { Err(Refused::Bad) }
    }

    fn is_own(&self, host: &str, local: Option<IpAddr>) -> bool {
        match host.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(address) => {
                address.is_loopback()
                    || Some(address) == self.listen
                    || Some(address) == local.map(|local| local.to_canonical())
                    || self.names.contains(&address.to_string())
            }
            Err(_) => host == "localhost" || self.names.iter().any(|name| name == host),
        }
    }
}

/// The host without port, brackets and final dot, in lower case; `None` if that is no host.
fn host(named: &[u8]) -> Option<String> {
    let authority = Authority::try_from(named).ok().filter(|authority| !authority.as_str().contains('@'))?;
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    (!bare.is_empty()).then(|| bare.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(hosts: &Hosts, version: Version, uri: &str, headers: &[&str]) -> u16 {
        let mut request = Request::builder().version(version).uri(uri);
        for header in headers {
            request = request.header(HOST, *header);
        }
        let local = Some("192.0.2.7".parse().unwrap());
        hosts.refusal(&request.body(()).unwrap(), local).map_or(200, |answer| answer.status().as_u16())
    }

    #[test]
    fn a_request_is_answered_only_if_every_host_name_in_it_is_the_daemons() {
        let names = vec!["pinwatch.example".to_owned(), "2001:db8::7".to_owned()];
        let hosts = Hosts { names, listen: Some("10.0.0.1".parse().unwrap()) };
        for (host, expected) in [
            ("localhost", 200),
            ("LocalHost:9464", 200),
            ("localhost.", 200),
            ("127.0.0.1:9464", 200),
            ("127.8.9.10", 200),
            ("[::1]:9464", 200),
            ("[::1]", 200),
            ("[::ffff:127.0.0.1]", 200),
            ("10.0.0.1", 200),
            ("192.0.2.7:1", 200),
            ("pinwatch.example", 200),
            ("PINWATCH.example:443", 200),
            ("pinwatch.example.", 200),
            ("[2001:DB8:0::7]", 200),
            ("192.0.2.8", 421),
            ("evil.example", 421),
            ("localhost.evil.example", 421),
            ("evil.pinwatch.example", 421),
            ("127.0.0.1.evil.example", 421),
            ("", 400),
            (":9464", 400),
            ("localhost@evil.example", 400),
            ("evil.example@localhost", 400),
            ("a b", 400),
        ] {
            assert_eq!(status(&hosts, Version::HTTP_11, "/metrics", &[host]), expected, "{host:?}");
        }
    }

    #[test]
    fn every_host_name_of_a_request_is_checked_and_only_http_1_0_may_omit_it() {
        let hosts = Hosts::default();
        let whole = |host: &str| format!("http://{host}/metrics");
        for (version, uri, headers, expected) in [
            (Version::HTTP_10, "/metrics", &[][..], 200),
            (Version::HTTP_10, "/metrics", &["evil.example"], 421),
            (Version::HTTP_11, "/metrics", &[], 400),
            (Version::HTTP_11, "/metrics", &["localhost", "evil.example"], 421),
            (Version::HTTP_11, &whole("evil.example"), &["localhost"], 421),
            (Version::HTTP_11, &whole("localhost"), &["evil.example"], 421),
            (Version::HTTP_2, &whole("localhost"), &[], 200),
            (Version::HTTP_2, &whole("evil.example"), &[], 421),
            (Version::HTTP_2, "/metrics", &[], 400),
        ] {
            assert_eq!(status(&hosts, version, uri, headers), expected, "{version:?} {uri} {headers:?}");
        }
    }

    #[test]
    fn the_answer_names_the_host_and_the_key() {
        let request = Request::builder().uri("/").header(HOST, "evil.example").body(()).unwrap();
        let refused = Hosts::default().check(&request, None);
        assert_eq!(refused, Err(Refused::Other("evil.example".to_owned())));
    }
}
